"""An index at one moment, with what is computed once from it, and what its sources are told of a request."""

from __future__ import annotations

import numpy as np

from adstool.config import Settings
from adstool.features.items import NO_TIME
from adstool.features.state import RequestContext
from adstool.funnel.asked import Asked, newness
from adstool.funnel.budgets import Budgets
from adstool.funnel.exploration import outcomes
from adstool.funnel.index import Index
from adstool.funnel.orders import Orders
from adstool.funnel.targeting import Targeting
from adstool.training.value import bids_of


class Moment:
    """An index with what is computed once from it; arrays are over the positions of the corpus."""

    def __init__(self, index: Index, settings: Settings) -> None:
        self.index = index
        state = index.state
        rows = slice(index.corpus.first_row, index.corpus.first_row + len(index.corpus))
        self.created = state.items.times("created_at")[rows]
        self.starts = state.items.times("starts_at")[rows]
        self.ends = state.items.times("ends_at")[rows]
        self.popularity = state.popularity()[rows]
        category, advertiser = state.items.categories[0][rows], state.items.advertisers[0][rows]
        shown, engaged = (values[rows] for values in state.outcomes())
        self.outcomes = outcomes(shown, engaged, category)
        within = state.popularity_within[rows]
        new = newness(self.created, state.as_of)
        self.orders = Orders.of(self.popularity, self.created, category, advertiser, within, new)
        moments = [self.created, self.starts, self.ends[self.ends != NO_TIME] + 1]
        self._changes = np.unique(np.concatenate(moments))
        self._eligible: tuple[int, np.ndarray] | None = None
        self.budgets = Budgets(state.items, rows)
        self.targeting = Targeting.load(index.directory, state.items, rows)
        priced = state.spec.corpus == "ad"
        self.bids = bids_of(state.items.numbers("bid")[rows], settings.auction.reserve) if priced else None

    def eligible(self, ts: int) -> np.ndarray:
        """bool [n]: made by then, and its campaign runs; unknown times do not exclude. Not to be written to:
        it is the same array until an item or a campaign begins or ends."""
        stretch = int(np.searchsorted(self._changes, ts, side="right"))
        if self._eligible is None or self._eligible[0] != stretch:
            self._eligible = stretch, self._running(ts)
        return self._eligible[1]

    def _running(self, ts: int) -> np.ndarray:
        # NO_TIME lies before everything: an unknown start has passed, an unknown end must not count so.
        running = (self.starts <= ts) & ((self.ends >= ts) | (self.ends == NO_TIME))
        return np.asarray(running & (self.created <= ts))

    def asked(
        self,
        ctx: RequestContext,
        request_id: str,
        user_vectors: np.ndarray | None,
        over: frozenset[str] = frozenset(),
    ) -> Asked:
        """What the sources are told of a request; user_vectors: of the retrieval towers, [H, d]; over: the
        campaigns that have spent their budget."""
        index = self.index
        eligible = self.budgets.without(self.eligible(ctx.ts), over)
        aimed = self.targeting.allowed(index.state.users, ctx)
        return Asked(
            state=index.state,
            ctx=ctx,
            request_id=request_id,
            eligible=eligible if aimed is None else eligible & aimed,
            first_row=index.corpus.first_row,
            user_vectors=user_vectors,
            two_tower=index.two_tower,
            conversion=index.conversion,
            clip=index.clip,
            semantic=index.semantic,
            sequence=index.sequence,
            orders=self.orders,
            popularity=self.popularity,
            created=self.created,
            outcomes=self.outcomes,
            installed=index.installed,
        )
