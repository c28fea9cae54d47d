"""The enrichments table: what was answered, so that nothing is asked twice, and the attributes in use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from adstool.content.enrichment.prompts import ItemText
from adstool.content.enrichment.schema import Attributes
from adstool.warehouse import lent, load_sql, transaction

Key = tuple[str, str]  # item type and item id


@dataclass(frozen=True)
class Known:
    """An answer kept: either the attributes, as stored, or why the answer was refused."""

    content_hash: str
    payload: str | None
    problem: str | None


@dataclass(frozen=True)
class Row:
    """An answer to keep for one item."""

    key: Key
    known: Known
    tokens_in: int = 0
    tokens_out: int = 0


_COLUMNS = pa.schema(
    [
        ("item_type", pa.string()),
        ("item_id", pa.string()),
        ("content_hash", pa.string()),
        ("source", pa.string()),
        ("prompt_version", pa.string()),
        ("payload", pa.string()),
        ("problem", pa.string()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("created_at", pa.timestamp("us")),
    ]
)


def read_items(con: duckdb.DuckDBPyConnection, kinds: Sequence[str]) -> dict[Key, ItemText]:
    """The items of these types that have a title or a description, by type and id."""
    rows = con.execute(load_sql("enrichment_items"), {"kinds": list(kinds)}).fetchall()
    return {(kind, item_id): ItemText(*rest) for kind, item_id, *rest in rows}


def content_hash(item: ItemText) -> str:
    """A hash of all that is sent of an item."""
    sent = json.dumps([item.title, item.description, item.category, item.price], ensure_ascii=False)
    return hashlib.blake2b(sent.encode(), digest_size=16).hexdigest()


class EnrichmentStore:
    """The answers of one source (a model) to one wording."""

    def __init__(self, source: str, version: str) -> None:
        self.source, self.version = source, version

    def known(self, con: duckdb.DuckDBPyConnection) -> dict[Key, Known]:
        """Every answer kept, by item."""
        given = {"source": self.source, "version": self.version}
        rows = con.execute(load_sql("enrichment_known"), given).fetchall()
        return {(kind, item_id): Known(*rest) for kind, item_id, *rest in rows}

    def write(self, con: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
        """Keep answers, in one transaction, in place of what this source said of the same items."""
        if not rows:
            return
        now = datetime.now(UTC).replace(tzinfo=None)
        listed = [
            {
                "item_type": row.key[0],
                "item_id": row.key[1],
                **vars(row.known),
                "source": self.source,
                "prompt_version": self.version,
                "tokens_in": row.tokens_in,
                "tokens_out": row.tokens_out,
                "created_at": now,
            }
            for row in rows
        ]
        table = pa.Table.from_pylist(listed, schema=_COLUMNS)
        with lent(con, enrichment_rows=table), transaction(con):
            con.execute(load_sql("enrichment_replace"))
            con.execute("insert into enrichments by name select * from enrichment_rows")


def load_attributes(con: duckdb.DuckDBPyConnection, item_type: str) -> dict[str, Attributes]:
    """The attributes in use, by item id: a language model's before CLIP's."""
    rows = con.execute(load_sql("enrichment_attributes"), {"kind": item_type}).fetchall()
    return {item_id: Attributes.from_json(payload) for _, item_id, _, payload in rows}
