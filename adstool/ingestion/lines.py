"""Where refused rows stand in a file, and a clean copy of a file that DuckDB cannot read as it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adstool.ingestion.checksum import KeyCounter
from adstool.ingestion.inputs import LONGEST_LINE, Dialect, Input, RowsDisagree, physical_lines
from adstool.warehouse import lent, load_sql

BATCH = 20_000  # rows held in memory
BATCH_BYTES = 1 << 26  # of their lines, should these be long
LONGEST_TEXT = 1 << 16  # characters of a refused row that are kept
TOO_LONG = f"longer than {LONGEST_LINE:,} bytes"
FURTHEST = 1000  # lines that one quoted value may span
LOCATED = pa.schema(
    [("row", pa.int64()), ("line", pa.int64()), ("text", pa.string()), ("problem", pa.string())]
)


class _Unquoted(csv.excel):
    quoting = csv.QUOTE_NONE


def locate_refused(
    con: duckdb.DuckDBPyConnection,
    source: Input,
    copy: Input | None,
    dialect: Dialect,
    total: int | None,
    *,
    count_keys: bool,
) -> int:
    """Fill the table `located` with row, line, text and problem of every record of `refused`.

    `copy` is the converted file when one was made. Gives how many keys with a value those lines may have,
    with `count_keys`. Raises RowsDisagree when the file does not have `total` records.
    """
    keys = KeyCounter()
    found = con.execute(load_sql("ingest_refused_rows")).fetchnumpy()["row"]
    rows: np.ndarray[Any, Any] = np.asarray(found, dtype=np.int64)
    if copy is not None:
        batches = locate_in_parquet(con, copy, rows, copy=True)
    elif source.format == "parquet":
        batches = locate_in_parquet(con, source, rows, copy=False)
    else:
        batches = locate(source, dialect, rows, total, keys if count_keys else None)
    con.execute(load_sql("ingest_located"))
    for batch in batches:
        with lent(con, located_batch=pa.Table.from_batches([batch])):
            con.execute("insert into located select * from located_batch")
    return keys.finish()


def locate(
    source: Input,
    dialect: Dialect,
    rows: np.ndarray[Any, Any],
    total: int | None,
    keys: KeyCounter | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches (row, line, text, problem) of the records `rows` (int64, ascending, from 0).

    The file is jsonl or csv; `line` is the first physical line of the record, from 1, and `problem` says why
    a line of jsonl is no JSON object, else null. Raises RowsDisagree when the file does not have `total`
    records. `keys` counts the keys in the records.
    """
    wanted = iter(rows.tolist())
    following = next(wanted, -1)
    found: list[tuple[int, int, str, str | None]] = []
    raws: list[bytes] = []
    size = 0
    count = -1
    with source.open() as handle:
        records = _lines(handle) if source.format == "jsonl" else _csv_records(handle, dialect)
        for line, raw in records:
            count += 1
            if count != following:
                continue
            problem = _object(raw)[1] if source.format == "jsonl" else None
            if keys is not None:
                raws.append(raw)
            found.append((count, line, _text(raw, dialect.encoding), problem))
            following = next(wanted, -1)
            size += len(raw)
            if len(found) == BATCH or size > BATCH_BYTES:
                yield _located(found)
                found, size = [], 0
                if keys is not None:
                    keys.update(b"".join(raws))
                    raws = []
    if keys is not None:
        keys.update(b"".join(raws))
    if total is not None and count + 1 != total:
        raise RowsDisagree(source.name)
    yield _located(found)


def locate_in_parquet(
    con: duckdb.DuckDBPyConnection, source: Input, rows: np.ndarray[Any, Any], *, copy: bool
) -> Iterator[pa.RecordBatch]:
    """Batches (row, line, text, problem) of records of a parquet file, `copy` telling that it is ours.

    The text of a record of the user's own file is the record as JSON; its line is its number, from 1.
    """
    query = "ingest_converted_rows" if copy else "ingest_parquet_rows"
    with lent(con, wanted_rows=pa.table({"row": rows})):
        found = con.sql(load_sql(query), params={"path": source.pattern}).to_arrow_table()
    yield from found.cast(LOCATED).to_batches(BATCH)


def _located(found: list[tuple[int, int, str, str | None]]) -> pa.RecordBatch:
    columns = list(zip(*found, strict=True)) if found else [()] * len(LOCATED)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, LOCATED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=LOCATED)


def _text(raw: bytes, encoding: str) -> str:
    return raw.rstrip(b"\r\n")[: 4 * LONGEST_TEXT].decode(encoding, errors="backslashreplace")[:LONGEST_TEXT]


def _lines(handle: Any) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, as DuckDB counts them, with their number."""
    for number, raw in physical_lines(handle):
        if raw.strip():
            yield number, raw


def _csv_records(handle: Any, dialect: Dialect) -> Iterator[tuple[int, bytes]]:
    """Records of a well-formed csv file: a quoted value may span lines, empty lines count for nothing."""
    lines: list[bytes] = []
    start = quotes = 0
    for number, raw in physical_lines(handle):
        if number == 1 and dialect.header:
            continue
        if not lines:
            if not raw.strip(b"\r\n"):
                continue
            start = number
        lines.append(raw)
        quotes += raw.count(b'"')
        if dialect.quoted and quotes % 2:
            continue
        yield start, b"".join(lines)
        lines, quotes = [], 0
    if lines:
        yield start, b"".join(lines)


def convert(source: Input, dialect: Dialect, target: Path) -> Input:
    """A parquet copy of a damaged jsonl or csv file, one row a record, made by Python's own parsers.

    Columns: c0, c1, ... (csv) or json (jsonl), all null when the record cannot be read; problem; line; text.
    """
    names = ["json"] if source.format == "jsonl" else [f"c{index}" for index in range(dialect.width)]
    schema = pa.schema(
        [(name, pa.string()) for name in names]
        + [("problem", pa.string()), ("line", pa.int64()), ("text", pa.string())]
    )
    with source.open() as handle, pq.ParquetWriter(target, schema) as writer:
        if source.format == "jsonl":
            records = _parsed_objects(handle)
        else:
            records = _parsed_csv(handle, dialect)
        batch: list[tuple[Any, ...]] = []
        size = 0
        for values, problem, line, raw in records:
            batch.append((*(values or [None] * len(names)), problem, line, _text(raw, dialect.encoding)))
            size += len(raw)
            if len(batch) == BATCH or size > BATCH_BYTES:
                writer.write_batch(_batch(batch, schema))
                batch, size = [], 0
        if batch:
            writer.write_batch(_batch(batch, schema))
    return replace(source, path=target, format="parquet", compression="none")


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


Parsed = tuple[list[str | None] | None, str | None, int, bytes]


def _parsed_objects(handle: Any) -> Iterator[Parsed]:
    for number, line in _lines(handle):
        raw = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if raw.strip():
            text, problem = _object(raw)
            yield (None if text is None else [text]), problem, number, raw


def _object(raw: bytes) -> tuple[str | None, str | None]:
    """The text of a line that is a JSON object, or why it is none."""
    if len(raw) > LONGEST_LINE:
        return None, TOO_LONG
    try:
        text = raw.decode("utf-8")
        if isinstance(json.loads(text), dict):
            return text, None
    except UnicodeDecodeError:
        return None, "not valid UTF-8"
    except (ValueError, RecursionError):
        return None, "not valid JSON"
    return None, "not a JSON object"


def _parsed_csv(handle: Any, dialect: Dialect) -> Iterator[Parsed]:
    """Records of a csv file in which anything may be wrong.

    A quote that is never closed would swallow the rest of the file: when a record of several lines has the
    wrong number of values, only its first line is refused and reading goes on with the second.
    """
    csv.field_size_limit(LONGEST_LINE)
    waiting: list[tuple[int, bytes]] = []
    numbered = physical_lines(handle)
    if dialect.header:
        next(numbered, None)
    while True:
        first = waiting.pop(0) if waiting else next(numbered, None)
        if first is None:
            return
        number, raw = first
        if not raw.strip():
            continue
        values, problem = _record(raw, dialect)
        taken = 0
        if problem and dialect.quoted and raw.count(b'"') % 2:
            quotes, size = raw.count(b'"'), len(raw)
            while taken < FURTHEST and quotes % 2 and size <= LONGEST_LINE:
                if taken == len(waiting):
                    more = next(numbered, None)
                    if more is None:
                        break
                    waiting.append(more)
                quotes += waiting[taken][1].count(b'"')
                size += len(waiting[taken][1])
                taken += 1
            joined = b"".join([raw, *(line for _, line in waiting[:taken])])
            whole, trouble = _record(joined, dialect)
            if trouble is None and quotes % 2 == 0:
                values, problem, raw = whole, None, joined
                del waiting[:taken]
        yield values, problem, number, raw


def _record(raw: bytes, dialect: Dialect) -> tuple[list[str | None] | None, str | None]:
    """The values of one record, or why there are none."""
    if len(raw) > LONGEST_LINE:
        return None, TOO_LONG
    try:
        text = raw.decode(dialect.encoding)
        style = csv.excel if dialect.quoted else _Unquoted
        rows = list(csv.reader([text], style, delimiter=dialect.delimiter, strict=True))
    except UnicodeDecodeError:
        return None, "not valid UTF-8"
    except csv.Error as error:
        open_quote = "unexpected end of data" in str(error)
        return None, "a quote is opened and not closed" if open_quote else f"not valid csv: {error}"
    if len(rows) != 1 or len(rows[0]) != dialect.width:
        found = len(rows[0]) if rows else 0
        return None, f"{found} values where there should be {dialect.width}"
    return [value or None for value in rows[0]], None
