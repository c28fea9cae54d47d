"""Items in the orders that sources read, made once, so that a request looks at as many as it asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adstool.features.items import NO_TIME

MIN_WALK = 1024  # places of an order looked at in one go, at least


@dataclass(frozen=True)
class Groups:
    """Positions by group, and in an order of their own within each."""

    positions: np.ndarray  # int64 [m]
    starts: np.ndarray  # int64 [groups + 1]

    @classmethod
    def of(cls, group: np.ndarray, score: np.ndarray, groups: int) -> Groups:
        """Positions of every group, by falling score, then by position; a negative group is left out.

        group: int [n]; score: float [n].
        """
        order = np.lexsort((-score, group))
        order = order[np.searchsorted(group[order], 0) :]
        return cls(order, np.searchsorted(group[order], np.arange(groups + 1)))

    def first(self, group: int, k: int, allowed: np.ndarray) -> np.ndarray:
        """The first k allowed positions of a group."""
        return first_allowed(self.positions[self.starts[group] : self.starts[group + 1]], k, allowed)


@dataclass(frozen=True)
class Orders:
    """Orders over the positions of the corpus."""

    popular: np.ndarray  # int64 [n], by falling popularity
    newest: np.ndarray  # int64 [m], by falling time of creation, those of unknown time left out
    ages: np.ndarray  # int64 [m], minus the times of `newest`, rising
    by_category: Groups  # by popularity within the category and newness at the moment of the index
    by_advertiser: Groups  # by popularity within the category

    @classmethod
    def of(
        cls,
        popularity: np.ndarray,
        created: np.ndarray,
        category: np.ndarray,
        advertiser: np.ndarray,
        within: np.ndarray,
        newness: np.ndarray,
    ) -> Orders:
        """From arrays over the positions: popularity and `within` its category, times of creation in
        microseconds, numbers of category and advertiser (-1 for none), newness from 0 to 1."""
        known = np.flatnonzero(created != NO_TIME)
        newest = known[np.argsort(-created[known], kind="stable")]
        return cls(
            popular=np.argsort(-popularity, kind="stable"),
            newest=newest,
            ages=-created[newest],
            by_category=Groups.of(category, within * (1.0 + newness), int(category.max(initial=-1)) + 1),
            by_advertiser=Groups.of(advertiser, within, int(advertiser.max(initial=-1)) + 1),
        )

    def made_between(self, start: int, end: int, k: int, allowed: np.ndarray) -> np.ndarray:
        """The k newest allowed positions made after `start` and up to `end`, newest first."""
        first, last = np.searchsorted(self.ages, [-end, -start])
        return first_allowed(self.newest[first:last], k, allowed)


def first_allowed(order: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
    """The first k of these positions that are allowed; looks no further than it takes to find them."""
    found = order[:0]
    step = max(2 * k, MIN_WALK)
    for start in range(0, len(order), step):
        part = order[start : start + step]
        found = np.concatenate([found, part[allowed[part]]])
        if len(found) >= k:
            break
    return found[:k]
