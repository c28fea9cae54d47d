"""The sources' finds as one list of distinct candidates that remembers who found what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from adstool.funnel.asked import Asked, Found
from adstool.funnel.fallback import Guard
from adstool.funnel.quota import Quota
from adstool.funnel.sources import popular, sources_of

FILLER = "two_tower"  # fills what the other sources leave empty
SPARE = "popular"  # fills it where a source failed


@dataclass(frozen=True)
class Candidates:
    """Distinct candidates: the source that found each at its best rank, that rank (from 1) and score."""

    positions: np.ndarray  # int64 [m]
    source: np.ndarray  # int8 [m], index into `names`
    rank: np.ndarray  # int32 [m], within the source
    score: np.ndarray  # float32 [m], of the source
    by: np.ndarray  # int64 [m], the sum of 2^s over all the sources s that brought it
    names: tuple[str, ...]
    found: Mapping[str, Found]  # everything each source brought

    def __len__(self) -> int:
        return len(self.positions)

    def sources_of(self, candidate: int) -> list[str]:
        """The names of all sources that brought a candidate."""
        return [name for place, name in enumerate(self.names) if int(self.by[candidate]) >> place & 1]


def retrieve(asked: Asked, total: int, guard: Guard | None = None, quota: Quota | None = None) -> Candidates:
    """At most `total` distinct candidates, as many of every source as its quota says; None: equal shares.

    guard: a source that fails brings nothing, and popular items fill the two towers' place; without one it
    raises.
    """
    guard = guard or Guard(strict=True)
    sources = sources_of(asked)
    quota = Quota.equal(sources, total) if quota is None else quota.within(total)
    found = {}
    for name, source in sources.items():
        depth = quota.depths.get(name, 0)
        depth = quota.total if quota.fill and name == FILLER else depth
        brought = guard.source(name, partial(source, asked, depth)) if depth else None
        found[name] = Found.nothing() if brought is None else brought
    if len(found[FILLER].positions) or not guard.fallbacks:
        return merge(found, quota)
    # The order of popularity was made when the index was loaded, so nothing is left that could fail.
    found[SPARE] = popular(asked, total)
    return merge(found, replace(quota, fill=True), SPARE)


def merge(found: Mapping[str, Found], quota: Quota, filler: str = FILLER) -> Candidates:
    """The first of every source up to its depth, one entry an item, then more of `filler` up to the total."""
    names, total = tuple(found), quota.total
    own = {name: quota.depths.get(name, 0) for name in names}
    filled = quota.fill and filler in found
    lists = [
        one.positions if filled and name == filler else one.positions[: own[name]]
        for name, one in found.items()
    ]
    sizes = [len(one) for one in lists]
    positions = np.concatenate(lists)
    scores = np.concatenate([one.scores[:size] for one, size in zip(found.values(), sizes, strict=True)])
    source = np.repeat(np.arange(len(names), dtype=np.int8), sizes)
    rank = np.concatenate([np.arange(1, size + 1, dtype=np.int32) for size in sizes])
    # By rank, then source; what the filler has beyond its depth comes after what every source brought.
    turn = rank * np.int32(len(names)) + source
    if filled:
        place = names.index(filler)
        start = sum(sizes[:place])
        turn[start + own[filler] : start + sizes[place]] += np.int32(len(names) * max(sizes))
    order = np.argsort(turn)
    _, first, which = np.unique(positions[order], return_index=True, return_inverse=True)
    # A source brings an item once, so the sum of its sources' powers of two says which they are.
    by = np.bincount(which, weights=np.exp2(source[order]), minlength=len(first)).astype(np.int64)
    shown = np.argsort(first)[:total]
    kept = order[first[shown]]
    return Candidates(positions[kept], source[kept], rank[kept], scores[kept], by[shown], names, dict(found))
