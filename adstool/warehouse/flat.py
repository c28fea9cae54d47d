"""Flat tables: published sets of examples, one row each, that `train engagement --train NAME` takes by name.

They are no part of the marketplace (no users, no catalogue): a table is made when its first file comes. The
types decide what a column is by default: text is a category, a number is numeric. To add one: a Table here,
and a reader of its files in adstool/ingestion/sources/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from adstool.warehouse.queries import load_sql
from adstool.warehouse.schema import SQL_TYPES, TABLES, Column, Table
from adstool.workspace import whole_file

TEST_SHARE = 0.1  # of a table without a test table: its last rows


def _label(name: str) -> Column:
    return Column(name, "integer", True, "{value} in (0, 1)", "0 or 1")


CRITEO = Table(
    "criteo",
    (
        Column("Id", required=True),
        _label("Label"),
        *(Column(f"I{index}", "number") for index in range(1, 14)),
        *(Column(f"C{index}") for index in range(1, 27)),
    ),
    "Id",
    updates=False,
)
AVAZU_CATEGORIES = (
    "C1",
    "banner_pos",
    "site_id",
    "site_domain",
    "site_category",
    "app_id",
    "app_domain",
    "app_category",
    "device_id",
    "device_ip",
    "device_model",
    "device_type",
    "device_conn_type",
    *(f"C{index}" for index in range(14, 22)),
)
AVAZU = Table(
    "avazu",
    (
        Column("id", required=True),
        _label("click"),
        Column("hour", "time", required=True),
        Column("hour_of_day"),
        Column("weekday"),
        *(Column(name) for name in AVAZU_CATEGORIES),
    ),
    "id",
    updates=False,
)


@dataclass(frozen=True)
class FlatTable:
    """A flat table: its columns, and which of them is predicted."""

    table: Table
    label: str

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that models may read: all but the key, the label and the time."""
        columns = self.table.columns
        return tuple(
            c.name for c in columns if c.type != "time" and c.name not in (self.table.key, self.label)
        )

    @property
    def order(self) -> str:
        """What the rows are ordered by: their time when they have one, else as they were loaded."""
        times = [column.name for column in self.table.columns if column.type == "time"]
        return ", ".join([*times, "rowid"])


FLAT_TABLES = {"criteo": FlatTable(CRITEO, "Label"), "avazu": FlatTable(AVAZU, "click")}


def table_named(name: str) -> Table:
    """The shape of any table that files can be loaded into."""
    return TABLES[name] if name in TABLES else FLAT_TABLES[name].table


def ensure_flat(con: duckdb.DuckDBPyConnection, name: str, *, dry_run: bool = False) -> None:
    """Make the flat table `name` if it is not there; for a dry run a temporary one, with its shadows."""
    table = FLAT_TABLES[name].table
    columns = ", ".join(f"{column.name} {SQL_TYPES[column.type]}" for column in table.columns)
    if not _exists(con, name):
        kind = "temp table" if dry_run else "table"
        con.execute(f"create {kind} if not exists {name} ({columns}, attributes json)")
    if dry_run and not _exists(con, f"dry_{name}"):
        con.execute(load_sql("ingest_dry_run").format(table=name, key=table.key))


def _exists(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    found = con.execute("select count(*) from duckdb_tables() where table_name = $name", {"name": name})
    return bool(found.fetchall()[0][0])


def flat_rows(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows of every flat table that the warehouse holds; one without rows is not counted as held."""
    held = [name for name in FLAT_TABLES if _exists(con, name)]
    rows = {name: int(con.execute(f"select count(*) from {name}").fetchall()[0][0]) for name in held}
    return {name: count for name, count in rows.items() if count}


def export_flat(
    con: duckdb.DuckDBPyConnection, name: str, first: int, rows: int, folder: Path, label: str
) -> Path:
    """Rows first .. first + rows - 1 of a flat table, in its order, as a parquet file; made once.

    The file holds the features and `label`, and its name says of which data it is.
    """
    inputs = con.execute(load_sql("pipeline_inputs"), {"tables": [name]}).fetchall()[0][0]
    path = folder / f"{name}-{inputs[:16]}-{first}-{rows}.parquet"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*"):
        if not old.name.startswith(f"{name}-{inputs[:16]}-"):
            old.unlink()
    flat = FLAT_TABLES[name]
    columns = ", ".join([*flat.features, *([label] if label not in flat.features else [])])
    query = f"select {columns} from {name} order by {flat.order} limit {rows} offset {first}"
    with whole_file(path) as partial:
        con.execute(f"copy ({query}) to '{str(partial).replace(chr(39), chr(39) * 2)}' (format parquet)")
    return path
