"""Rows put aside in the workspace while another process holds the warehouse: the next writer takes them in.

A folder spool/<name>/ holds rows of the tables that adstool itself writes, TABLE.parquet each. It appears
whole, and its rows are taken in once: its name is noted in the same transaction, so that what a kill leaves
of it is only taken away.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from adstool.errors import refused_by_disk
from adstool.progress import log
from adstool.warehouse.tables import lent, transaction
from adstool.workspace import Workspace, write_table

OWN_TABLES = ("funnel", "auctions")  # that adstool fills by what it ranks
DAMAGED = ".damaged"


def put_aside(ws: Workspace, tables: Mapping[str, pa.Table]) -> None:
    """Keep rows of `OWN_TABLES`, by table, until the next writer; whole or not at all."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"  # in the order of their writing
    partial = ws.spool / f".{name}.{os.getpid()}.tmp"
    partial.mkdir(parents=True)
    try:
        for table, rows in tables.items():
            write_table(partial / f"{table}.parquet", rows)
        os.replace(partial, ws.spool / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def waiting(ws: Workspace) -> list[Path]:
    """The folders put aside, oldest first."""
    if not ws.spool.is_dir():
        return []
    return sorted(path for path in ws.spool.iterdir() if path.name[0] != "." and path.suffix != DAMAGED)


def waiting_rows(con: duckdb.DuckDBPyConnection, ws: Workspace, table: str) -> Iterator[pa.Table]:
    """The rows of `table` that are put aside and not in the warehouse yet; what is damaged is left out."""
    import pyarrow.parquet as pq

    for folder in waiting(ws):
        if not _taken(con, folder) and (path := folder / f"{table}.parquet").is_file():
            try:
                yield pq.read_table(path)
            except (pa.ArrowException, OSError) as error:
                log.warning("%s cannot be read: %s", path, error)


def take_in(con: duckdb.DuckDBPyConnection, ws: Workspace) -> None:
    """Bring the rows put aside into the warehouse, and take their folders away.

    A folder that cannot be read is renamed, so that it is asked for no more, and named in a warning.
    """
    for folder in waiting(ws):
        if not _taken(con, folder):
            try:
                _take(con, folder)
            except (pa.ArrowException, OSError, duckdb.Error) as error:
                if refused_by_disk(error):
                    raise
                kept = folder.with_name(folder.name + DAMAGED)
                os.replace(folder, kept)
                log.warning("Rows of the funnel log cannot be read and stay in %s: %s", kept, error)
                continue
        shutil.rmtree(folder)
        con.execute("delete from spool_taken where name = $name", {"name": folder.name})


def _take(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    import pyarrow.parquet as pq

    tables = {path.stem: pq.read_table(path) for path in folder.glob("*.parquet") if path.stem in OWN_TABLES}
    with transaction(con):
        for table, rows in tables.items():
            with lent(con, spooled=rows):
                con.execute(f"insert into {table} by name select * from spooled")
        con.execute("insert into spool_taken values ($name)", {"name": folder.name})


def _taken(con: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    found = con.execute("select count(*) from spool_taken where name = $name", {"name": folder.name})
    return bool(found.fetchall()[0][0])
