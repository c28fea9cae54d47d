"""Candidate sources: each is a function and a row in SOURCES; those of other packages are in `installed`.

A source gets what is known of the request and says which items of the corpus it would show, best first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from adstool.features.state import ServingState
from adstool.funnel.ann import VectorIndex, best, search_any
from adstool.funnel.asked import DAY, FRESH_DAYS, Asked, Found, Source, newness
from adstool.funnel.exploration import exploration
from adstool.funnel.orders import first_allowed
from adstool.funnel.query_text import query
from adstool.funnel.retargeting import retargeting
from adstool.funnel.sequence import SequenceIndex

NEIGHBOURS_OF = 5  # last engaged items whose neighbours are looked for
PREFIXES_OF = 50  # last engaged items whose semantic ids are looked for
CATEGORIES = 64  # most wanted ones whose items are looked at


def two_tower(asked: Asked, depth: int) -> Found:
    """Items whose vector is nearest to the user's, by the retrieval towers."""
    if asked.user_vectors is None:
        return Found.nothing()
    return Found(*asked.two_tower.search(asked.user_vectors[0], depth, asked.eligible))


def conversion(asked: Asked, depth: int) -> Found:
    """Items that the user is likeliest to convert on, by the second head of the retrieval towers."""
    if asked.user_vectors is None or asked.conversion is None:
        return Found.nothing()
    return Found(*asked.conversion.search(asked.user_vectors[1], depth, asked.eligible))


def clip(asked: Asked, depth: int) -> Found:
    """Items whose picture and text are near to one of the items the user engaged with last."""
    rows = asked.state.last_engaged(asked.ctx, NEIGHBOURS_OF)
    content = np.asarray(asked.state.items.content[rows], dtype=np.float32)
    content = content[np.abs(content).max(axis=1) > 0] if len(content) else content
    if not len(content):
        return Found.nothing()
    positions, scores = search_any(asked.clip, content, depth, asked.eligible)
    kept = scores > 0  # an item without a vector has product 0
    return Found(positions[kept], scores[kept])


def semantic(asked: Asked, depth: int) -> Found:
    """Items whose semantic ids begin like those of the items the user engaged with last, the longer the
    better; of equals the more popular first."""
    rows = asked.state.last_engaged(asked.ctx, PREFIXES_OF)
    positions, scores = asked.semantic.agreeing(asked.state.items.codes[rows], depth, asked.eligible)
    order = np.lexsort((positions, -asked.popularity[positions], -scores))[:depth]
    return Found(positions[order], scores[order])


def sequence(asked: Asked, depth: int) -> Found:
    """Items that go on from what the user engaged with, in order, by the `users` model."""
    if asked.sequence is None:
        return Found.nothing()
    return Found(*asked.sequence.search(asked.state, asked.ctx, depth, asked.eligible))


def popular(asked: Asked, depth: int) -> Found:
    """Items with most engagement, old engagement counting less."""
    positions = first_allowed(asked.orders.popular, depth, asked.eligible)
    return Found(positions, asked.popularity[positions])


def fresh(asked: Asked, depth: int) -> Found:
    """Items of the last week, newest first, so that what nobody knows yet gets a chance; scores are -days."""
    ts = asked.ctx.ts
    positions = asked.orders.made_between(ts - round(FRESH_DAYS * DAY), ts, depth, asked.eligible)
    return Found(positions, (-(ts - asked.created[positions]) / DAY).astype(np.float32))


def interests(asked: Asked, depth: int) -> Found:
    """The most popular items, new ones first among equals, of the categories that the user wants.

    An item's score is its category's weight times its popularity within the category times how new it is.
    """
    wanted, within = asked.wanted, asked.state.popularity_within[asked.rows]
    shelves = asked.orders.by_category
    # Newness has changed the order within a category a little since the index was made: more are looked at.
    best_first = np.argsort(-wanted[: len(shelves.starts) - 1], kind="stable")[:CATEGORIES]
    parts = [shelves.first(c, 2 * depth, asked.eligible) for c in best_first.tolist() if wanted[c] > 0]
    able = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
    category = asked.state.items.categories[0][asked.rows][able]
    scores = wanted[category] * within[able] * (1.0 + newness(asked.created[able], asked.ctx.ts))
    chosen = best(scores, depth)
    return Found(able[chosen], scores[chosen].astype(np.float32))


# The order decides which source is named when two found an item at the same rank.
SOURCES: dict[str, Source] = {
    "two_tower": two_tower,
    "conversion": conversion,
    "clip": clip,
    "semantic": semantic,
    "sequence": sequence,
    "interests": interests,
    "query": query,
    "retargeting": retargeting,
    "popular": popular,
    "fresh": fresh,
    "exploration": exploration,
}


class Holder(Protocol):
    """What says which sources there are: an index, or what is asked of it."""

    @property
    def state(self) -> ServingState:
        """What is known."""
        ...

    @property
    def sequence(self) -> SequenceIndex | None:
        """Items by the vectors of users, None without them."""
        ...

    @property
    def conversion(self) -> VectorIndex | None:
        """Items by the conversion head's vectors, None without it."""
        ...

    @property
    def installed(self) -> Mapping[str, Source]:
        """The sources of other packages that the settings name."""
        ...


def sources_of(holder: Holder) -> dict[str, Source]:
    """The sources to ask: those that have something to go by, so that the others take no share.

    `sequence` needs its model, `conversion` towers with that head, `retargeting` any conversion.
    """
    there = {
        "conversion": holder.conversion is not None,
        "sequence": holder.sequence is not None,
        "retargeting": len(holder.state.off_site) > 0,
    }
    own = {name: source for name, source in SOURCES.items() if there.get(name, True)}
    return {**own, **holder.installed}
