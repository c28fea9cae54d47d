"""Files, folders and streams into the warehouse: what `adstool ingest` does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from adstool.config import Settings
from adstool.errors import UsageError
from adstool.ingestion.inputs import Input, find_inputs, scratch_folder
from adstool.ingestion.load import Counts, Job, load
from adstool.ingestion.readers import check_mapping
from adstool.ingestion.sources import source_jobs
from adstool.ingestion.sources.base import Feed
from adstool.progress import bar
from adstool.warehouse import load_sql, open_warehouse
from adstool.warehouse.database import migrate, open_memory
from adstool.warehouse.schema import TABLES
from adstool.workspace import Workspace


@dataclass(frozen=True)
class IngestOptions:
    """How files are taken; the defaults are those of the command line."""

    table: str | None = None  # every file goes there; else file names say
    source: str | None = None  # a public format, read from its folder
    format: str | None = None  # jsonl | csv | parquet; else names and contents say
    mapping: Mapping[str, str] = field(default_factory=dict)  # their column -> our column
    images: Path | None = None  # relative image paths start here
    on_error: str = "quarantine"  # quarantine | abort
    dry_run: bool = False


@dataclass(frozen=True)
class IngestResult:
    """What became of every row, by table, and how long it took."""

    tables: dict[str, Counts]
    seconds: float

    @property
    def rejected(self) -> int:
        """Rows refused in all tables."""
        return sum(counts.rejected for counts in self.tables.values())

    def to_json(self) -> dict[str, object]:
        """The JSON of `adstool ingest`."""
        tables = {
            name: {
                "read": counts.read,
                "inserted": counts.inserted,
                "duplicate": counts.duplicate,
                "rejected": counts.rejected,
                "updated": counts.updated,
            }
            for name, counts in self.tables.items()
        }
        return {"tables": tables, "seconds": round(self.seconds, 3)}


def ingest(
    con: duckdb.DuckDBPyConnection, ws: Workspace, paths: Sequence[str], options: IngestOptions
) -> IngestResult:
    """Load `paths`, each file in a transaction of its own.

    With `dry_run`, `con` is that of dry_run_warehouse and nothing is kept. Raises UsageError for
    options that do not go together, and DataError for a file that is missing, damaged or lacks a required
    column, or at the first refused row with on_error "abort"; files before it stay.
    """
    started = time.perf_counter()
    if options.on_error not in ("quarantine", "abort"):
        raise UsageError(f"--on-error {options.on_error} is unknown.", "Use quarantine or abort.")
    totals: dict[str, Counts] = {}
    with scratch_folder(ws) as scratch, bar("ingest", unit=" rows") as progress:
        for job in _jobs(paths, options, scratch):
            progress.set_postfix(file=Path(job.source.name).name)
            counts = load(con, job)
            totals[job.source.table] = totals.get(job.source.table, Counts()) + counts
            progress.update(counts.read)
    return IngestResult(totals, time.perf_counter() - started)


def _jobs(paths: Sequence[str], options: IngestOptions, scratch: Path) -> list[Job]:
    """Every file to load, all of them found and recognised before the first is loaded."""
    if not paths:
        raise UsageError(
            "There is no file to ingest: no PATH was given.", "Name files, a folder, or - for standard input."
        )

    def job(source: Input, feed: Feed | None = None) -> Job:
        return Job(
            source,
            scratch,
            dict(options.mapping),
            feed,
            options.images,
            abort=options.on_error == "abort",
            dry_run=options.dry_run,
        )

    if options.source is not None:
        if options.table or options.mapping or options.format:
            raise UsageError(
                "--source knows its tables and columns.", "Leave out --table, --format and --map."
            )
        found = [item for path in paths for item in source_jobs(options.source, Path(path))]
        return [job(source, feed) for source, feed in found]
    inputs = find_inputs(paths, options.table, options.format, scratch)
    check_mapping(options.mapping, {item.table for item in inputs})
    return [job(item) for item in inputs]


@contextmanager
def dry_run_warehouse(ws: Workspace, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for ingest with dry_run: rows go to temporary tables, the warehouse is only read.

    dry_<table> takes what a file would bring, known_<table> is the warehouse as it would then be.
    """
    if ws.warehouse.is_file():
        with open_warehouse(ws, settings, read_only=True) as con:
            _shadow(con)
            yield con
    else:
        with open_memory(ws, settings) as con:
            migrate(con, "memory")
            _shadow(con)
            yield con


def _shadow(con: duckdb.DuckDBPyConnection) -> None:
    for table in TABLES.values():
        con.execute(load_sql("ingest_dry_run").format(table=table.name, key=table.key))
