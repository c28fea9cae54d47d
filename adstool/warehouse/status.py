"""What the warehouse holds: rows, orphans, and the rows that were refused."""

from __future__ import annotations

from typing import Any

import duckdb

from adstool.errors import UsageError, choose
from adstool.warehouse.flat import FLAT_TABLES, flat_rows
from adstool.warehouse.queries import load_sql
from adstool.warehouse.schema import TABLES
from adstool.warehouse.spool import OWN_TABLES


def table_rows(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows by table: the seven from outside, the logs of what was ranked and sold, the flat tables held."""
    rows = {
        name: int(con.execute(f"select count(*) from {name}").fetchall()[0][0])
        for name in (*TABLES, *OWN_TABLES)
    }
    return rows | flat_rows(con)


def orphans(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Events whose item no catalogue knows, and conversions of unknown advertisers: both are kept."""
    return {
        "events": int(con.execute(load_sql("status_orphan_events")).fetchall()[0][0]),
        "conversions": int(con.execute(load_sql("status_orphan_conversions")).fetchall()[0][0]),
    }


def attribute_sources(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """By source (a CLIP or a language model), how many items have their attributes from it."""
    rows = con.execute("select source, count(*) from item_attributes group by source order by source")
    return {source: int(count) for source, count in rows.fetchall()}


def reject_count(con: duckdb.DuckDBPyConnection, table: str | None = None) -> int:
    """Rows refused, in all or of one table."""
    if table is not None and table not in (*TABLES, *FLAT_TABLES):
        raise UsageError(f"There is no table '{table}'.", choose(table, [*TABLES, *FLAT_TABLES]))
    sql = "select count(*) from rejects where $table is null or table_name = $table"
    return int(con.execute(sql, {"table": table}).fetchall()[0][0])


def rejects(con: duckdb.DuckDBPyConnection, table: str | None, limit: int) -> list[dict[str, Any]]:
    """Refused rows, newest load first, then by file and line: table, file, line, reason, row, rejected_at."""
    rows = con.execute(load_sql("status_rejects"), {"table": table, "limit": limit}).fetchall()
    names = ("table", "file", "line", "reason", "row")
    return [{**dict(zip(names, row[:5], strict=True)), "rejected_at": row[5].isoformat()} for row in rows]
