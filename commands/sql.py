"""adstool sql: a read-only query of the warehouse."""

from __future__ import annotations

from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import argument
from adstool.commands._output import emit, say, table

SHOWN = 1000  # rows of a table for people


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        sql,
        'adstool sql "select action, count(*) from events group by action"',
        'adstool sql "from rejects" --output rejects.csv',
    )


def sql(
    context: typer.Context,
    query: Annotated[str, argument("One SQL statement of DuckDB that reads.", "QUERY")],
    output: _options.Output = None,
) -> None:
    """Ask the warehouse in SQL; nothing can be changed.

    Without --output people see the first 1,000 rows and --json has all of them; --output writes all to a
    .csv, .jsonl or .parquet file.
    """
    from itertools import islice

    from adstool.commands._context import globals_of
    from adstool.warehouse.readonly import Answer, locked_down

    workspace, settings = open_workspace(context)
    with locked_down(workspace, settings) as con:
        answer = Answer(con, query)
        if output is not None:
            count = answer.write(output)
            if not emit(context, {"rows": count, "output": str(output.resolve())}):
                say(context, f"{count:,} rows in {output}.")
            return
        if globals_of(context).json:
            emit(context, {"rows": list(answer.rows())})
            return
        rows = answer.rows()
        shown = list(islice(rows, SHOWN))
        table(context, answer.schema.names, [list(row.values()) for row in shown])
        if next(rows, None) is None:
            say(context, f"{len(shown):,} rows.")
        else:
            say(context, f"The first {SHOWN:,} rows; for all of them: adstool sql QUERY --output FILE.")
