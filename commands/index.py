"""adstool index: what the funnel needs to answer requests, made from the warehouse and the towers."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, say, table


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("index")(index)


def index(context: typer.Context) -> None:
    """Encode every item with the towers in use, and keep what is known of users and items now."""
    workspace, settings = open_workspace(context)
    from adstool.funnel.index import build_index
    from adstool.pipeline import Job, record
    from adstool.warehouse import open_warehouse

    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds), open_warehouse(workspace, settings) as con:
        with workspace.new_run("index") as run_dir:
            result = build_index(workspace, settings, con, run_dir)
        # `run` then knows that this stage is done with the data as they are.
        record(Job(workspace, settings, con), "index", result, started)
    if emit(context, result):
        return
    rows = [(name, source["rows"], source["index"]) for name, source in result["sources"].items()]
    table(context, ["source", "items", "search"], rows)
    say(context, f"{result['rows']:,} {result['item_type']}s indexed in {result['seconds']:.1f} s.")
    next_verb(context, "adstool rank --user USER")
