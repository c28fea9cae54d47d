"""Daily budgets: what campaigns have spent of the day, and which of them cannot be shown any more.

A slot is charged what it is expected to cost, its price a click times the probability of the click, at the
moment it is sold: clicks are reported later, and a budget that waits for them is overspent by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adstool.config import Settings
from adstool.features.items import ItemTable
from adstool.progress import log
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

DAY = 86_400_000_000  # microseconds; days are those of UTC

Charge = tuple[int, str, float]  # microseconds UTC, campaign, money


def charges(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection | None, ts: int
) -> list[Charge]:
    """What the auctions of the warehouse, and those put aside, charged on the day of `ts`; `con`: None
    opens it.

    Nothing, with a note, where it cannot be opened: a request is answered all the same.
    """
    from adstool.warehouse import lent, load_sql, open_warehouse
    from adstool.warehouse.spool import waiting_rows

    sql, day = load_sql("funnel_spent"), {"start": ts // DAY * DAY, "stop": ts // DAY * DAY + DAY}
    try:
        with nullcontext(con) if con is not None else open_warehouse(ws, settings, read_only=True) as opened:
            rows = opened.execute(sql.format(auctions="auctions"), day).fetchall()
            for aside in waiting_rows(opened, ws, "auctions"):
                with lent(opened, spooled=aside):
                    rows += opened.execute(sql.format(auctions="spooled"), day).fetchall()
    except Exception as error:  # DuckDB says in many ways that another process or thread has the file
        log.info("Budgets start from nothing spent, since the auctions cannot be read: %s", error)
        return []
    return [(int(moment), str(campaign), float(cost)) for moment, campaign, cost in rows]


@dataclass
class _Day:
    charges: list[Charge] = field(default_factory=list)
    total: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last: int = 0  # time of the newest charge


class Spending:
    """What campaigns have spent by day."""

    def __init__(self) -> None:
        self._days: dict[int, _Day] = {}

    def knows(self, ts: int) -> bool:
        """Whether what was spent before on the day of `ts` has been added."""
        return ts // DAY in self._days

    def start(self, ts: int, charges: Iterable[Charge]) -> None:
        """Begin the day of `ts` with what was spent on it before."""
        self._days[ts // DAY] = _Day()
        for charge in charges:
            self.add(*charge)

    def add(self, ts: int, campaign: str, cost: float) -> None:
        """A campaign is charged; a negative cost takes a charge back. Of a day that was begun only."""
        day = self._days.get(ts // DAY)
        if day is not None:
            day.charges.append((ts, campaign, cost))
            day.total[campaign] += cost
            day.last = max(day.last, ts)

    def over(self, ts: int, daily: Mapping[str, float]) -> frozenset[str]:
        """The campaigns that have spent their `daily` budget by `ts`, on its day."""
        day = self._days.get(ts // DAY)
        if day is None:
            return frozenset()
        spent: Mapping[str, float] = day.total
        if ts < day.last:
            before: dict[str, float] = defaultdict(float)
            for moment, campaign, cost in day.charges:
                if moment <= ts:
                    before[campaign] += cost
            spent = before
        return frozenset(c for c, cost in spent.items() if cost >= daily.get(c, float("inf")))


class Budgets:
    """The daily budgets of the campaigns of a corpus, and their items."""

    def __init__(self, items: ItemTable, rows: slice) -> None:
        """rows: of the items, at the positions 0 .. n - 1 of the corpus."""
        self._campaigns = items.column("campaign_id")[rows]
        table = pa.table({"campaign": self._campaigns, "budget": items.column("daily_budget")[rows]})
        least = table.group_by("campaign").aggregate([("budget", "min")]).to_pydict()
        pairs = zip(least["campaign"], least["budget_min"], strict=True)
        self.daily = {campaign: float(b) for campaign, b in pairs if campaign is not None and b is not None}
        self._last: tuple[np.ndarray, frozenset[str], np.ndarray] | None = None

    @cached_property
    def _places(self) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
        """Numbers of the campaigns, and the positions by campaign with where each begins."""
        encoded = self._campaigns.dictionary_encode()
        numbers = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
        order = np.argsort(numbers, kind="stable")
        starts = np.searchsorted(numbers[order], np.arange(len(encoded.dictionary) + 1))
        return {name: n for n, name in enumerate(encoded.dictionary.to_pylist())}, order, starts

    def without(self, eligible: np.ndarray, over: frozenset[str]) -> np.ndarray:
        """`eligible` [n] without the items of the campaigns that are `over`; it stays as it is."""
        if not over:
            return eligible
        if self._last is None or self._last[0] is not eligible or self._last[1] != over:
            number, order, starts = self._places
            left = eligible.copy()
            for place in (number[campaign] for campaign in over if campaign in number):
                left[order[starts[place] : starts[place + 1]]] = False
            self._last = eligible, over, left
        return self._last[2]
