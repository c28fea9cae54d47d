"""One file into its table, whole or not at all: stage, refuse, deduplicate, insert, record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from adstool.errors import AdstoolError, DataError
from adstool.ingestion.images import resolve_images
from adstool.ingestion.inputs import Checksum, Dialect, Input, damaged
from adstool.ingestion.lines import LOCATED, RowsDisagree, convert, locate, locate_in_parquet
from adstool.ingestion.readers import read_relation
from adstool.ingestion.sources.base import Feed, feed_relation
from adstool.ingestion.validation import Relation, stage_sql
from adstool.progress import log
from adstool.warehouse import load_sql
from adstool.warehouse.schema import TABLES, Table


@dataclass(frozen=True)
class Counts:
    """What became of rows: read = inserted + duplicate + rejected; updated ones are among the inserted."""

    read: int = 0
    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0
    updated: int = 0

    def __add__(self, other: Counts) -> Counts:
        """The counts of two files together."""
        return Counts(
            self.read + other.read,
            self.inserted + other.inserted,
            self.duplicate + other.duplicate,
            self.rejected + other.rejected,
            self.updated + other.updated,
        )


@dataclass(frozen=True)
class Job:
    """A file, and how it is to be taken."""

    source: Input
    spool: Path
    mapping: dict[str, str] = field(default_factory=dict)
    feed: Feed | None = None
    images: Path | None = None
    abort: bool = False  # stop at the first refused row
    dry_run: bool = False

    @property
    def context(self) -> str:
        """What besides its bytes decides what a file becomes."""
        images = str(self.images.resolve()) if self.images else ""
        feed = self.feed.query if self.feed else ""
        return json.dumps([self.source.table, sorted(self.mapping.items()), images, feed])


def load(con: duckdb.DuckDBPyConnection, job: Job) -> Counts:
    """Load one file in one transaction. Raises DataError, with nothing of the file loaded, when it is damaged
    as a whole, and with `abort` also when one of its rows is refused."""
    table = TABLES[job.source.table]
    checksum = Checksum(job.source, job.context)
    checksum.start()
    if not table.updates and (known := _loaded_before(con, job, checksum)) is not None:
        log.info("%s was loaded before: nothing to do.", job.source.name)
        return known
    try:
        row = _prepare(con, job, table)
    except duckdb.OutOfMemoryException as error:
        raise AdstoolError(
            f"{job.source.name} needs more memory than warehouse.memory_limit allows: {_first(error)}",
            "Raise warehouse.memory_limit in adstool.toml.",
        ) from None
    except duckdb.Error as error:
        checksum.result()  # a damaged stream explains the failure better than DuckDB does
        raise damaged(job.source.name, error) from None
    fingerprint = checksum.result()
    read, rejected = con.execute("select count(*), count(reason) from stage").fetchall()[0]
    if rejected and job.abort:
        raise _first_refusal(con, job, row, rejected)
    if job.dry_run:
        inserted, updated = _write(con, table, f"dry_{table.name}", f"known_{table.name}")
        return Counts(read, inserted, read - inserted - rejected, rejected, updated)
    con.execute("begin")
    try:
        if rejected:
            named = {"table": table.name, "file": job.source.name}
            con.execute(load_sql("ingest_rejects").format(row=row), named)
        inserted, updated = _write(con, table, table.name, table.name)
        counts = Counts(read, inserted, read - inserted - rejected, rejected, updated)
        con.execute(load_sql("ingest_file"), _file_row(job, fingerprint, counts))
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return counts


def _loaded_before(con: duckdb.DuckDBPyConnection, job: Job, checksum: Checksum) -> Counts | None:
    """The counts of a log file whose every row is known already; the hash is waited for only if it may be."""
    size = job.source.path.stat().st_size
    candidates = con.execute(
        "select fingerprint, read, rejected from files where starts_with(fingerprint, $size)",
        {"size": f"{size}-"},
    ).fetchall()
    if not candidates:
        return None
    fingerprint = checksum.result()
    for known, read, rejected in candidates:
        if known == fingerprint:
            return Counts(read=read, duplicate=read - rejected, rejected=rejected)
    return None


def _prepare(con: duckdb.DuckDBPyConnection, job: Job, table: Table) -> str:
    """Fill `stage` with the file and `located` with its refused rows; the name of the stage's row number.

    A text file that DuckDB cannot read, or whose records it counts otherwise than we do, is converted first.
    """
    if job.source.format == "parquet" or not job.source.byte_order_mark or job.source.format == "csv":
        try:
            relation, dialect = _relation(con, job, None)
            return _stage(con, job, table, relation, dialect, None)
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, RowsDisagree) as error:
            if job.source.format == "parquet":
                raise
            log.debug("%s is read line by line: %s", job.source.name, _first(error))
    dialect = _relation(con, job, None)[1]
    job.spool.mkdir(parents=True, exist_ok=True)
    copy = convert(job.source, dialect, job.spool / "converted.parquet")
    relation, dialect = _relation(con, job, copy)
    return _stage(con, job, table, relation, dialect, copy)


def _relation(con: duckdb.DuckDBPyConnection, job: Job, copy: Input | None) -> tuple[Relation, Dialect]:
    if job.feed is not None:
        return feed_relation(con, job.source, job.feed, copy)
    return read_relation(con, job.source, job.mapping, copy)


def _stage(
    con: duckdb.DuckDBPyConnection,
    job: Job,
    table: Table,
    relation: Relation,
    dialect: Dialect,
    copy: Input | None,
) -> str:
    con.execute(stage_sql(table, relation), relation.parameters)
    if any(column.type == "image" for column in table.columns):
        missing = resolve_images(con, job.images or job.source.folder)
        if missing:
            log.warning("%s: %d of its images do not exist.", job.source.name, missing)
    row = "_row" if relation.numbered else "rowid"
    refused = con.execute(load_sql("ingest_refused_rows").format(row=row)).fetchnumpy()["row"]
    rows: np.ndarray[Any, Any] = np.asarray(refused, dtype=np.int64)
    con.register("nothing_located", pa.Table.from_batches([], schema=LOCATED))
    con.execute("create or replace temp table located as select * from nothing_located")
    con.unregister("nothing_located")
    for batch in _find(con, job, relation, dialect, copy, rows):
        con.register("located_batch", pa.Table.from_batches([batch]))
        con.execute("insert into located select * from located_batch")
        con.unregister("located_batch")
    return row


def _find(
    con: duckdb.DuckDBPyConnection,
    job: Job,
    relation: Relation,
    dialect: Dialect,
    copy: Input | None,
    rows: np.ndarray[Any, Any],
) -> Iterator[pa.RecordBatch]:
    if not len(rows):
        return
    if copy is not None:
        yield from locate_in_parquet(con, copy, rows, copy=True)
    elif job.source.format == "parquet":
        yield from locate_in_parquet(con, job.source, rows, copy=False)
    else:
        # A record of a public format may have become several rows: they bear its number.
        count = "max(_row) + 1" if relation.numbered else "count(*)"
        total = con.execute(f"select {count} from stage").fetchall()[0][0]
        yield from locate(job.source, dialect, rows, total)


def _first_refusal(con: duckdb.DuckDBPyConnection, job: Job, row: str, rejected: int) -> DataError:
    line, reason = con.execute(load_sql("ingest_first_refusal").format(row=row)).fetchall()[0]
    return DataError(
        f"{job.source.name}:{line}: {reason} ({rejected:,} such rows in the file).",
        "Mend the file, or leave out --on-error abort: refused rows are then kept in rejects.",
    )


def _write(con: duckdb.DuckDBPyConnection, table: Table, target: str, existing: str) -> tuple[int, int]:
    """The good rows of the stage into `target`, given what `existing` holds: (inserted, of them updates)."""
    names = {
        "key": table.key,
        "columns": ", ".join(table.names),
        "target": target,
        "existing": existing,
    }
    if not table.updates:
        con.execute(load_sql("ingest_log_repeated").format(**names))
        inserted = con.execute(load_sql("ingest_log_insert").format(**names)).fetchall()[0][0]
        return int(inserted), 0
    con.execute(load_sql("ingest_catalog_changes").format(**names))
    con.execute(load_sql("ingest_catalog_delete").format(**names))
    con.execute(load_sql("ingest_catalog_insert").format(**names))
    changed, new = con.execute(
        "select count(*) filter (changed), count(*) filter (is_new) from changes"
    ).fetchall()[0]
    return int(changed), int(changed) - int(new)


def _file_row(job: Job, fingerprint: str, counts: Counts) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "path": job.source.name,
        "table": job.source.table,
        "read": counts.read,
        "inserted": counts.inserted,
        "duplicate": counts.duplicate,
        "rejected": counts.rejected,
    }


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
