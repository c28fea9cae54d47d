"""Candidate sources, and how their finds become one list that remembers who found what.

A source is a function and a row in SOURCES. It gets what is known of the request and says which items of the
corpus it would show, best first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from adstool.features.items import NO_TIME
from adstool.features.state import RequestContext, ServingState
from adstool.funnel.ann import VectorIndex, best
from adstool.funnel.fallback import Guard
from adstool.funnel.semantic import SemanticIndex
from adstool.funnel.sequence import SequenceIndex

NEIGHBOURS_OF = 5  # last engaged items whose neighbours are looked for
PREFIXES_OF = 50  # last engaged items whose semantic ids are looked for
FILLER = "two_tower"  # fills what the other sources leave empty
SPARE = "popular"  # fills it where a source failed
FRESH_DAYS = 7.0
RECENT_LIFT = 0.5  # of a category's weight, per unit of ln(1 + recent engagement)
QUERY_SHARE = 0.25  # of the wants of a request with a query; what is wanted later counts too
DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Found:
    """Positions in the corpus, int64 [m], best first, and the source's own scores, float32 [m]."""

    positions: np.ndarray
    scores: np.ndarray

    @classmethod
    def nothing(cls) -> Found:
        """No candidate."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True)
class Asked:
    """What a source may look at; arrays are over the positions 0 .. n - 1 of the corpus."""

    state: ServingState
    ctx: RequestContext
    eligible: np.ndarray  # bool [n]: exists and its campaign runs
    first_row: int  # row of the item table at position 0
    user_vector: np.ndarray | None  # of the retrieval tower, [d]
    two_tower: VectorIndex
    clip: VectorIndex
    semantic: SemanticIndex
    sequence: SequenceIndex | None  # None: no users' vectors were trained
    by_popularity: np.ndarray  # int64, positions by falling popularity
    popularity: np.ndarray  # float32 [n]
    created: np.ndarray  # int64 [n], microseconds


Source = Callable[[Asked, int], Found]


def two_tower(asked: Asked, depth: int) -> Found:
    """Items whose vector is nearest to the user's, by the retrieval towers."""
    if asked.user_vector is None:
        return Found.nothing()
    return Found(*asked.two_tower.search(asked.user_vector, depth, asked.eligible))


def clip(asked: Asked, depth: int) -> Found:
    """Items whose picture and text are near to one of the items the user engaged with last."""
    rows = asked.state.last_engaged(asked.ctx, NEIGHBOURS_OF)
    content = np.asarray(asked.state.items.content[rows], dtype=np.float32)
    content = content[np.abs(content).max(axis=1) > 0] if len(content) else content
    found = [asked.clip.search(vector, depth, asked.eligible) for vector in content]
    if not found:
        return Found.nothing()
    positions = np.concatenate([p for p, _ in found])
    scores = np.concatenate([s for _, s in found])
    order = np.lexsort((positions, -scores))
    _, first = np.unique(positions[order], return_index=True)
    kept = order[np.sort(first)]
    kept = kept[scores[kept] > 0][:depth]  # an item without a vector has product 0
    return Found(positions[kept], scores[kept])


def semantic(asked: Asked, depth: int) -> Found:
    """Items whose semantic ids begin like those of the items the user engaged with last, the longer the
    better; of equals the more popular first."""
    rows = asked.state.last_engaged(asked.ctx, PREFIXES_OF)
    scores = asked.semantic.score(asked.state.items.codes[rows])
    positions = np.flatnonzero(asked.eligible & (scores > 0))
    order = np.lexsort((positions, -asked.popularity[positions], -scores[positions]))[:depth]
    return Found(positions[order], scores[positions[order]])


def sequence(asked: Asked, depth: int) -> Found:
    """Items that go on from what the user engaged with, in order, by the `users` model."""
    if asked.sequence is None:
        return Found.nothing()
    return Found(*asked.sequence.search(asked.state, asked.ctx, depth, asked.eligible))


def popular(asked: Asked, depth: int) -> Found:
    """Items with most engagement, old engagement counting less."""
    allowed = asked.by_popularity[asked.eligible[asked.by_popularity]]
    positions = allowed[:depth]
    return Found(positions, asked.popularity[positions])


def fresh(asked: Asked, depth: int) -> Found:
    """Items of the last week, newest first, so that what nobody knows yet gets a chance; scores are -days."""
    known = np.flatnonzero(asked.eligible & (asked.created != NO_TIME))
    age = (asked.ctx.ts - asked.created[known]) / DAY
    new = np.flatnonzero(age < FRESH_DAYS)
    chosen = new[best(-age[new], depth)]
    return Found(known[chosen], -age[chosen].astype(np.float32))


def interests(asked: Asked, depth: int) -> Found:
    """The most popular items, new ones first among equals, of the categories that the user wants.

    What he wants is the batch's interests, raised by what he engaged with in the last hours and, where the
    request has a query, shared with what the query asks for. An item's score is its category's weight times
    its popularity within the category times how new it is.
    """
    state, ctx = asked.state, asked.ctx
    wanted = state.interests.of(ctx.user) * (1.0 + RECENT_LIFT * np.log1p(state.recent_categories(ctx)))
    intent = state.interests.of_query(ctx.query, state.items.category_words)
    if intent is not None:
        wanted = (1.0 - QUERY_SHARE) * wanted + QUERY_SHARE * max(float(wanted.sum()), 0.0) * intent
    rows = slice(asked.first_row, asked.first_row + len(asked.eligible))
    category = state.items.categories[0][rows]
    able = np.flatnonzero(asked.eligible & (category >= 0))
    able = able[wanted[category[able]] > 0]
    age = np.maximum((ctx.ts - asked.created[able]) / DAY, 0.0)
    new = np.where(asked.created[able] == NO_TIME, 0.0, np.exp(-age / FRESH_DAYS))
    scores = wanted[category[able]] * state.popularity_within[rows][able] * (1.0 + new)
    chosen = best(scores, depth)
    return Found(able[chosen], scores[chosen].astype(np.float32))


# The order decides which source is named when two found an item at the same rank.
SOURCES: dict[str, Source] = {
    "two_tower": two_tower,
    "clip": clip,
    "semantic": semantic,
    "sequence": sequence,
    "interests": interests,
    "popular": popular,
    "fresh": fresh,
}


def sources_with(sequences: SequenceIndex | None) -> dict[str, Source]:
    """The sources to ask: all, but `sequence` only where its model was trained, so that it takes no share."""
    return {name: one for name, one in SOURCES.items() if name != "sequence" or sequences is not None}


@dataclass(frozen=True)
class Candidates:
    """Distinct candidates: the source that found each at its best rank, that rank (from 1) and score."""

    positions: np.ndarray  # int64 [m]
    source: np.ndarray  # int8 [m], index into `names`
    rank: np.ndarray  # int32 [m], within the source
    score: np.ndarray  # float32 [m], of the source
    names: tuple[str, ...]
    found: Mapping[str, Found]  # everything each source brought

    def __len__(self) -> int:
        return len(self.positions)


def retrieve(asked: Asked, total: int, guard: Guard | None = None) -> Candidates:
    """At most `total` distinct candidates: an equal share from every source, the rest from the two towers.

    guard: a source that fails brings nothing, and popular items fill the two towers' place; without one it
    raises.
    """
    guard = guard or Guard(strict=True)
    sources = sources_with(asked.sequence)
    share = max(total // len(sources), 1)
    depth = {name: total if name == FILLER else share for name in sources}
    found = {}
    for name, source in sources.items():
        brought = guard.attempt(name, partial(source, asked, depth[name]), "the other sources")
        found[name] = Found.nothing() if brought is None else brought
    if len(found[FILLER].positions) or not guard.fallbacks:
        return merge(found, share, total)
    # The order of popularity was made when the index was loaded, so nothing is left that could fail.
    found[SPARE] = popular(asked, total)
    return merge(found, share, total, SPARE)


def merge(found: Mapping[str, Found], share: int, total: int, filler: str = FILLER) -> Candidates:
    """The first `share` of every source, one entry an item, then more of `filler` up to `total`."""
    names = tuple(found)
    taken = {name: min(share, len(result.positions)) for name, result in found.items()}
    merged = _distinct(found, taken, names, total)
    if filler in found and len(merged) < total:
        # Down the filler's list to where enough items have come that no source had brought.
        new = np.flatnonzero(~np.isin(found[filler].positions, merged.positions))
        missing = total - len(merged)
        if len(new):
            taken[filler] = int(new[min(missing, len(new)) - 1]) + 1
            merged = _distinct(found, taken, names, total)
    return merged


def _distinct(
    found: Mapping[str, Found], taken: Mapping[str, int], names: tuple[str, ...], total: int
) -> Candidates:
    positions = np.concatenate([found[name].positions[: taken[name]] for name in names])
    scores = np.concatenate([found[name].scores[: taken[name]] for name in names])
    source = np.repeat(np.arange(len(names), dtype=np.int8), [taken[name] for name in names])
    rank = np.concatenate([np.arange(1, taken[name] + 1, dtype=np.int32) for name in names])
    order = np.lexsort((source, rank))
    _, first = np.unique(positions[order], return_index=True)
    kept = order[np.sort(first)][:total]
    return Candidates(positions[kept], source[kept], rank[kept], scores[kept], names, dict(found))
