"""adstool index: what the funnel needs to answer requests, made from the warehouse and the towers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        index,
        "adstool index",
        "adstool index --tune",
    )


def index(
    context: typer.Context,
    tune: Annotated[
        bool,
        option(
            Group.RUNNING,
            "Measure ways of searching at setting index.min_recall; the fastest is used from then on.",
            "--tune",
        ),
    ] = False,
    dry_run: _options.DryRun = False,
) -> None:
    """Make what `rank` answers from: vectors of items, state of users.

    Every item is encoded with the towers in use, and what is known of users and items now is kept beside
    it. Setting index.vectors = "int8" keeps vectors in a quarter of the memory.
    """
    workspace, settings = open_workspace(context)
    if dry_run:
        from adstool.planned import plan_index

        plan_of_warehouse(context, workspace, settings, lambda con: plan_index(workspace, settings, con))
        return
    from adstool.funnel.index import build_index
    from adstool.pipeline import record
    from adstool.warehouse import open_warehouse

    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        with (
            open_warehouse(workspace, settings, read_only=True) as con,
            workspace.new_run("index") as run_dir,
        ):
            result = build_index(workspace, settings, con, run_dir, tuned=tune)
        # `run` then knows that this stage is done with the data as they are.
        record(workspace, settings, "index", result, started)
    if emit(context, result):
        return
    for name, tuning in result["tuning"].items() if tune else ():
        _show(context, name, tuning)
    rows = [(name, source["rows"], source["index"]) for name, source in result["sources"].items()]
    table(context, ["source", "items", "search"], rows)
    say(context, f"{result['rows']:,} {result['item_type']}s indexed in {result['seconds']:.1f} s.")
    next_verb(context, "adstool rank --user USER")


def _show(context: typer.Context, source: str, tuning: dict[str, Any]) -> None:
    columns = ["search", "partitions", "probes", "refine", "recall@100", "p50 ms", "p90 ms", "build s", ""]
    keys = ("kind", "partitions", "probes", "refine", "recall", "p50_ms", "p90_ms", "build_seconds")
    rows = [(*(trial[key] for key in keys), "chosen" * trial["chosen"]) for trial in tuning["table"]]
    title = f"{source}: {tuning['rows']:,} x {tuning['dim']}, {tuning['depth']:,} asked for"
    table(context, columns, rows, title)
    say(context, f"{source}: {tuning['chosen']['kind']}, {tuning['reason']}.")
