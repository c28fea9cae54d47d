"""adstool bench: this machine's figures, each beside its floor measured in the same run."""

from __future__ import annotations

from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import globals_of, open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, table
from adstool.errors import AdstoolError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        bench,
        "adstool bench --only verbs",
        "adstool bench",
    )


def bench(
    context: typer.Context,
    only: Annotated[
        str | None,
        _options.only(
            "figure, or one of the long ones: scaling, growth, verbs, rank_200k, rank_1m",
            "FIGURE",
            "all but the long ones",
        ),
    ] = None,
) -> None:
    """Measure this machine's figures, each beside its floor.

    startup, ingest_jsonl, embed, training, int8 and rank take about a minute; scaling trains a ranker at
    five sizes and plots loss against compute, growth takes logs of 10,000, 100,000 and 1,000,000 events
    through every verb and plots time and memory, verbs measures each verb on the sample world, rank_200k and
    rank_1m time requests among many ads. Figures of models are of this workspace when it has an index, else
    of the sample world.
    """
    from adstool.bench import measure
    from adstool.config import Settings

    try:
        workspace, settings = open_workspace(context)
    except AdstoolError:
        if globals_of(context).workspace is not None:
            raise
        workspace, settings = None, Settings()  # outside any workspace the sample world is measured
    figures = list(measure(workspace, settings, only))
    if emit(context, {"figures": {figure.name: figure.to_json() for figure in figures}}):
        return
    more = list(dict.fromkeys(key for figure in figures for key in figure.beside))
    rows = [
        (
            f.name,
            f.value,
            f.floor,
            round(f.ratio, 3),
            f.unit,
            *(f.beside.get(key) for key in more),
            f.floor_is,
        )
        for f in figures
    ]
    names = [key.replace("_", " ") for key in more]
    table(context, ["figure", "value", "floor", "ratio", "unit", *names, "the floor is"], rows)
    next_verb(context, "adstool evaluate")
