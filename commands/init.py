"""adstool init: a workspace with a commented adstool.toml."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._help import add_verb
from adstool.commands._options import argument
from adstool.commands._output import emit, next_verb, say
from adstool.commands._plan import show_plan
from adstool.workspace import CONFIG_NAME, Workspace, write_text


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        init,
        "adstool init shop",
        "adstool --json init",
    )


def init(
    context: typer.Context,
    directory: Annotated[Path, argument("The folder to make.", "DIR", "this folder")] = Path("."),
    dry_run: _options.DryRun = False,
) -> None:
    """Make a workspace: a folder with a commented adstool.toml.

    An adstool.toml that is there stays as it is. The workspace of every other verb is --workspace, else
    ADSTOOL_WORKSPACE, else the nearest folder upward that holds an adstool.toml.
    """
    root = directory.resolve()
    existed = (root / CONFIG_NAME).is_file()
    if dry_run:
        from adstool.planned import Planned

        show_plan(context, Planned([] if existed else [root / CONFIG_NAME]))
        return
    if not existed:
        template = files("adstool").joinpath("adstool.toml").read_text(encoding="utf-8")
        root.mkdir(parents=True, exist_ok=True)
        with Workspace(root).lock():  # which takes away what a killed init left
            write_text(root / CONFIG_NAME, template)
    if emit(context, {"workspace": str(root), "created": not existed}):
        return
    say(context, f"Workspace {root}" + (" was there already." if existed else "."))
    next_verb(context, "adstool ingest FILES, or adstool sample world for data to play with.")
