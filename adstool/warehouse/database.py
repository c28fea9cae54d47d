"""Opening the warehouse: one DuckDB file, migrated to the newest schema, with limits on what it may use."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from adstool.config import Settings
from adstool.device import limit_heaps
from adstool.errors import AdstoolError, DataError, WorkspaceLocked, refused_by_disk
from adstool.warehouse.memory import duckdb_limits
from adstool.warehouse.queries import load_sql, migrations
from adstool.warehouse.spool import take_in, waiting
from adstool.warehouse.tables import transaction
from adstool.workspace import Workspace, whole_file


@contextmanager
def open_warehouse(
    ws: Workspace, settings: Settings, *, read_only: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the warehouse of `ws`; closed at the end of the block.

    A writable one makes the file, which appears whole, migrates it, and takes in the rows put aside and the
    log of a writer that was killed. A read-only one does that too, where nobody else is there; it raises
    AdstoolError when nothing was ingested yet. Another process that holds the file is waited for, then
    WorkspaceLocked is raised. A warehouse made by a newer adstool, or a file that DuckDB cannot read, raises
    an error and is left alone.
    """
    if read_only and not ws.warehouse.is_file():
        raise AdstoolError(
            f"{ws.root} holds no data yet.", "Load some: adstool ingest FILES, or adstool sample DIR first."
        )
    if not ws.warehouse.is_file():
        _create(ws.warehouse, settings)
    if read_only and (waiting(ws) or _write_ahead_log(ws).is_file()):
        with (
            suppress(AdstoolError, duckdb.Error, OSError),  # the rows wait on; DuckDB reads them in its log
            open_warehouse(ws, settings.waiting_for_nobody()),
        ):
            pass
    con = _connect(ws.warehouse, settings, read_only)
    if read_only and _version(con, ws.warehouse) < migrations()[-1][0]:
        con.close()
        with open_warehouse(ws, settings):
            pass  # opening it for writing brings an older schema up to date
        con = _connect(ws.warehouse, settings, read_only)
    try:
        if not read_only:
            migrate(con, ws.warehouse)
            take_in(con, ws)
        yield con
    finally:
        con.close()


@contextmanager
def open_unchanged(ws: Workspace, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the warehouse as it is: an older schema is not brought up to date.

    Raises as open_warehouse does.
    """
    con = _connect(ws.warehouse, settings, read_only=True)
    try:
        _version(con, ws.warehouse)
        yield con
    finally:
        con.close()


def _write_ahead_log(ws: Workspace) -> Path:
    """Where DuckDB has what is committed and not yet in the file; a killed writer leaves it behind."""
    return ws.warehouse.with_name(ws.warehouse.name + ".wal")


def _create(path: Path, settings: Settings) -> None:
    """A new warehouse; DuckDB could not open one that a kill or a full disk left half written."""
    with whole_file(path) as temporary:
        con = _connect(temporary, settings, read_only=False)
        try:
            migrate(con, path)
        finally:
            con.close()


def schema_version(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the last migration applied; 0 for an empty file."""
    known = con.execute(
        "select count(*) from duckdb_tables() where table_name = 'schema_version' and not temporary"
    ).fetchall()
    # Read to the end: a result cut off by fetchone keeps the connection busy for `con.sql`.
    if not known[0][0]:
        return 0
    row = con.execute("select coalesce(max(version), 0) from schema_version").fetchall()
    return int(row[0][0])


@contextmanager
def open_memory(ws: Workspace, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory with the same limits; what does not fit goes to the workspace's cache."""
    con = duckdb.connect(":memory:", config=_limits(settings))
    try:
        con.execute("set temp_directory = $folder", {"folder": str(ws.cache / "duckdb")})
        _set_up(con)
        yield con
    finally:
        con.close()


def _limits(settings: Settings) -> dict[str, str | bool | int | float | list[str]]:
    limit_heaps()  # DuckDB makes the first threads of most verbs
    return {**duckdb_limits(settings)}


def _set_up(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("set timezone = 'UTC'")
    con.execute("set enable_progress_bar = false")


def _connect(path: Path, settings: Settings, read_only: bool) -> duckdb.DuckDBPyConnection:
    limits = settings.warehouse
    deadline = time.monotonic() + limits.lock_wait_seconds
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only, config=_limits(settings))
            break
        except duckdb.Error as error:
            text = str(error)
            if "lock" in text.lower() and isinstance(error, duckdb.IOException):
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                holder = re.search(r"PID (\d+)", text)
                by = f"process {holder[1]}" if holder else "another process"
                raise WorkspaceLocked(
                    f"{path} is in use by {by}; waited {limits.lock_wait_seconds:g} s.",
                    "Wait for it to end, or stop it; then run the command again.",
                ) from None
            raise _explain(error, path, settings) from None
    _set_up(con)
    return con


def _explain(error: duckdb.Error, path: Path, settings: Settings) -> AdstoolError:
    if explained := refused_by_disk(error):
        return explained
    text = str(error).splitlines()[0]
    if "memory" in text.lower() and isinstance(error, duckdb.ParserException):
        return AdstoolError(
            f"warehouse.memory_limit = {settings.warehouse.memory_limit!r} is not a size: {text}",
            "Write it like 1GB or 800MB, or auto.",
        )
    return DataError(
        f"{path} cannot be opened: {text}",
        "If the file is damaged, move it away and ingest the files again.",
    )


def _version(con: duckdb.DuckDBPyConnection, path: Path | str) -> int:
    """The schema's version, checked: an unknown newer one closes the connection and raises AdstoolError."""
    version = schema_version(con)
    newest = migrations()[-1][0]
    if version > newest:
        con.close()
        raise AdstoolError(
            f"{path} was made by a newer adstool (schema {version}; this one knows {newest}).",
            "Install the newer adstool.",
        )
    return version


def migrate(con: duckdb.DuckDBPyConnection, path: Path | str) -> None:
    """Apply the migrations that the database at `path` (named in errors) lacks, each in a transaction."""
    version = _version(con, path)
    for number, name in migrations():
        if number <= version:
            continue
        with transaction(con):
            con.execute("create table if not exists schema_version (version integer, applied_at timestamp)")
            con.execute(load_sql(name))
            con.execute("insert into schema_version values ($version, now()::timestamp)", {"version": number})
