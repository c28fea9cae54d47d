"""What a public format is made of: files, and the query that turns each into rows of one of our tables."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from adstool.errors import DataError
from adstool.ingestion.inputs import Dialect, Input
from adstool.ingestion.readers import CONVERTED, csv_scan
from adstool.ingestion.validation import Relation
from adstool.warehouse import load_sql
from adstool.warehouse.flat import table_named


@dataclass(frozen=True)
class Feed:
    """One file of a public format as one of our tables.

    The query reads `records` (_row and the named columns, as text) and gives the table's columns, attributes,
    problem (why a record makes no sense, or null) and _row. Names come from the first line of the file, cut
    at a colon, unless `columns` gives them.
    """

    file: str
    table: str
    query: str  # sql/<query>.sql
    needs: tuple[str, ...]  # columns that the query uses
    columns: tuple[str, ...] = ()  # of a file without a first line of names
    delimiter: str = ","
    encoding: str = "utf-8"
    quoted: bool = True
    optional: tuple[str, ...] = ()  # columns that the query uses and a file may lack


def feed_relation(
    con: duckdb.DuckDBPyConnection, source: Input, feed: Feed, copy: Input | None
) -> tuple[Relation, Dialect]:
    """The relation of a feed's file, read from `copy` when the file had to be converted.

    Raises DataError when the file lacks one of the columns that its format has.
    """
    header = list(feed.columns) or _header(source, feed)
    missing = [name for name in feed.needs if name not in header]
    if missing:
        raise DataError(
            f"{source.name} has no column '{missing[0]}'.",
            f"{feed.file} is published with: {', '.join(feed.needs)}.",
        )
    dialect = Dialect(feed.delimiter, len(header), not feed.columns, feed.encoding, feed.quoted)
    scan, parameters = csv_scan(source, dialect)
    if copy is not None:
        scan, parameters = CONVERTED, {"path": copy.pattern}
    wanted = (*feed.needs, *feed.optional)
    named = ", ".join(
        f'c{header.index(name)} as "{name}"' if name in header else f'null::varchar as "{name}"'
        for name in wanted
    )
    # The number of a record follows the order of the file: DuckDB keeps it, reading in one thread here.
    records = f"select row_number() over () - 1 as _row, {named} from {scan}"
    sql = load_sql(feed.query).format(records=records)
    if "$file" in sql:
        parameters = {**parameters, "file": source.name}
    described = con.execute(f"describe {sql}", parameters).fetchall()
    kinds = {"TIMESTAMP": "time", "DOUBLE": "number", "INTEGER": "number", "BIGINT": "number"}
    columns = {
        str(row[0]): kinds.get(str(row[1]), "text")
        for row in described
        if str(row[0]) in table_named(feed.table).names
    }
    return Relation(sql, columns, parameters, numbered=True), dialect


def _header(source: Input, feed: Feed) -> list[str]:
    """Names of the first line; RecBole writes name:type."""
    return [name.split(":")[0].strip() for name in first_line_of(source).split(feed.delimiter)]


def first_line_of(source: Input) -> str:
    """The first line of a file, at most a mebibyte of it, without its end."""
    with source.open() as handle:
        return handle.readline(1 << 20).decode("utf-8-sig", errors="replace").rstrip("\r\n")
