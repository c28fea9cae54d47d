"""The funnel log: every candidate of every stage, and every slot sold, kept in memory and written in bulk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adstool.features.items import ItemTable
from adstool.warehouse import load_sql

if TYPE_CHECKING:
    import duckdb

STAGES = ("retrieval", "lightweight", "heavy", "auction")


@dataclass(frozen=True)
class StageRows:
    """The candidates of one stage of one request, best first."""

    stage: str
    rows: np.ndarray  # int64 [m], of the item table
    source: np.ndarray  # int8 [m], index into the names of the sources
    score: np.ndarray  # float [m]
    kept: np.ndarray  # bool [m]: went on to the next stage, or into the slate


@dataclass(frozen=True)
class Sold:
    """The slots of one auction, first slot first: rows of the item table, bids, scores and prices a click."""

    rows: np.ndarray
    bids: np.ndarray
    scores: np.ndarray
    prices: np.ndarray


@dataclass(frozen=True)
class _Entry:
    request_id: str
    ts: int
    user_id: str
    surface: str | None
    items: ItemTable
    names: tuple[str, ...]
    stages: tuple[StageRows, ...]
    sold: Sold | None


class FunnelLog:
    """Rows waiting to be written to the tables `funnel` and `auctions`."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self.pending = 0  # rows of `funnel` not written yet

    def add(
        self,
        request_id: str,
        ts: int,
        user_id: str,
        surface: str | None,
        items: ItemTable,
        names: tuple[str, ...],
        stages: tuple[StageRows, ...],
        sold: Sold | None,
    ) -> None:
        """Remember one request. ts: microseconds UTC; names: of the sources, by their numbers."""
        self._entries.append(_Entry(request_id, ts, user_id, surface, items, names, stages, sold))
        self.pending += sum(len(stage.rows) for stage in stages)

    def write(self, con: duckdb.DuckDBPyConnection) -> int:
        """Write all that waits, in one transaction, and forget it; returns how many candidates that were."""
        if not self._entries:
            return 0
        funnel, auctions = self._funnel(), self._auctions()
        con.execute("begin")
        try:
            for name, rows in (("funnel", funnel), ("auctions", auctions)):
                con.register(f"{name}_rows", rows)
                con.execute(load_sql(f"funnel_write_{name}"))
                con.unregister(f"{name}_rows")
            con.execute("commit")
        except BaseException:
            con.execute("rollback")
            raise
        self._entries.clear()
        self.pending = 0
        return int(funnel.num_rows)

    def _funnel(self) -> pa.Table:
        parts = []
        for entry in self._entries:
            for stage in entry.stages:
                count = len(stage.rows)
                source = pa.DictionaryArray.from_arrays(pa.array(stage.source), pa.array(entry.names))
                columns = _common(entry, count) | {
                    "surface": pa.array([entry.surface], pa.string()).take(_zeros(count)),
                    "item_id": entry.items.column("item_id").take(pa.array(stage.rows)),
                    "stage": _same(stage.stage, count),
                    "source": source.cast(pa.string()),
                    "score": pa.array(np.asarray(stage.score, dtype=np.float64)),
                    "rank": pa.array(np.arange(1, count + 1, dtype=np.int32)),
                    "kept": pa.array(np.asarray(stage.kept, dtype=bool)),
                }
                parts.append(pa.table(columns))
        return pa.concat_tables(parts)

    def _auctions(self) -> pa.Table:
        schema = [("request_id", pa.string()), ("ts", pa.timestamp("us")), ("user_id", pa.string())]
        schema += [("item_id", pa.string()), ("slot", pa.int32())]
        schema += [(name, pa.float64()) for name in ("bid", "score", "price")]
        parts = [pa.schema(schema).empty_table()]
        for entry in self._entries:
            if entry.sold is None:
                continue
            count = len(entry.sold.rows)
            columns = _common(entry, count) | {
                "item_id": entry.items.column("item_id").take(pa.array(entry.sold.rows)),
                "slot": pa.array(np.arange(1, count + 1, dtype=np.int32)),
                "bid": pa.array(np.asarray(entry.sold.bids, dtype=np.float64)),
                "score": pa.array(np.asarray(entry.sold.scores, dtype=np.float64)),
                "price": pa.array(np.asarray(entry.sold.prices, dtype=np.float64)),
            }
            parts.append(pa.table(columns))
        return pa.concat_tables(parts)


def _zeros(count: int) -> pa.Array:
    return pa.array(np.zeros(count, dtype=np.int32))


def _same(text: str, count: int) -> pa.Array:
    return pa.array([text], pa.string()).take(_zeros(count))


def _common(entry: _Entry, count: int) -> dict[str, pa.Array]:
    moment = datetime.fromtimestamp(entry.ts / 1e6, UTC).replace(tzinfo=None)
    return {
        "request_id": _same(entry.request_id, count),
        "ts": pa.array([moment], pa.timestamp("us")).take(_zeros(count)),
        "user_id": _same(entry.user_id, count),
    }
