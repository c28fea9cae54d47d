"""The funnel log: every candidate of every stage, and every slot sold, kept in memory and written in bulk."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adstool.config import Settings
from adstool.errors import WorkspaceLocked
from adstool.features.items import ItemTable
from adstool.funnel.budgets import Spending
from adstool.warehouse import lent, load_sql, open_warehouse, put_aside, transaction
from adstool.workspace import Workspace

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
    """The slots of one auction, first slot first: rows of the item table, bids, scores and prices a click,
    and what each is expected to cost."""

    rows: np.ndarray
    bids: np.ndarray
    scores: np.ndarray
    prices: np.ndarray
    costs: np.ndarray


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


def _count(entry: _Entry) -> int:
    return sum(len(stage.rows) for stage in entry.stages)


class FunnelLog:
    """Rows waiting to be written to the tables `funnel` and `auctions`."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self.pending = 0  # rows of `funnel` not written yet
        self.spending = Spending()  # of all that was added, written or not

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
        self.pending += _count(self._entries[-1])
        self._charge(self._entries[-1], 1.0)

    def _charge(self, entry: _Entry, sign: float) -> None:
        if entry.sold is None or not self.spending.knows(entry.ts):
            return
        campaigns = entry.items.column("campaign_id").take(pa.array(entry.sold.rows)).to_pylist()
        for campaign, cost in zip(campaigns, entry.sold.costs.tolist(), strict=True):
            if campaign is not None:
                self.spending.add(entry.ts, campaign, sign * cost)

    def take(self) -> FunnelLog:
        """All that waits, as a log of its own that another thread may write; this one is then empty."""
        taken = FunnelLog()
        taken._entries, taken.pending = self._entries, self.pending
        self._entries, self.pending = [], 0
        return taken

    def extend(self, later: FunnelLog) -> None:
        """What waits in `later`, too, after what waits here."""
        self._entries += later._entries
        self.pending += later.pending

    def forget_newest(self) -> None:
        """Forget the last request: its slate was never shown."""
        entry = self._entries.pop()
        self.pending -= _count(entry)
        self._charge(entry, -1.0)

    def forget_oldest(self, most: int) -> int:
        """Forget the oldest requests until at most `most` rows wait; returns how many rows went."""
        gone = 0
        for place, entry in enumerate(self._entries):
            if self.pending - gone <= most:
                del self._entries[:place]
                break
            gone += _count(entry)
        else:
            self._entries.clear()
        self.pending -= gone
        return gone

    def write(self, con: duckdb.DuckDBPyConnection) -> int:
        """Write all that waits, in one transaction, and forget it; returns how many candidates that were."""
        if not self._entries:
            return 0
        with transaction(con), lent(con, funnel_rows=self._funnel(), auctions_rows=self._auctions()):
            con.execute(load_sql("funnel_write_funnel"))
            con.execute(load_sql("funnel_write_auctions"))
        return self._forget()

    def keep(self, ws: Workspace, settings: Settings) -> int:
        """Write all that waits to the warehouse, or put it aside for the next writer while another process
        has the workspace or the warehouse; returns how many candidates that were.

        Waits for nobody. The caller does not hold the workspace's lock.
        """
        if not self._entries:
            return 0
        # One thread of DuckDB: the others' core is the one that ranks.
        at_once = settings.waiting_for_nobody(threads=1)
        try:
            with ws.lock(0.0), open_warehouse(ws, at_once) as con:
                return self.write(con)
        except WorkspaceLocked:
            put_aside(ws, {"funnel": self._funnel(), "auctions": self._auctions()})
            return self._forget()

    def _forget(self) -> int:
        written, self.pending = self.pending, 0
        self._entries.clear()
        return written

    def _funnel(self) -> pa.Table:
        """The rows of `funnel`: names as numbers into the few there are, every column made at once."""
        stages = [(entry, stage) for entry in self._entries for stage in entry.stages]
        counts = [len(stage.rows) for _, stage in stages]
        names = sorted({name for entry in self._entries for name in entry.names})
        places = {entry.names: np.array([names.index(n) for n in entry.names]) for entry in self._entries}
        rows = [(entry.items, stage.rows) for entry, stage in stages]
        source = np.concatenate([places[entry.names][stage.source] for entry, stage in stages])
        columns = _common([entry for entry, _ in stages], counts) | {
            "surface": _repeated([entry.surface for entry, _ in stages], counts),
            "item_id": _ids(rows),
            "stage": _repeated([stage.stage for _, stage in stages], counts),
            "source": pa.DictionaryArray.from_arrays(pa.array(source, pa.int32()), pa.array(names)),
            "score": pa.array(np.concatenate([stage.score for _, stage in stages]).astype(np.float64)),
            "rank": pa.array(np.concatenate([np.arange(1, count + 1, dtype=np.int32) for count in counts])),
            "kept": pa.array(np.concatenate([stage.kept for _, stage in stages])),
        }
        return pa.table(columns)

    def _auctions(self) -> pa.Table:
        """The rows of `auctions`."""
        sold = [(entry, entry.sold) for entry in self._entries if entry.sold is not None]
        counts = [len(one.rows) for _, one in sold]
        columns = _common([entry for entry, _ in sold], counts) | {
            "item_id": _ids([(entry.items, one.rows) for entry, one in sold]),
            "slot": pa.array(_joined([np.arange(1, count + 1) for count in counts]), pa.int32()),
            "bid": pa.array(_joined([one.bids for _, one in sold]), pa.float64()),
            "score": pa.array(_joined([one.scores for _, one in sold]), pa.float64()),
            "price": pa.array(_joined([one.prices for _, one in sold]), pa.float64()),
            "cost": pa.array(_joined([one.costs for _, one in sold]), pa.float64()),
        }
        return pa.table(columns)


def _common(entries: list[_Entry], counts: list[int]) -> dict[str, pa.Array]:
    moments = np.repeat(np.array([entry.ts for entry in entries], dtype=np.int64), counts)
    return {
        "request_id": _repeated([entry.request_id for entry in entries], counts),
        "ts": pa.array(moments, pa.timestamp("us")),
        "user_id": _repeated([entry.user_id for entry in entries], counts),
    }


def _repeated(texts: list[str | None], counts: list[int]) -> pa.DictionaryArray:
    """Each text as often as its count says."""
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    numbers = pa.array(np.repeat(np.arange(len(texts)), counts))
    return pa.DictionaryArray.from_arrays(encoded.indices.take(numbers), encoded.dictionary)


def _ids(parts: list[tuple[ItemTable, np.ndarray]]) -> pa.Array:
    """The ids of these rows of item tables, looked up once a table where neighbours share it."""
    found = [pa.array([], pa.string())]
    for _, group in itertools.groupby(parts, key=lambda part: id(part[0])):
        same = list(group)
        rows = np.concatenate([rows for _, rows in same])
        found.append(same[0][0].column("item_id").take(pa.array(rows, pa.int64())))
    return pa.concat_arrays(found)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])
