"""Arrow tables inside the warehouse, and blocks that happen whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa


@contextmanager
def lent(con: duckdb.DuckDBPyConnection, **tables: pa.Table) -> Iterator[None]:
    """Arrow tables under these names, without a copy, as long as the block lasts; queries may read them."""
    for name, table in tables.items():
        con.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            con.unregister(name)


def put_table(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """A temporary table from an Arrow table, so that even a read-only warehouse can be joined with it."""
    with lent(con, put_source=table):
        con.execute(f"create or replace temp table {name} as select * from put_source")


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Everything that the block does to the warehouse, or, when it raises, nothing."""
    con.execute("begin")
    try:
        yield
        con.execute("commit")
    except BaseException:
        with suppress(duckdb.Error):  # a commit that failed has ended the transaction
            con.execute("rollback")
        raise
