"""adstool rejects: the rows that were refused, with file, line and reason."""

from __future__ import annotations

from typing import Annotated

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, say, table


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("rejects")(rejects)


def rejects(
    context: typer.Context,
    table_name: Annotated[str | None, typer.Option("--table", help="Of one table only.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many to show.")] = 20,
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
