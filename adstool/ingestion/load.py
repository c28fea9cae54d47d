"""One file into its table, whole or not at all: append, refuse, deduplicate, record."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb

from adstool.errors import AdstoolError, DataError, refused_by_disk
from adstool.ingestion.checksum import Checksum
from adstool.ingestion.images import resolve_images
from adstool.ingestion.inputs import Dialect, Input, RowsDisagree, damaged, first_line
from adstool.ingestion.readers import other_keys, read_relation
from adstool.ingestion.sources.base import Feed, feed_relation
from adstool.ingestion.validation import Relation, fill_sql
from adstool.progress import log
from adstool.warehouse import load_sql, transaction
from adstool.warehouse.flat import FLAT_TABLES, ensure_flat, table_named
from adstool.warehouse.schema import Table

MARK = secrets.token_hex(16)  # of refused rows; no file can hold it


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
    scratch: Path
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
    """Load one file in one transaction.

    Raises DataError, with nothing of the file loaded, when it is damaged as a whole, lacks a required column,
    or, with `abort`, has a row that is refused.
    """
    checksum = Checksum(job.source, job.context)
    checksum.start()
    if not table_named(job.source.table).updates and not job.dry_run:
        known = _loaded_before(con, job, checksum)
        if known is not None:
            log.info("%s was loaded before: nothing to do.", job.source.name)
            return known
    copy: Input | None = None
    if job.source.format == "jsonl" and job.source.byte_order_mark:
        copy = _converted(con, job)
    whole = False
    while True:
        try:
            return _transaction(con, job, checksum, copy, whole)
        except OtherKeys as found:
            log.debug("%s: %s go to attributes.", job.source.name, found)
            whole = True
        except duckdb.OutOfMemoryException as error:
            raise _too_big(job, error) from None
        except (duckdb.Error, RowsDisagree) as error:
            if "allocate" in str(error) or "out of memory" in str(error).lower():
                raise _too_big(job, error) from None  # a commit without room has no class of its own
            if refused := refused_by_disk(error):
                raise refused from None
            if job.source.format == "parquet" and (readable := _readable(job, error)):
                job = replace(job, source=readable)
                continue
            checksum.fingerprint()  # a damaged stream explains the failure better than DuckDB does
            if job.source.format == "parquet" or copy is not None:
                raise damaged(job.source.name, error) from None
            log.debug("%s is read line by line: %s", job.source.name, first_line(error))
            copy = _converted(con, job)


class OtherKeys(Exception):
    """A jsonl file has keys beyond the table's columns, though its first lines have none."""


def _converted(con: duckdb.DuckDBPyConnection, job: Job) -> Input:
    from adstool.ingestion.lines import convert

    job.scratch.mkdir(parents=True, exist_ok=True)
    return convert(job.source, _relation(con, job, None, True)[1], job.scratch / "converted.parquet")


def _readable(job: Job, error: Exception) -> Input | None:
    """What to read instead of a parquet file whose timestamps DuckDB cannot hold; None: that is not it."""
    from adstool.ingestion.timestamps import times_as_text, unreadable

    target = job.scratch / "readable.parquet"
    if not unreadable(error) or job.source.path == target:
        return None
    log.debug("%s is read as Arrow reads it: %s", job.source.name, first_line(error))
    job.scratch.mkdir(parents=True, exist_ok=True)
    return times_as_text(job.source, target)


def _transaction(
    con: duckdb.DuckDBPyConnection, job: Job, checksum: Checksum, copy: Input | None, whole: bool
) -> Counts:
    with transaction(con):
        counts = _take(con, job, checksum, copy, whole)
        if not counts.read:
            log.warning("%s holds no rows.", job.source.name)
        fingerprint = checksum.fingerprint()
        if not job.dry_run:
            con.execute(load_sql("ingest_file"), _file_row(job, fingerprint, counts))
    return counts


def _take(
    con: duckdb.DuckDBPyConnection, job: Job, checksum: Checksum, copy: Input | None, whole: bool
) -> Counts:
    """Everything that happens to a file inside its transaction.

    The rows of a log go straight into its table, and those that do not belong there are taken out again:
    that is the cheaper order, because most rows of most files belong there. Catalogues go through a stage.
    """
    table = table_named(job.source.table)
    if table.name in FLAT_TABLES:  # made in the transaction: a refused file leaves no empty table
        ensure_flat(con, table.name, dry_run=job.dry_run)
    target = f"dry_{table.name}" if job.dry_run else table.name
    names = {
        "table": table.name,
        "key": table.key,
        "columns": ", ".join(table.names),
        "target": target,
        "destination": "stage" if table.updates else target,
        "existing": f"known_{table.name}" if job.dry_run else table.name,
    }
    relation, dialect = _relation(con, job, copy, whole)
    read, first = _fill(con, table, relation, names["destination"])
    con.execute(load_sql("ingest_refused").format(**names), {"first": first, "mark": MARK})
    if _scalar(con, "select count(*) from refused"):
        con.execute(load_sql("ingest_remove_refused").format(**names), {"first": first, "mark": MARK})
    if any(column.type == "image" for column in table.columns):
        missing = resolve_images(con, job.images or job.source.folder, first)
        if missing:
            log.warning("%s: %d of its images do not exist.", job.source.name, missing)
    rejected = _scalar(con, "select count(*) from refused")
    refused_keys = _locate(con, job, relation, dialect, copy, read) if rejected else 0
    if relation.keys:
        values = checksum.keys() - refused_keys
        _check_keys(con, job, table, relation, names["destination"], first, values)
    if rejected:
        if job.abort:
            raise _first_refusal(con, job, rejected)
        if not job.dry_run:
            con.execute(load_sql("ingest_rejects"), {"table": table.name, "file": job.source.name})
    if table.updates:
        inserted, updated = _change_catalogue(con, names)
    else:
        inserted, updated = read - rejected - _drop_repeats(con, job, names, first), 0
    return Counts(read, inserted, read - inserted - rejected, rejected, updated)


def _fill(
    con: duckdb.DuckDBPyConnection, table: Table, relation: Relation, destination: str
) -> tuple[int, int]:
    """Append the file to `destination`: how many rows, and the rowid of the first."""
    if table.updates:
        con.execute(f"create or replace temp table stage as from {table.name} limit 0")
    last = _scalar(con, f"select coalesce(max(rowid), -1) from {destination}")
    read = _scalar(con, fill_sql(table, relation, destination), {**relation.parameters, "mark": MARK})
    # Rows of the open transaction are numbered from elsewhere, but in the order of the file.
    first = f"select coalesce(min(rowid), 0) from {destination} where rowid > $last"
    return read, _scalar(con, first, {"last": last})


def _check_keys(
    con: duckdb.DuckDBPyConnection,
    job: Job,
    table: Table,
    relation: Relation,
    destination: str,
    first: int,
    bound: int,
) -> None:
    """Raise OtherKeys when good rows have keys besides those read; mostly, counting shows they have not.

    `bound` is how many keys with a value the good rows have at most.
    """
    values = " + ".join(f"count({name})" for name in table.names)
    found = _scalar(con, f"select {values} from {destination} where rowid >= $first", {"first": first})
    if bound != found and (others := other_keys(con, job.source, relation.keys)):
        raise OtherKeys(", ".join(others[:20]))


def _scalar(con: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any] | None = None) -> int:
    return int(con.execute(sql, parameters or {}).fetchall()[0][0])


def _drop_repeats(con: duckdb.DuckDBPyConnection, job: Job, names: dict[str, str], first: int) -> int:
    """Take out the appended rows whose key was there before, in the table or in the file: how many."""
    known = f"select {names['key']} as key from {names['target']} where rowid < $first"
    if job.dry_run:
        known += f" union all select {names['key']} as key from {names['table']}"
    con.execute(load_sql("ingest_log_doubled").format(**names), {"first": first})
    con.execute(load_sql("ingest_log_repeats").format(known=known, **names), {"first": first})
    repeated = _scalar(con, "select count(*) from repeats")
    if repeated:
        con.execute(load_sql("ingest_log_remove_repeats").format(**names), {"first": first})
    return repeated


def _change_catalogue(con: duckdb.DuckDBPyConnection, names: dict[str, str]) -> tuple[int, int]:
    """Bring what is new or different in the stage to the catalogue: (inserted, of them updates)."""
    con.execute(load_sql("ingest_catalog_changes").format(**names))
    con.execute(load_sql("ingest_catalog_delete").format(**names))
    con.execute(load_sql("ingest_catalog_insert").format(**names))
    changed, new = con.execute(load_sql("ingest_catalog_counts")).fetchall()[0]
    return int(changed), int(changed) - int(new)


def _loaded_before(con: duckdb.DuckDBPyConnection, job: Job, checksum: Checksum) -> Counts | None:
    """The counts of a log file whose every row is known already; the hash is waited for only if it may be."""
    size = job.source.path.stat().st_size
    candidates = con.execute(
        "select fingerprint, read, rejected from files where starts_with(fingerprint, $size)",
        {"size": f"{size}-"},
    ).fetchall()
    if not candidates:
        return None
    fingerprint = checksum.fingerprint()
    for known, read, rejected in candidates:
        if known == fingerprint:
            return Counts(read=read, duplicate=read - rejected, rejected=rejected)
    return None


def _relation(
    con: duckdb.DuckDBPyConnection, job: Job, copy: Input | None, whole: bool
) -> tuple[Relation, Dialect]:
    if job.feed is not None:
        return feed_relation(con, job.source, job.feed, copy)
    return read_relation(con, job.source, job.mapping, copy, whole)


def _locate(
    con: duckdb.DuckDBPyConnection,
    job: Job,
    relation: Relation,
    dialect: Dialect,
    copy: Input | None,
    read: int,
) -> int:
    """Fill `located` with line and text of every refused record; how many keys with a value they may have."""
    from adstool.ingestion.lines import locate_refused  # loads pyarrow, which a sound file does without

    # A record of a public format may have become several rows, so their number says nothing.
    total = None if relation.numbered else read
    return locate_refused(con, job.source, copy, dialect, total, count_keys=bool(relation.keys))


def _first_refusal(con: duckdb.DuckDBPyConnection, job: Job, rejected: int) -> DataError:
    line, reason = con.execute(load_sql("ingest_first_refusal")).fetchall()[0]
    return DataError(
        f"{job.source.name}:{line}: {reason} ({rejected:,} such rows in the file).",
        "Mend the file, or leave out --on-error abort: refused rows are then kept in rejects.",
    )


def _too_big(job: Job, error: Exception) -> AdstoolError:
    return AdstoolError(
        f"{job.source.name} needs more memory than warehouse.memory_limit allows: {first_line(error)}",
        "Raise warehouse.memory_limit in adstool.toml.",
    )


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
