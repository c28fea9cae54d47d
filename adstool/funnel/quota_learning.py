"""Learning quotas: which depths of the sources bring most utility for what they cost.

The utility of depths is that of the winners of a request that any source brings within its depth, so what two
sources bring counts once. The depths maximise utility - lambda · cost, one source after the other given the
others' (each step is exact, so the objective only rises), and lambda is found by bisection so that the cost
is the budget (DCAF, Jiang et al. 2020, over sources in place of requests).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FAR = np.iinfo(np.int32).max  # the rank of an item in a source that did not bring it
STEPS = 40  # depths of a source that are weighed, about
SWEEPS = 4  # times every source is looked at again for one lambda
HALVINGS = 14  # of lambda between too dear and too cheap
CHEAPEST = 1e-9  # of the highest lambda: below it, candidates cost nothing
SAMPLED = 200_000  # items by which distinct candidates are counted


@dataclass(frozen=True)
class Replayed:
    """One request with everything that every source brings at full depth.

    positions: int64 [m], rising. ranks: int32 [S, m], from 1, FAR where a source did not bring it. light,
    heavy: float64 [m], scores of both rankers, heavy -inf where it was not asked.
    """

    user: str
    segment: str
    positions: np.ndarray
    ranks: np.ndarray
    light: np.ndarray
    heavy: np.ndarray


@dataclass(frozen=True)
class Cost:
    """What depths cost a request: fixed + each · depth of every source in use, and distinct a candidate."""

    fixed: np.ndarray  # float64 [S]
    each: np.ndarray  # float64 [S]
    distinct: float

    @classmethod
    def count(cls, sources: int) -> Cost:
        """Distinct candidates alone."""
        return cls(np.zeros(sources), np.zeros(sources), 1.0)

    def of_depth(self, source: int, depth: np.ndarray) -> np.ndarray:
        """The cost of a source at these depths, what its candidates cost later left out."""
        return np.asarray(np.where(depth > 0, self.fixed[source] + self.each[source] * depth, 0.0))


@dataclass(frozen=True)
class Coverage:
    """Winners and candidates of many requests, by the step of the grid at which every source brings them.

    grid: int64 [G], depths, 0 first. winners: int16 [S, w], places in the grid, G where never. gain:
    float64 [w], a request's utility by the winner. items: int16 [S, c], a sample of all candidates, and
    weight, how many of a request each stands for.
    """

    grid: np.ndarray
    winners: np.ndarray
    gain: np.ndarray
    items: np.ndarray
    weight: float

    @classmethod
    def of(cls, requests: Sequence[Replayed], depth: int, winners: int) -> Coverage:
        """Of at least one request, for depths up to `depth`; the best `winners` of each count."""
        grid = depth_grid(depth)
        count = len(requests)
        gains = [winner_gains(one.heavy, winners) for one in requests]
        won = [one.ranks[:, places] for one, (places, _) in zip(requests, gains, strict=True)]
        gain = np.concatenate([values for _, values in gains]) / count
        ranks = np.concatenate([one.ranks for one in requests], axis=1)
        total = ranks.shape[1]
        if total > SAMPLED:
            ranks = ranks[:, np.sort(np.random.default_rng(0).choice(total, SAMPLED, replace=False))]
        place = np.searchsorted(grid, np.concatenate(won, axis=1)).astype(np.int16)
        items = np.searchsorted(grid, ranks).astype(np.int16)
        return cls(grid, place, gain, items, total / max(ranks.shape[1], 1) / count)

    def curve(self, source: int, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a source adds to the others at their steps, by its own depth: utility and distinct candidates,
        float64 [G] each. steps: int [S], places in the grid."""
        gain = self._added(self.winners, source, steps, self.gain)
        return gain, self._added(self.items, source, steps, None) * self.weight

    def _added(
        self, places: np.ndarray, source: int, steps: np.ndarray, weights: np.ndarray | None
    ) -> np.ndarray:
        others = np.ones(len(steps), dtype=bool)
        others[source] = False
        missing = ~(places[others] <= steps[others, None]).any(axis=0)
        found = places[source][missing]
        size = len(self.grid)
        values = None if weights is None else weights[missing]
        return np.cumsum(np.bincount(found, weights=values, minlength=size + 1)[:size])

    def utility(self, steps: np.ndarray) -> float:
        """The utility of a request that all sources together bring."""
        return float(self.gain[(self.winners <= steps[:, None]).any(axis=0)].sum())

    def distinct(self, steps: np.ndarray) -> float:
        """How many distinct candidates a request has."""
        return float((self.items <= steps[:, None]).any(axis=0).sum() * self.weight)

    def cost(self, steps: np.ndarray, cost: Cost) -> float:
        """What a request costs."""
        own = sum(float(cost.of_depth(s, self.grid[step])) for s, step in enumerate(steps.tolist()))
        return own + cost.distinct * self.distinct(steps)


def depth_grid(depth: int) -> np.ndarray:
    """Depths from 0 to `depth`, about STEPS of them, ever further apart: int64."""
    rising = np.round(np.geomspace(1, max(depth, 1), STEPS)).astype(np.int64)
    return np.unique(np.concatenate([[0], rising]))


def winner_gains(score: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the best `count` items of a request, and how much each is worth more than the next one,
    which would be there in its place."""
    order = np.argsort(-score, kind="stable")
    order = order[np.isfinite(score[order])]
    rest = score[order[count]] if len(order) > count else 0.0
    best = order[:count]
    return best, np.maximum(score[best] - rest, 0.0)


def allocate(coverage: Coverage, cost: Cost, budget: float) -> np.ndarray:
    """Depths of the sources, int64 [S], whose expected cost a request is at most `budget`."""
    steps = np.zeros(len(coverage.winners), dtype=np.int64)
    price = highest = _highest_price(coverage, cost)
    # From dear to cheap: what is worth most is taken first, as a greedy choice would, and is started from.
    while price > highest * CHEAPEST:
        tried = _sweep(coverage, cost, price, steps)
        if coverage.cost(tried, cost) > budget:
            break
        steps, price = tried, price / 2.0
    else:
        return np.asarray(coverage.grid[steps])
    low, high = price, 2.0 * price
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        tried = _sweep(coverage, cost, middle, steps)
        if coverage.cost(tried, cost) > budget:
            low = middle
        else:
            steps, high = tried, middle
    return np.asarray(coverage.grid[steps])


def _highest_price(coverage: Coverage, cost: Cost) -> float:
    """The most utility that a first step of any source brings for its cost."""
    nothing = np.zeros(len(coverage.winners), dtype=np.int64)
    ratios = [0.0]
    for source in range(len(nothing)):
        gain, distinct = coverage.curve(source, nothing)
        paid = cost.of_depth(source, coverage.grid) + cost.distinct * distinct
        ratios.append(float(np.max(gain[1:] / np.maximum(paid[1:], 1e-9))))
    return max(ratios)


def _sweep(coverage: Coverage, cost: Cost, price: float, start: np.ndarray) -> np.ndarray:
    """The steps that maximise utility - price · cost, one source after the other, from `start`."""
    steps = start.copy()
    for _ in range(SWEEPS):
        before = steps.copy()
        for source in range(len(steps)):
            gain, distinct = coverage.curve(source, steps)
            paid = cost.of_depth(source, coverage.grid) + cost.distinct * distinct
            steps[source] = int(np.argmax(gain - price * paid))
        if np.array_equal(before, steps):
            break
    return steps
