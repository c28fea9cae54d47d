"""What the log says of pictures: which the same users engaged with, to train on and to measure by.

Pairs to train on come from before the validation part of the log, figures from the validation and test parts,
so that neither the figures nor the rankers' held-out examples were seen by the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from adstool.config import Settings
from adstool.warehouse import lent, load_sql

if TYPE_CHECKING:
    import duckdb

    from adstool.content.clip_data import ClipData

KS = (10, 50)
PER_USER = 100  # latest engagements of a user that pairs are made of: a user's pairs grow with its square
PER_ITEM = 20  # neighbours kept of a picture
SEEDS = 20_000  # engagements that a figure is measured on, at most
LEVEL = 0.95  # of intervals
BLOCK = 512  # pictures compared with all others at once


@dataclass(frozen=True)
class Cuts:
    """When the validation and test parts of the log begin, and when it ends."""

    valid: datetime
    test: datetime
    until: datetime

    def part(self, split: str) -> tuple[datetime, datetime]:
        """Begin and end of 'valid' or 'test'."""
        return (self.valid, self.test) if split == "valid" else (self.test, self.until)


def log_cuts(con: duckdb.DuckDBPyConnection, settings: Settings) -> Cuts | None:
    """The cuts of the log by the shares in settings.features; None without events."""
    valid, test = settings.features.valid_fraction, settings.features.test_fraction
    shares = {"valid": 1.0 - valid - test, "test": 1.0 - test}
    row = con.execute(load_sql("content_cuts"), shares).fetchall()[0]
    return None if row[0] is None else Cuts(*row)


class Neighbours:
    """Which pictures belong together: for every picture row its neighbours and their weights.

    `pairs`: row, neighbour int64 [E] sorted by row; `weights`: float64 [E] above 0; `size`: rows there are.
    """

    def __init__(self, pairs: np.ndarray, weights: np.ndarray, size: int) -> None:
        self.size = size
        self._other = pairs[:, 1]
        self._start = np.searchsorted(pairs[:, 0], np.arange(size + 1))
        self._reach = np.cumsum(weights)  # weights summed: a draw is one search
        one_way = csr_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
        self._known = csr_array(one_way + one_way.T)

    def __len__(self) -> int:
        return len(self._other)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A neighbour of each row drawn by weight, int64 [n]; -1 for rows that have none."""
        spun = rng.random(len(rows))
        if not len(self):
            return np.full(len(rows), -1, np.int64)
        first, last = self._start[rows], self._start[rows + 1]
        reach = np.concatenate([[0.0], self._reach])
        low, high = reach[first], reach[last]
        place = np.searchsorted(self._reach, low + spun * (high - low), side="right")
        place = np.clip(place, first, np.maximum(last - 1, first))  # a sum may be rounded over the edge
        return np.where(last > first, self._other[np.minimum(place, len(self) - 1)], -1)

    def together(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Which of the rows are each other's neighbours or the same, bool [len(first), len(second)]."""
        known = self._known[first][:, second].toarray()
        return np.asarray(known | (first[:, None] == second[None, :]))


def find_neighbours(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    data: ClipData,
    *,
    window_hours: float,
    half_life_days: float,
) -> Neighbours:
    """The neighbours among the catalogue's training pictures, of events before the validation part.

    Pictures held out for the figures of words and pictures are nobody's neighbours.
    """
    cuts = log_cuts(con, settings)
    query = {
        "actions": _engaging(settings),
        "until": cuts.valid if cuts else None,
        "window": window_hours * 3600.0,
        "half_life": half_life_days * 86400.0,
        "per_user": PER_USER,
        "per_item": PER_ITEM,
    }
    with _rows_known(con, data, data.splits["train"]):
        found = con.execute(load_sql("content_neighbours"), query).fetchnumpy()
    pairs = np.stack([found["item"], found["neighbour"]], axis=1).astype(np.int64)
    return Neighbours(pairs, np.asarray(found["weight"], np.float64), len(data.pairs))


@dataclass(frozen=True)
class LaterEngagements:
    """Pictures that users engaged with and what they engaged with next: users, seeds int64 [n], targets."""

    users: np.ndarray
    seeds: np.ndarray
    targets: list[np.ndarray]
    popular: np.ndarray  # rows by how many users engaged with them before, most first


def later_engagements(
    con: duckdb.DuckDBPyConnection, settings: Settings, data: ClipData, split: str, *, window_hours: float
) -> LaterEngagements | None:
    """What followed what in the 'valid' or 'test' part of the log; None where nothing did."""
    cuts = log_cuts(con, settings)
    if cuts is None:
        return None
    since, until = cuts.part(split)
    actions = _engaging(settings)
    query = {
        "actions": actions,
        "since": since,
        "until": until,
        "window": window_hours * 3600.0,
        "limit": SEEDS,
    }
    with _rows_known(con, data, np.arange(len(data.pairs))):
        rows = con.execute(load_sql("content_later"), query).fetchall()
        popular = con.execute(load_sql("content_popular"), {"actions": actions, "until": since}).fetchall()
    if not rows:
        return None
    users = np.unique([user for user, _, _ in rows], return_inverse=True)[1]
    seeds = np.array([seed for _, seed, _ in rows], np.int64)
    targets = [np.array(later, np.int64) for _, _, later in rows]
    return LaterEngagements(users, seeds, targets, np.array([row for row, _ in popular], np.int64))


def co_engagement_metrics(
    vectors: Mapping[str, np.ndarray], later: LaterEngagements, *, resamples: int, seed: int = 0
) -> dict[str, float]:
    """How many of the pictures that users engaged with next are among the nearest of the one before.

    `vectors`: unit vectors [pictures, dim] by a name put behind the figures' names ("" for none, "_before");
    pictures have the rows that `later` means. For every k: the mean share of an engagement's later pictures
    among the k nearest of all others, with the interval over resampled users (_low, _high); where "" and
    "_before" are given, the difference of the two, drawn alike; the same for the k most popular pictures
    before (_popular) and for chance.
    """
    size = len(next(iter(vectors.values())))
    draws = _draws(later.users, resamples, seed)
    figures: dict[str, float] = {
        "co_engagement_n": len(later.seeds),
        "co_engagement_users": int(later.users.max()) + 1,
    }
    means: dict[tuple[str, int], np.ndarray] = {}
    for name, matrix in vectors.items():
        nearest = _nearest(matrix, np.unique(later.seeds), max(KS))
        for k in KS:
            means[name, k] = _drawn_mean(_recall(nearest, later, k), later.users, draws)
    for k in KS:
        for name in vectors:
            figures |= _with_interval(f"co_engagement_recall_at_{k}{name}", means[name, k])
        if {"", "_before"} <= vectors.keys():
            gain = means["", k] - means["_before", k]
            figures |= _with_interval(f"co_engagement_gain_at_{k}", gain)
        popular = {int(item): later.popular[later.popular != item][:k] for item in np.unique(later.seeds)}
        figures[f"co_engagement_recall_at_{k}_popular"] = float(_recall(popular, later, k).mean())
        figures[f"co_engagement_recall_at_{k}_chance"] = min(1.0, k / max(1, size - 1))
    return figures


def _nearest(matrix: np.ndarray, rows: np.ndarray, k: int) -> dict[int, np.ndarray]:
    """The k nearest other rows of each of `rows`, best first."""
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        cosine = matrix[block] @ matrix.T
        cosine[np.arange(len(block)), block] = -np.inf
        best = np.sort(np.argpartition(-cosine, min(k, len(matrix) - 1) - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(cosine, best, axis=1), axis=1, kind="stable")
        ranked = np.take_along_axis(best, order, axis=1)[:, : len(matrix) - 1]
        found |= dict(zip(block.tolist(), ranked, strict=True))
    return found


def _recall(nearest: Mapping[int, np.ndarray], later: LaterEngagements, k: int) -> np.ndarray:
    hits = [
        np.isin(targets, nearest[int(seed)][:k]).mean()
        for seed, targets in zip(later.seeds, later.targets, strict=True)
    ]
    return np.array(hits, np.float64)


def _draws(users: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each user is taken, float64 [1 + resamples, users]; the first draw takes each once."""
    size = int(users.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(size, np.full(size, 1.0 / size), size=resamples)
    return np.concatenate([np.ones((1, size)), drawn.reshape(resamples, size)])


def _drawn_mean(values: np.ndarray, users: np.ndarray, draws: np.ndarray) -> np.ndarray:
    sums = np.bincount(users, weights=values)
    counts = np.bincount(users).astype(np.float64)
    mean: np.ndarray = (draws @ sums) / np.maximum(draws @ counts, 1e-12)
    return mean


def _with_interval(name: str, drawn: np.ndarray) -> dict[str, float]:
    figure = {name: float(drawn[0])}
    if len(drawn) > 2:
        low, high = np.quantile(drawn[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        figure |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return figure


def _engaging(settings: Settings) -> list[str]:
    return [action.name for action in settings.actions if action.positive]


@contextmanager
def _rows_known(con: duckdb.DuckDBPyConnection, data: ClipData, rows: np.ndarray) -> Iterator[None]:
    """The view content_rows while it lasts: which picture row an item is, of these rows only."""
    wanted = set(rows.tolist())
    items: list[tuple[Any, ...]] = [(*item, row) for item, row in data.items.items() if row in wanted]
    types, ids, numbers = zip(*items, strict=True) if items else ((), (), ())
    table = {
        "item_type": pa.array(types, pa.string()),
        "item_id": pa.array(ids, pa.string()),
        "number": pa.array(numbers, pa.int64()),
    }
    with lent(con, content_rows=pa.table(table)):
        yield
