"""A user's own SQL: answered from the warehouse, with no way to write it or to touch another file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError
from adstool.warehouse.database import open_warehouse
from adstool.workspace import Workspace, clear_leftovers, whole_file

SUFFIXES = (".csv", ".jsonl", ".parquet")
READING = ("SELECT", "EXPLAIN", "CALL", "PRAGMA")
BATCH = 50_000


@contextmanager
def locked_down(ws: Workspace, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for SQL that is not ours: it cannot write, attach, load, or read any other file."""
    with open_warehouse(ws, settings, read_only=True) as con:
        con.execute("set python_enable_replacements = false")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")
        yield con


class Answer:
    """The answer to one statement, read batch by batch and only once."""

    def __init__(self, con: duckdb.DuckDBPyConnection, query: str) -> None:
        """Ask `query`. Raises UsageError unless it is one statement that reads, AdstoolError with DuckDB's
        own words when it fails."""
        try:
            kinds = [_kind(statement) for statement in con.extract_statements(query)]
            if len(kinds) != 1:
                raise UsageError(f"{len(kinds)} SQL statements were given.", "Give one at a time.")
            if kinds[0] not in READING:
                raise AdstoolError(
                    f"The warehouse is only read here: {kinds[0].replace('_', ' ')} is not allowed.",
                    "Select from it; to keep the answer: adstool sql QUERY --output FILE.",
                )
            relation = con.sql(query)
            reader = relation.to_arrow_reader(BATCH)
        except duckdb.Error as error:
            raise _explain(error) from None
        self.schema: pa.Schema = reader.schema
        self._reader = reader

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in batches."""
        try:
            yield from self._reader
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _explain(error) from None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows as objects of JSON values."""
        names = self.schema.names
        for batch in self.batches():
            columns = [[plain(value) for value in column.to_pylist()] for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))

    def write(self, target: Path) -> int:
        """Write the rows to a csv, jsonl or parquet file, whole or not at all; how many there were."""
        if target.suffix not in SUFFIXES:
            raise UsageError(
                f"--output {target} does not say its format.", f"End its name in {', '.join(SUFFIXES)}."
            )
        if not target.parent.is_dir():
            raise AdstoolError(f"{target.parent} does not exist.", "Make the folder first.")
        writers = {".jsonl": self._write_jsonl, ".csv": self._write_csv, ".parquet": self._write_parquet}
        try:
            clear_leftovers(target)
            with whole_file(target) as temporary:
                return writers[target.suffix](temporary)
        except OSError as error:
            raise AdstoolError(f"{target} cannot be written: {error.strerror}.", "Choose another.") from None

    def _write_jsonl(self, path: Path) -> int:
        count = 0
        with open(path, "w", encoding="utf-8") as handle:
            for row in self.rows():
                handle.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
                count += 1
        return count

    def _write_parquet(self, path: Path) -> int:
        count = 0
        with pq.ParquetWriter(path, self.schema) as writer:
            for batch in self.batches():
                writer.write_batch(batch)
                count += batch.num_rows
        return count

    def _write_csv(self, path: Path) -> int:
        """Nested values, for which csv has no form, are written as JSON."""
        nested = [pa.types.is_nested(field.type) for field in self.schema]
        flat = pa.schema(
            [(f.name, pa.string() if deep else f.type) for f, deep in zip(self.schema, nested, strict=True)]
        )
        count = 0
        with pa_csv.CSVWriter(path, flat) as writer:
            for batch in self.batches():
                columns = [
                    _as_json(column) if deep else column
                    for column, deep in zip(batch.columns, nested, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))
                count += batch.num_rows
        return count


def _kind(statement: Any) -> str:
    """SELECT, INSERT ...; ANOTHER KIND where DuckDB has one that its package cannot name."""
    try:
        return str(statement.type).split(".")[-1]
    except ValueError:
        return "ANOTHER KIND"


def _as_json(column: pa.Array) -> pa.Array:
    texts = [None if v is None else json.dumps(plain(v), ensure_ascii=False) for v in column.to_pylist()]
    return pa.array(texts, pa.string())


def _explain(error: Exception) -> AdstoolError:
    text = str(error).strip()
    if "Permission Error" in text:
        return AdstoolError(
            f"Only the warehouse is read here: {text.splitlines()[0]}", "Load files with adstool ingest."
        )
    return AdstoolError(f"The query failed: {text}", "See the tables: adstool sql 'show tables'.")


def plain(value: Any) -> Any:
    """A value of DuckDB as JSON has it: times ISO 8601, decimals numbers, bytes hex, NaN null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
