"""What a candidate source is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adstool.features.items import NO_TIME
from adstool.features.state import RequestContext, ServingState
from adstool.funnel.ann import VectorIndex
from adstool.funnel.orders import Orders
from adstool.funnel.semantic import SemanticIndex
from adstool.funnel.sequence import SequenceIndex

RECENT_LIFT = 0.5  # of a category's weight, per unit of ln(1 + recent engagement)
QUERY_SHARE = 0.25  # of the wants of a request with a query; what is wanted later counts too
FRESH_DAYS = 7.0
DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Found:
    """Distinct positions in the corpus, int64 [m], best first, and the source's own scores, float32 [m]."""

    positions: np.ndarray
    scores: np.ndarray

    @classmethod
    def nothing(cls) -> Found:
        """No candidate."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True)
class Outcomes:
    """What showing the items came to so far, as of the state's moment; arrays over positions.

    shown, engaged: float32 [n], decayed impressions and engagements. usual: float32 [n], the rate of
    engagement expected of an item before it was shown: that of its category. little: int64 [l], positions
    shown less often than the average item.
    """

    shown: np.ndarray
    engaged: np.ndarray
    usual: np.ndarray
    little: np.ndarray


@dataclass(frozen=True)
class Asked:
    """What a source may look at; arrays are over the positions 0 .. n - 1 of the corpus."""

    state: ServingState
    ctx: RequestContext
    request_id: str
    eligible: np.ndarray  # bool [n]: exists and its campaign runs
    first_row: int  # row of the item table at position 0
    user_vectors: np.ndarray | None  # of the retrieval towers, a head each, [H, d]
    two_tower: VectorIndex
    conversion: VectorIndex | None  # by the vectors of the second head; None: there is none
    clip: VectorIndex
    semantic: SemanticIndex
    sequence: SequenceIndex | None  # None: no users' vectors were trained
    orders: Orders
    popularity: np.ndarray  # float32 [n]
    created: np.ndarray  # int64 [n], microseconds
    outcomes: Outcomes
    installed: Mapping[str, Source]  # sources of other packages that the settings name

    @property
    def rows(self) -> slice:
        """The rows of the item table at the positions."""
        return slice(self.first_row, self.first_row + len(self.eligible))

    @cached_property
    def wanted(self) -> np.ndarray:
        """What the user wants by category, float32 [C]; negative for what he hides.

        The batch's interests, raised by what he engaged with in the last hours and, where the request has a
        query, shared with what the query asks for.
        """
        state, ctx = self.state, self.ctx
        wanted = state.interests.of(ctx.user) * (1.0 + RECENT_LIFT * np.log1p(state.recent_categories(ctx)))
        # The words of the catalogue are only read where there is a query.
        intent = state.interests.of_query(ctx.query, state.items.category_words) if ctx.query else None
        if intent is not None:
            wanted = (1.0 - QUERY_SHARE) * wanted + QUERY_SHARE * max(float(wanted.sum()), 0.0) * intent
        return np.asarray(wanted)


def newness(created: np.ndarray, ts: int) -> np.ndarray:
    """How new items made at these times (microseconds) are at `ts`: 1 at once, 1/e after FRESH_DAYS, 0 where
    the time is not known."""
    age = np.maximum((ts - created) / DAY, 0.0)
    return np.where(created == NO_TIME, 0.0, np.exp(-age / FRESH_DAYS))


Source = Callable[[Asked, int], Found]
