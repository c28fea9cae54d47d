"""Warehouses of every older schema, with data inside, also when killed in the middle of a migration."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from adstool.config import Settings
from adstool.warehouse import load_sql, open_warehouse
from adstool.warehouse.database import schema_version
from adstool.warehouse.queries import migrations
from adstool.workspace import Workspace

NEWEST = migrations()[-1][0]
OLDER = [number for number, _ in migrations()[:-1]]


def older(root: Path, version: int) -> Workspace:
    """A workspace as adstool made it at that schema, a row in every table."""
    ws = Workspace(root)
    with duckdb.connect(str(ws.warehouse)) as con:
        con.execute("create table schema_version (version integer, applied_at timestamp)")
        for number, name in migrations():
            if number <= version:
                con.execute(load_sql(name))
                con.execute(
                    "insert into schema_version values ($number, now()::timestamp)", {"number": number}
                )
        for (table,) in con.execute("select table_name from duckdb_tables()").fetchall():
            if table != "schema_version":
                con.execute(f"insert into {table} by name select 1 as {_first(con, table)}")
    return ws


def _first(con: duckdb.DuckDBPyConnection, table: str) -> str:
    name: str = con.execute(f"describe {table}").fetchall()[0][0]
    return name


def intact(ws: Workspace) -> None:
    """Every table of before has its row, and the schema is the newest."""
    with duckdb.connect(str(ws.warehouse), read_only=True) as con:
        before = [name for (name,) in con.execute("select table_name from duckdb_tables()").fetchall()]
        rows = {t: con.execute(f"select {_first(con, t)}::varchar from {t}").fetchall() for t in before}
    with open_warehouse(ws, Settings()) as con:
        assert schema_version(con) == NEWEST
        for table in set(rows) - {"schema_version"}:
            assert con.execute(f"select {_first(con, table)}::varchar from {table}").fetchall() == rows[table]
        con.execute("select * from catalog")


@pytest.mark.parametrize("version", OLDER)
def test_an_older_warehouse_keeps_its_rows(version: int, tmp_path: Path) -> None:
    ws = older(tmp_path, version)
    intact(ws)


HELD = """
import sys
from pathlib import Path
from adstool.config import Settings
from adstool.warehouse import database
from adstool.workspace import Workspace
load, last = database.load_sql, sys.argv[2]
def slow(name):
    if name != last:
        return load(name)
    print("in the middle", flush=True)
    return load(name) + "; select count(*) from range(1000000000) a, range(1000000) b;"
database.load_sql = slow
with database.open_warehouse(Workspace(Path(sys.argv[1])), Settings()):
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX notion")
@pytest.mark.parametrize("version", [OLDER[0], OLDER[-1]])
def test_killed_in_the_middle_of_a_migration_it_migrates_at_the_next_start(
    version: int, tmp_path: Path
) -> None:
    ws = older(tmp_path, version)
    words = [sys.executable, "-c", HELD, str(tmp_path), migrations()[-1][1]]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in the middle\n"
        process.send_signal(signal.SIGKILL)
    with duckdb.connect(str(ws.warehouse), read_only=True) as con:
        assert schema_version(con) == NEWEST - 1
    intact(ws)
