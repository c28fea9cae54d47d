"""Why an item is in a slate, in words that a person can check against the log."""

from __future__ import annotations

from collections import Counter

import numpy as np

from adstool.content.text import tokens
from adstool.features.items import NO_TIME
from adstool.features.state import RequestContext, ServingState
from adstool.funnel.asked import DAY, FRESH_DAYS

LIKE = 0.5  # cosine from which an item counts as looking like another
RECENT = 50  # last engagements that reasons rest on


class Reasons:
    """What is worth saying about the candidates of one request."""

    def __init__(self, state: ServingState, ctx: RequestContext) -> None:
        self.state, self.ctx = state, ctx
        self.recent = np.asarray(state.engagements.item[ctx.start : ctx.end])[-RECENT:][::-1].astype(np.int64)
        self.categories = self._counts("category")
        self.advertisers = self._counts("advertiser_id")
        self.words = tokens(ctx.query)

    def of(self, row: int, source: str) -> str:
        """The reasons for the item in this row of the item table, most telling first."""
        before = "engaged with it before" if row in self.recent else ""
        found = [self._query(row), before, self._engaged("category", self.categories, row)]
        found += [self._advertiser(row), self._like(row), self._new(row)]
        if source == "popular":
            found.append("popular")
        said = [reason for reason in found if reason]
        return ", ".join(said) or f"found by {source}"

    def _value(self, name: str, row: int) -> str | None:
        value = self.state.items.column(name)[int(row)].as_py()
        return None if value is None else str(value)

    def _counts(self, name: str) -> Counter[str]:
        values = (self._value(name, row) for row in self.recent.tolist())
        return Counter(value for value in values if value)

    def _query(self, row: int) -> str:
        if not self.words:
            return ""
        text = " ".join(filter(None, (self._value(n, row) for n in ("title", "description", "category"))))
        held = set(tokens(text)).intersection(self.words)
        return f"has {len(held)} of {len(self.words)} words of the query" if held else ""

    def _engaged(self, name: str, counts: Counter[str], row: int) -> str:
        value = self._value(name, row)
        times = counts[value] if value else 0
        return f"engaged {times} × with {value}" if times else ""

    def _advertiser(self, row: int) -> str:
        value = self._value("advertiser_id", row)
        return f"knows {value}" if value and self.advertisers[value] else ""

    def _like(self, row: int) -> str:
        others = self.recent[self.recent != row]
        if not len(others):
            return ""
        content = self.state.items.content
        near = np.asarray(content[others]) @ np.asarray(content[row])
        best = int(np.argmax(near))
        if near[best] < LIKE:
            return ""
        liked = int(others[best])
        return f"like {self._value('title', liked) or self._value('item_id', liked)} ({near[best]:.2f})"

    def _new(self, row: int) -> str:
        created = int(self.state.items.times("created_at")[row])
        age = (self.ctx.ts - created) / DAY
        return f"new ({age:.0f} d)" if created != NO_TIME and age < FRESH_DAYS else ""
