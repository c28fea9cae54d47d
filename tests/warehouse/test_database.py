"""Opening, migrating, locking and refusing the warehouse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from support import held_by_another

from adstool.config import Settings, load_settings
from adstool.errors import AdstoolError, DataError, WorkspaceLocked
from adstool.warehouse import load_sql, open_warehouse
from adstool.warehouse.database import schema_version
from adstool.warehouse.queries import migrations
from adstool.warehouse.schema import SQL_TYPES, TABLES
from adstool.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def settings(**flags: object) -> Settings:
    return load_settings(None, {f"warehouse.{key}": value for key, value in flags.items()}, {})


def test_the_tables_are_those_of_the_schema(ws: Workspace) -> None:
    with open_warehouse(ws, settings()) as con:
        for table in TABLES.values():
            described = con.execute(f"describe {table.name}").fetchall()
            wanted = [(column.name, SQL_TYPES[column.type].upper()) for column in table.columns]
            assert [(row[0], row[1]) for row in described] == [*wanted, ("attributes", "JSON")]
            assert table.key in table.required
        own = {row[0] for row in con.execute("show tables").fetchall()} - set(TABLES)
    derived = {"interest_sums", "interest_users", "interests", "interest_priors", "interest_profiles"}
    derived |= {"interest_build", "query_intents", "enrichments", "relevance", "item_attributes"}
    derived |= {"request_queries"}
    known = {"rejects", "files", "runs", "funnel", "auctions", "spool_taken", "schema_version", "catalog"}
    assert own == known | derived


def test_opening_again_changes_nothing(ws: Workspace) -> None:
    for _ in range(3):
        with open_warehouse(ws, settings()) as con:
            assert schema_version(con) == migrations()[-1][0]
            assert con.execute("select count(*) from schema_version").fetchall() == [(len(migrations()),)]


def test_reading_needs_a_warehouse_and_cannot_write(ws: Workspace) -> None:
    with (
        pytest.raises(AdstoolError, match="holds no data yet") as empty,
        open_warehouse(ws, settings(), read_only=True),
    ):
        pass
    assert "adstool ingest" in empty.value.hint
    with open_warehouse(ws, settings()):
        pass
    with open_warehouse(ws, settings(), read_only=True) as con, pytest.raises(duckdb.InvalidInputException):
        con.execute("insert into users (user_id) values ('u')")


def test_a_newer_schema_is_refused_and_left_alone(ws: Workspace) -> None:
    with open_warehouse(ws, settings()) as con:
        con.execute("insert into schema_version values (99, now()::timestamp)")
    for read_only in (True, False):
        with (
            pytest.raises(AdstoolError, match=r"made by a newer adstool \(schema 99"),
            open_warehouse(ws, settings(), read_only=read_only),
        ):
            pass


def test_an_older_schema_is_brought_up_to_date_by_a_reader(ws: Workspace) -> None:
    duckdb.connect(str(ws.warehouse)).close()
    with open_warehouse(ws, settings(), read_only=True) as con:
        assert con.execute("select count(*) from catalog").fetchall() == [(0,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(ws: Workspace) -> None:
    with duckdb.connect(str(ws.warehouse)) as con:
        con.execute("create table auctions (a integer)")  # in the way of the first migration
    with pytest.raises(duckdb.CatalogException), open_warehouse(ws, settings()):
        pass
    with duckdb.connect(str(ws.warehouse)) as con:
        assert con.execute("show tables").fetchall() == [("auctions",)]


def test_a_damaged_file_says_so(ws: Workspace) -> None:
    ws.warehouse.write_bytes(b"this is no database" * 1000)
    with (
        pytest.raises(DataError, match=r"warehouse\.duckdb cannot be opened"),
        open_warehouse(ws, settings()),
    ):
        pass


def test_a_memory_limit_that_is_no_size_is_named(ws: Workspace) -> None:
    with pytest.raises(AdstoolError, match="memory_limit"), open_warehouse(ws, settings(memory_limit="lots")):
        pass


def test_another_process_is_waited_for_then_named(ws: Workspace) -> None:
    with open_warehouse(ws, settings()):
        pass
    with (
        held_by_another(ws.warehouse, "duckdb.connect(path)") as holder,
        pytest.raises(WorkspaceLocked, match=f"in use by process {holder}"),
        open_warehouse(ws, settings(lock_wait_seconds=0.3)),
    ):
        pass
    with open_warehouse(ws, settings(lock_wait_seconds=0.3)) as con:
        assert con.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_what_a_killed_writer_left_in_its_log_is_brought_in_by_a_reader(ws: Workspace) -> None:
    with open_warehouse(ws, settings()):
        pass
    script = (
        "import duckdb, os, sys; con = duckdb.connect(sys.argv[1]);"
        "con.execute('create table kept as select 7 seven'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(ws.warehouse)], check=True)
    log = ws.root / "warehouse.duckdb.wal"
    assert log.is_file()
    seen = "select seven from kept"
    with held_by_another(ws.warehouse, "duckdb.connect(path, read_only=True)"):
        with open_warehouse(ws, settings(), read_only=True) as con:
            assert con.execute(seen).fetchall() == [(7,)]  # another reads: it is read where it is
        assert log.is_file()
    with open_warehouse(ws, settings(), read_only=True) as con:
        assert not log.exists()
        assert con.execute(seen).fetchall() == [(7,)]


def test_a_query_that_is_not_installed_is_named() -> None:
    with pytest.raises(AdstoolError, match="no_such_query"):
        load_sql("no_such_query")
