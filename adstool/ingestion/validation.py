"""Types and ranges of rows, checked in SQL while a file is read: typed columns, and why a row is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adstool.warehouse import load_sql
from adstool.warehouse.schema import SQL_TYPES, Column, Table

EARLIEST, LATEST = "1900-01-01", "2200-01-01"
MEANINGS = {
    "time": "a time (ISO 8601, or epoch seconds or milliseconds)",
    "integer": "a whole number",
    "number": "a finite number",
}


@dataclass(frozen=True)
class Relation:
    """A file as DuckDB reads it: a query that gives raw values under the names of the table's columns.

    `columns` maps those it has to what DuckDB knows of them: text, number or time. `attributes` and
    `problem` (why a row cannot be used at all, or null) are always among its columns; `_row` (the number of
    the record in the file, from 0) only with `numbered`. With `keys`, JSON objects are read for these keys
    only: other keys would be lost, and a line that is no object comes as a row of nulls.
    """

    sql: str
    columns: Mapping[str, str]
    parameters: dict[str, Any] = field(default_factory=dict)
    numbered: bool = False
    keys: tuple[str, ...] = ()


def fill_sql(table: Table, relation: Relation, destination: str) -> str:
    """The statement that appends a relation to `destination`, typed, in the order of the file.

    A refused row comes too, so that row numbers stay those of the file; its attributes begin with the
    statement's parameter `mark` and hold the reason (and the record's number, with `numbered`).
    """
    typed = ",\n        ".join(
        f"{_typed(column, relation.columns.get(column.name))} as {column.name}" for column in table.columns
    )
    raw = ",\n        ".join(
        f"{name} as raw_{name}" for name in (c.name for c in table.columns if c.name in relation.columns)
    )
    return load_sql("ingest_fill").format(
        destination=destination,
        names=", ".join(table.names),
        source=relation.sql,
        typed=typed,
        raw=f"{raw}," if raw else "",
        reason=_reason(table, relation),
        row="_row" if relation.numbered else "null",
        number="_row," if relation.numbered else "",
    )


def _typed(column: Column, known_as: str | None) -> str:
    name = column.name
    if known_as is None:
        return f"null::{SQL_TYPES[column.type]}"
    if column.type in ("text", "image"):
        return f"nullif({name}, '')" if known_as == "text" else f"{name}::varchar"
    if column.type == "time":
        return _time(name, known_as)
    number = f"try_cast({name} as double)"
    if column.type == "integer":
        return f"case when {number} = floor({number}) then try_cast({number} as integer) end"
    return number


def _time(name: str, known_as: str) -> str:
    """UTC from text with or without an offset, else from epoch seconds (below 1e11) or milliseconds."""
    if known_as == "time":
        return name
    # In a lambda, or DuckDB would compute the number, which stands there several times, for every row.
    epoch = (
        f"list_transform([try_cast({name} as double)], lambda number: case"
        " when number < 0 then null"
        " when number < 1e11 then make_timestamp(try_cast(round(number * 1e6) as bigint))"
        " when number < 1e14 then make_timestamp(try_cast(round(number * 1e3) as bigint)) end)[1]"
    )
    if known_as == "number":
        return epoch
    # Through epoch_us: the cast of a timestamptz to a timestamp asks the calendar of ICU, at 3 x the time.
    return f"coalesce(make_timestamp(epoch_us(try_cast({name} as timestamptz))), {epoch})"


def _reason(table: Table, relation: Relation) -> str:
    cases = ["when problem is not null then problem"]
    for column in table.columns:
        if column.name not in relation.columns:
            if column.required:
                cases.append(f"when {column.name} is null then '{column.name} is missing'")
            continue
        cases += _cases(column, relation.columns[column.name])
    return "case\n            " + "\n            ".join(cases) + "\n        end"


def _cases(column: Column, known_as: str) -> list[str]:
    name = column.name
    raw = f"raw_{name}" if known_as == "text" else f"raw_{name}::varchar"
    cases = []
    absent = f"(raw_{name} is null" + (f" or raw_{name} = '')" if known_as == "text" else ")")
    if column.required:
        cases.append(f"when {name} is null and {absent} then '{name} is missing'")
    good = {
        "time": f"{name} between timestamp '{EARLIEST}' and timestamp '{LATEST}'",
        "number": f"isfinite({name})",
        "integer": f"{name} is not null",
    }.get(column.type, "")
    if column.check:
        check = column.check.format(value=name)
        good = f"{good} and {check}" if good else check
    if good:
        meaning = (column.meaning or MEANINGS[column.type]).replace("'", "''")
        cases.append(
            f"when not {absent} and not coalesce({good}, false)"
            f" then concat('{name} ', to_json(left({raw}, 80))::varchar, ' is not {meaning}')"
        )
    return cases
