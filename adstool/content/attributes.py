"""What the rows of a vector table can be filtered by, beside their vectors: metadata of the catalogue.

Kept up to date by `embed` even where no vector changes. Conditions are built from values, never from text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import Expr, col, lit

from adstool.warehouse import load_sql

if TYPE_CHECKING:
    import duckdb

_TIME = pa.timestamp("us")
ATTRIBUTES: tuple[pa.Field, ...] = (
    pa.field("model", pa.string()),
    pa.field("category", pa.string()),
    pa.field("advertiser_id", pa.string()),
    pa.field("price", pa.float64()),
    pa.field("created_at", _TIME),
    pa.field("starts_at", _TIME),
    pa.field("ends_at", _TIME),
    pa.field("active_from", _TIME),  # the later of created_at and starts_at; year 1 when both are unknown
    pa.field("active_until", _TIME),  # ends_at; year 9999 when it is open
    pa.field("metadata_hash", pa.string()),
)
SCHEMA = pa.schema([pa.field("item_id", pa.string()), *ATTRIBUTES])
# Only what picks a small part. Measured at 200,000 x 64 (2 cores, median of 12): one of 500 advertisers takes
# 41 ms by scanning and 8 ms by the bitmap; one of 30 categories 40 ms by scanning and 60 ms by the bitmap,
# which then reads 6,700 vectors one by one.
INDEXED = ("advertiser_id",)


@dataclass(frozen=True)
class Filter:
    """Which items a search may find; what is not said is not asked for."""

    categories: tuple[str, ...] = ()  # one of these
    advertisers: tuple[str, ...] = ()  # one of these
    active_at: datetime | None = (
        None  # created by then, started and not yet ended; UTC where no zone is given
    )

    def expression(self) -> Expr | None:
        """The condition on the table's columns, None when everything may be found."""
        asked: list[Expr] = []
        if self.categories:
            asked.append(col("category").isin(list(self.categories)))
        if self.advertisers:
            asked.append(col("advertiser_id").isin(list(self.advertisers)))
        if self.active_at is not None:
            moment = self.active_at
            moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
            asked += [col("active_from") <= lit(moment), col("active_until") >= lit(moment)]
        return reduce(lambda left, right: left & right, asked) if asked else None


def read_attributes(con: duckdb.DuckDBPyConnection, item_type: str, slug: str) -> pa.Table:
    """The attributes of every catalogue item of a type under a model, by item_id, in SCHEMA."""
    relation = con.sql(load_sql("content_attributes"), params={"kind": item_type, "model": slug})
    return relation.to_arrow_table().cast(SCHEMA)


def attributes_of(item_ids: pa.Array, attributes: pa.Table | None) -> list[Any]:
    """Columns in the order of ATTRIBUTES for these items; null where nothing is known of one."""
    if attributes is None:
        return [pa.nulls(len(item_ids), field.type) for field in ATTRIBUTES]
    places = pc.index_in(item_ids, value_set=attributes["item_id"].combine_chunks())
    return [attributes[field.name].combine_chunks().take(places) for field in ATTRIBUTES]
