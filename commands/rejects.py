"""adstool rejects: the rows that were refused, with file, line and reason."""

from __future__ import annotations

from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, say, table


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        rejects,
        "adstool rejects",
        "adstool rejects --table events --limit 5",
    )


def rejects(
    context: typer.Context,
    table_name: Annotated[str | None, _options.table("all of them")] = None,
    limit: Annotated[int, _options.limit("rows")] = 20,
) -> None:
    """Show the rows that were refused, with file, line and reason."""
    from adstool.warehouse import open_warehouse
    from adstool.warehouse import status as warehouse

    workspace, settings = open_workspace(context)
    with open_warehouse(workspace, settings, read_only=True) as con:
        count = warehouse.reject_count(con, table_name)
        rows = warehouse.rejects(con, table_name, limit)
    if emit(context, {"count": count, "rows": rows}):
        return
    if not count:
        say(context, "No row was refused.")
        next_verb(context, "adstool status")
        return
    table(
        context,
        ["table", "file", "line", "reason", "row"],
        [(r["table"], r["file"], r["line"], r["reason"], r["row"][:200]) for r in rows],
    )
    say(context, f"{len(rows):,} of {count:,} refused rows.")
    next_verb(context, "mend the file, or name its columns with --map; then adstool ingest it again.")
