"""Arrow tables lent to the warehouse, and blocks that happen whole or not at all."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from adstool.warehouse import lent, put_table, transaction


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def test_a_lent_table_is_gone_with_its_block_and_a_put_one_stays(con: duckdb.DuckDBPyConnection) -> None:
    numbers = pa.table({"n": [1, 2, 3]})
    with lent(con, numbers_lent=numbers, others=pa.table({"n": [2]})):
        found = con.execute("select sum(n) from numbers_lent semi join others using (n)").fetchall()
    assert found == [(2,)]
    with pytest.raises(duckdb.CatalogException):
        con.execute("select * from numbers_lent")
    put_table(con, "kept", numbers)
    put_table(con, "kept", numbers.slice(1))
    assert con.execute("select sum(n) from kept").fetchall() == [(5,)]


def _insert_and_fail(con: duckdb.DuckDBPyConnection) -> None:
    with transaction(con):
        con.execute("insert into t values (2)")
        raise KeyboardInterrupt


def test_what_raises_leaves_no_rows_and_the_connection_goes_on(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("create table t (n integer check (n < 3))")
    with transaction(con):
        con.execute("insert into t values (1)")
    with pytest.raises(KeyboardInterrupt):
        _insert_and_fail(con)
    with pytest.raises(duckdb.ConstraintException), transaction(con):
        con.execute("insert into t values (9)")
    with transaction(con):
        con.execute("insert into t values (0)")
    assert con.execute("select n from t order by n").fetchall() == [(0,), (1,)]
