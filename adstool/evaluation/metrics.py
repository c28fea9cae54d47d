"""Metrics of rankings and of calibration; those of plain probabilities are in adstool.training.metrics.

Grouped metrics take rows of many requests at once, with a group number a row, and work on all of them in one
sort instead of a loop over requests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[Any]


class Bins(NamedTuple):
    """Rows of about equal number by predicted probability: arrays of one entry a bin."""

    number: Array  # int64 [n], the bin of every row
    rows: Array
    predicted: Array  # mean predicted probability
    observed: Array  # share of positives


def equal_mass_bins(labels: Array, probabilities: Array, bins: int = 15) -> Bins:
    """Rows cut into at most `bins` bins of equal size by probability; rows of one probability share a bin.

    labels [n] in {0, 1}, probabilities [n]. Fewer bins come back when ties leave fewer cuts.
    """
    if len(labels) == 0:
        empty = np.zeros(0)
        return Bins(np.zeros(0, np.int64), np.zeros(0, np.int64), empty, empty)
    inner = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1]))
    raw = np.searchsorted(inner, probabilities, side="left")
    _, number = np.unique(raw, return_inverse=True)
    rows = np.bincount(number)
    predicted = np.bincount(number, weights=probabilities.astype(np.float64)) / rows
    observed = np.bincount(number, weights=labels.astype(np.float64)) / rows
    return Bins(number, rows, predicted, observed)


def expected_calibration_error(labels: Array, probabilities: Array, bins: int = 15) -> float:
    """Mean distance of predicted and observed rate over bins of equal size (after Naeini et al. 2015).

    nan when there is no row.
    """
    found = equal_mass_bins(labels, probabilities, bins)
    if len(labels) == 0:
        return float("nan")
    return float(np.average(np.abs(found.predicted - found.observed), weights=found.rows))


def wilson(positives: Array, rows: Array, z: float = 1.96) -> tuple[Array, Array]:
    """The Wilson score interval of a rate: (low, high), each shaped like the inputs."""
    rate = positives / rows
    middle = (rate + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _in_group_rank(groups: Array, scores: Array) -> tuple[Array, Array]:
    """The order of rows by group then falling score, and the rank (0 first) of each row in that order."""
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(order)])
    return order, np.arange(len(order)) - np.repeat(starts, lengths)


def _discounted(groups: Array, gains: Array, scores: Array, k: int, count: int) -> Array:
    """DCG@k by group; rows of one score get the mean discount of the places they fill."""
    order, rank = _in_group_rank(groups, scores)
    discount = np.where(rank < k, 1.0 / np.log2(rank + 2.0), 0.0)
    g, s, gain = groups[order], scores[order], gains[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])])
    sizes = np.diff(np.r_[starts, len(order)])
    block = np.add.reduceat(discount, starts) * np.add.reduceat(gain, starts) / sizes
    return np.bincount(g[starts], weights=block, minlength=count)


def grouped_ndcg(groups: Array, gains: Array, scores: Array, k: int = 10) -> Array:
    """NDCG@k of every group, float64 [groups]: DCG by score over the best DCG, linear gains, ties averaged.

    groups [n] numbers from 0, gains [n] at least 0, scores [n]. nan for a group without any gain
    (Järvelin & Kekäläinen 2002; the treatment of ties is that of McSherry & Najork 2008).
    """
    if len(groups) == 0:
        return np.zeros(0)
    count = int(groups.max()) + 1
    best = _discounted(groups, gains, gains, k, count)
    got = _discounted(groups, gains, scores, k, count)
    return np.asarray(np.divide(got, best, out=np.full(count, np.nan), where=best > 0))


def grouped_auc(groups: Array, labels: Array, scores: Array) -> tuple[float, int]:
    """AUC within groups, averaged with their rows as weights, and the number of groups with both classes.

    This is the GAUC of ranking papers (Zhu et al. 2017). (nan, 0) when no group has both classes.
    """
    if len(groups) == 0:
        return float("nan"), 0
    _, number = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, number))
    g, s, y = number[order], scores[order], (labels[order] > 0.5).astype(np.float64)
    starts = np.flatnonzero(np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])])
    sizes = np.diff(np.r_[starts, len(order)])
    first = np.flatnonzero(np.r_[True, g[1:] != g[:-1]])
    lengths = np.diff(np.r_[first, len(order)])
    rank = np.arange(len(order)) - np.repeat(first, lengths)
    # Rows of one score share the mean of the ranks (from 1) that they fill.
    shared = np.repeat(rank[starts] + (sizes + 1) / 2.0, sizes)
    positives = np.bincount(g, weights=y)
    negatives = lengths - positives
    total = np.bincount(g, weights=shared * y)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan"), 0
    pairs = positives[both] * negatives[both]
    by_group = (total[both] - positives[both] * (positives[both] + 1) / 2.0) / pairs
    return float(np.average(by_group, weights=lengths[both])), int(both.sum())


def recall(found: Array, wanted: Array, k: int) -> float:
    """The share of `wanted` (distinct) among the first k of `found`; nan when nothing is wanted."""
    if len(wanted) == 0:
        return float("nan")
    return float(np.isin(wanted, found[:k]).mean())


def overlap(first: Array, second: Array, k: int) -> float:
    """How much of the first k of one ranking is in the first k of another, over the smaller of k and both."""
    size = min(k, len(first), len(second))
    return float(len(np.intersect1d(first[:k], second[:k]))) / size if size else float("nan")


def kendall_tau(first: Array, second: Array) -> float:
    """Kendall's τ-b of two scorings of the same items; nan when one of them is constant."""
    return float(stats.kendalltau(first, second).statistic)


class Kept(NamedTuple):
    """What a cut to `kept` items keeps of the best that could have been kept."""

    kept: float  # Σ utility of the items kept
    best: float  # Σ utility of the best set of the same size
    slate_kept: float  # Σ utility of the best slate made of the items kept
    slate_best: float  # Σ utility of the best slate of all items
    recall: float  # share of the best slate that was kept


def cut(order_scores: Array, utility: Array, keep: int, slate: int) -> Kept:
    """Judge the cut to the first `keep` items by `order_scores` against the utilities of all items.

    order_scores [n], utility [n]. 1 − Σ kept / Σ best over requests is the utility regret. An item worth less
    than nothing counts as nothing: what was kept need not be shown.
    """
    kept = np.argsort(-order_scores, kind="stable")[:keep]
    best = np.argsort(-utility, kind="stable")
    worth = np.maximum(utility, 0.0)
    inside = np.sort(worth[kept])[::-1]
    top = best[:slate]
    return Kept(
        float(inside.sum()),
        float(worth[best[:keep]].sum()),
        float(inside[:slate].sum()),
        float(worth[top].sum()),
        float(np.isin(top, kept).mean()),
    )
