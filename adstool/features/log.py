"""The log in numbers: users, items, categories, advertisers and surfaces as integers, in temporary DuckDB
tables.

Training and serving both start here, so that an entity and an event mean the same to both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from adstool.features.engagements import Engagements
from adstool.features.items import ItemTable
from adstool.features.spec import ENGAGED, FeatureSpec
from adstool.features.users import UserTable
from adstool.warehouse import load_sql, put_table

FOREVER = 2**62  # microseconds: later than any event
_TABLES = (
    "feature_users",
    "feature_items",
    "feature_advertisers",
    "feature_surfaces",
    "feature_log",
    "feature_examples",
    "feature_history",
    "conversion_clicks",
    "conversion_counted",
    "conversion_labels",
)
_VIEWS = ("feature_signals", "feature_probes")


@dataclass(frozen=True)
class EntitySizes:
    """How many values each key has; entities of several keys are numbered by mixed radix, first key
    leading."""

    user: int
    item: int
    category: int
    advertiser: int
    surface: int

    def of(self, key: str) -> int:
        """The size of one key, at least 1."""
        return max(int(getattr(self, key)), 1)

    def sql(self, keys: tuple[str, ...]) -> str:
        """The entity's number as SQL over columns named <key>_no; null where a key is null."""
        text = f"{keys[0]}_no::bigint"
        for key in keys[1:]:
            text = f"({text} * {self.of(key)} + {key}_no)"
        return text

    def numbers(self, keys: tuple[str, ...], values: dict[str, np.ndarray]) -> np.ndarray:
        """The same number in numpy, int64; -1 where a key is -1."""
        entity = np.asarray(values[keys[0]], dtype=np.int64)
        missing = entity < 0
        for key in keys[1:]:
            value = np.asarray(values[key], dtype=np.int64)
            entity = entity * self.of(key) + value
            missing = missing | (value < 0)
        return np.where(missing, -1, entity)


@dataclass(frozen=True)
class CodedLog:
    """The temporary tables of one build, and what their numbers stand for."""

    con: duckdb.DuckDBPyConnection
    spec: FeatureSpec
    items: ItemTable
    users: UserTable
    surfaces: list[str]
    sizes: EntitySizes
    first_ts: int  # microseconds UTC of the first row of the log; 0 when it is empty
    last_ts: int

    def engagements(self) -> Engagements:
        """Every positive action on a catalogue item, by user and time."""
        positive = [int(n) for n in self.spec.signal_actions(ENGAGED)]
        columns = self.con.sql(
            load_sql("features_engagements"), params={"positive": positive}
        ).to_arrow_table()
        arrays = {name: columns.column(name).to_numpy() for name in ("ts", "user_no", "item_no", "action")}
        return Engagements.of(
            arrays["user_no"], arrays["ts"], arrays["item_no"], arrays["action"], len(self.users)
        )


@contextmanager
def coded_entities(
    con: duckdb.DuckDBPyConnection, users: UserTable, items: ItemTable, surfaces: list[str], corpus: str
) -> Iterator[None]:
    """Users, items, advertisers and surfaces with their numbers as temporary tables, which are dropped, with
    all that was made from them, at the end of the block."""
    try:
        put_table(con, "feature_users", users.table.select(["number", "user_id"]))
        put_table(con, "feature_surfaces", _numbers(surfaces, "number", "surface"))
        put_table(con, "feature_items", _item_numbers(items, corpus))
        put_table(
            con, "feature_advertisers", _numbers(items.advertisers[1], "advertiser_no", "advertiser_id")
        )
        yield
    finally:
        for view in _VIEWS:
            con.execute(f"drop view if exists temp.{view}")
        for table in _TABLES:
            con.execute(f"drop table if exists temp.{table}")


@contextmanager
def coded_log(
    con: duckdb.DuckDBPyConnection, spec: FeatureSpec, items: ItemTable, until: int = FOREVER
) -> Iterator[CodedLog]:
    """The log strictly before `until` (microseconds UTC) as temporary tables, dropped at the end of the
    block."""
    users = UserTable(con.sql(load_sql("features_users"), params={"until": until}).to_arrow_table())
    surfaces = list(con.sql(load_sql("features_surfaces")).to_arrow_table().column("surface").to_pylist())
    with coded_entities(con, users, items, surfaces, spec.corpus):
        parameters: dict[str, Any] = {"actions": list(spec.actions), "until": until}
        con.execute(f"create or replace temp table feature_log as {load_sql('features_log')}", parameters)
        bounds = con.execute("select coalesce(min(ts), 0), coalesce(max(ts), 0) from feature_log").fetchall()[
            0
        ]
        sizes = EntitySizes(
            user=len(users),
            item=len(items),
            category=len(items.categories[1]),
            advertiser=len(items.advertisers[1]),
            surface=len(surfaces),
        )
        yield CodedLog(con, spec, items, users, surfaces, sizes, int(bounds[0]), int(bounds[1]))


def _numbers(values: list[str], number: str, value: str) -> pa.Table:
    return pa.table(
        {number: pa.array(range(len(values)), type=pa.int32()), value: pa.array(values, type=pa.string())}
    )


def _item_numbers(items: ItemTable, corpus: str) -> pa.Table:
    category, advertiser = items.categories[0], items.advertisers[0]
    with np.errstate(invalid="ignore"):
        log_price = np.log1p(np.maximum(items.numbers("price"), 0.0))
    return pa.table(
        {
            "item_type": items.column("item_type"),
            "item_id": items.column("item_id"),
            "item_no": pa.array(np.arange(len(items), dtype=np.int32)),
            "ranked": pa.array(items.of_type(corpus)),
            "category_no": pa.array(category, mask=category < 0),
            "advertiser_no": pa.array(advertiser, mask=advertiser < 0),
            "log_price": pa.array(log_price, mask=np.isnan(log_price)),
        }
    )
