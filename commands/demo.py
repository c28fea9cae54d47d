"""adstool demo: a workspace with the sample world in it, and every stage done."""

from __future__ import annotations

import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import globals_of
from adstool.commands._help import add_verb
from adstool.commands._options import argument
from adstool.commands._output import emit, next_verb, say
from adstool.commands._plan import show_plan
from adstool.commands.run import run_pipeline
from adstool.config import load_settings
from adstool.workspace import CONFIG_NAME, Workspace, write_text


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        demo,
        "adstool demo",
        "adstool demo shop",
    )


def demo(
    context: typer.Context,
    directory: Annotated[
        Path | None, argument("The folder to make.", "DIR", "--workspace, else demo")
    ] = None,
    dry_run: _options.DryRun = False,
) -> None:
    """Make a workspace with the sample world and all of it done.

    A minute on two cores: the world that ships with adstool is loaded, and every stage of `run` done, to
    the report. A second time only what is stale is done.
    """
    from adstool.ingestion.ingest import IngestOptions, ingest
    from adstool.warehouse import open_warehouse

    clock = time.perf_counter()
    options = globals_of(context)
    root = (directory or options.workspace or Path("demo")).resolve()
    if dry_run:
        from adstool.planned import plan_demo

        show_plan(context, plan_demo(root, options.config))
        return
    if not (root / CONFIG_NAME).is_file():
        template = files("adstool").joinpath("adstool.toml").read_text(encoding="utf-8")
        write_text(root / CONFIG_NAME, template)
    workspace = Workspace(root)
    settings = load_settings(options.config or workspace.config)
    say(context, f"Workspace {root}")
    with as_file(files("adstool.sample_data").joinpath("world")) as world:
        lock = workspace.lock(settings.warehouse.lock_wait_seconds)
        with lock, open_warehouse(workspace, settings) as connection:
            loaded = ingest(connection, workspace, [str(world)], IngestOptions())
    for table, counts in loaded.tables.items():
        say(context, f"  ingest {table:<15} {counts.inserted:>9,} new, {counts.duplicate:,} duplicate")
    payload = run_pipeline(context, workspace, settings)
    payload = {**payload, "workspace": str(root), "tables": loaded.to_json()["tables"]}
    payload["seconds"] = round(time.perf_counter() - clock, 2)
    if emit(context, payload):
        return
    if not any(stage["state"] != "fresh" for stage in payload["stages"]):
        say(context, "Everything is up to date; nothing was done.")
    say(context, f"{payload['seconds']:.1f} s in all")
    next_verb(context, f"adstool --workspace {root} rank --user u1 --explain")
