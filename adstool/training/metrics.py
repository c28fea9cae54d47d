"""Metrics of predicted probabilities, in numpy: AUC, log loss, normalized entropy, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
EPSILON = 1e-7  # probabilities are kept this far from 0 and 1 in logarithms


def auc(labels: Floats, scores: Floats) -> float:
    """The chance that a random positive scores above a random negative, ties counting half.

    labels [n] in {0, 1}, scores [n]. The Mann-Whitney statistic; nan when only one class is present.
    """
    positive = labels > 0.5
    positives = int(positive.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # Rows of one score share their mean rank.
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(ordered)]
    ranks = np.repeat((starts + ends + 1) / 2.0, ends - starts)
    total = float(ranks[positive[order]].sum())
    return (total - positives * (positives + 1) / 2.0) / (positives * negatives)


def log_loss(labels: Floats, probabilities: Floats) -> float:
    """The mean of -y ln p - (1 - y) ln(1 - p); labels [n] in [0, 1], probabilities [n]. nan when empty."""
    if len(labels) == 0:
        return float("nan")
    p = np.clip(probabilities.astype(np.float64), EPSILON, 1.0 - EPSILON)
    return float(-np.mean(labels * np.log(p) + (1.0 - labels) * np.log1p(-p)))


def normalized_entropy(labels: Floats, probabilities: Floats) -> float:
    """Log loss over the log loss of always predicting the base rate of these rows (He et al. 2014, eq. 1).

    Below 1 is better than the base rate; nan when only one class is present.
    """
    rate = float(np.mean(labels)) if len(labels) else 0.0
    if rate <= 0.0 or rate >= 1.0:
        return float("nan")
    return float(log_loss(labels, probabilities) / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def calibration_ratio(labels: Floats, probabilities: Floats) -> float:
    """Predicted over observed positives; 1 is calibrated, nan without any positive."""
    observed = float(labels.sum())
    return float(probabilities.sum(dtype=np.float64)) / observed if observed > 0 else float("nan")


def amount_metrics(amounts: Floats, expected: Floats) -> dict[str, Any]:
    """How well expected amounts [n] meet those logged [n] (nan: not known), zeros of what did not happen
    included.

    ratio: expected over logged, 1 is calibrated. mean: of those logged. error: the mean absolute error, and
    error_of_mean, what always expecting the mean gives. gini: the normalized Gini of the order, 1 for the
    order of the amounts themselves and 0 for none; it is 2 AUC - 1 where every amount is the same.
    """
    known = ~np.isnan(amounts)
    y, e = amounts[known].astype(np.float64), expected[known].astype(np.float64)
    total, mean = float(y.sum()), float(y.mean()) if len(y) else float("nan")
    best = _gini(y, y)
    return {
        "ratio": float(e.sum()) / total if total > 0 else float("nan"),
        "mean": mean,
        "error": float(np.abs(y - e).mean()) if len(y) else float("nan"),
        "error_of_mean": float(np.abs(y - mean).mean()) if len(y) else float("nan"),
        "gini": _gini(y, e) / best if best else float("nan"),
        "rows": len(y),
        "happened": int((y > 0).sum()),
    }


def _gini(amounts: Floats, scores: Floats) -> float:
    """The Gini coefficient of amounts in the order of scores, rows of one score sharing their amounts."""
    if len(amounts) == 0 or amounts.sum() <= 0:
        return 0.0
    _, group = np.unique(-scores, return_inverse=True)
    rows = np.bincount(group)
    shared = np.bincount(group, weights=amounts) / amounts.sum()
    reached = np.cumsum(shared)
    area = float(np.sum(rows * (reached - shared / 2.0)) / len(amounts))
    return 2.0 * area - 1.0


def head_metrics(labels: Floats, probabilities: Floats, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """All of the above for every head, over the rows whose label is known.

    labels [n, A] with nan where masked, probabilities [n, A]; each head says how many rows and positives it
    rests on.
    """
    result: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(names):
        known = ~np.isnan(labels[:, column])
        y = labels[known, column]
        p = probabilities[known, column]
        result[name] = {
            "auc": auc(y, p),
            "log_loss": log_loss(y, p),
            "ne": normalized_entropy(y, p),
            "calibration": calibration_ratio(y, p),
            "rows": int(known.sum()),
            "positives": int(y.sum()),
        }
    return result


def recall_at(ranks: NDArray[np.integer[Any]], k: int) -> float:
    """The share of wanted items among the first k, from their ranks (0 is first); nan when empty."""
    return float(np.mean(ranks < k)) if len(ranks) else float("nan")


def ranks_of(scores: Floats, wanted: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The rank of column wanted[i] in row i of scores [n, items]: 0 is best, ties count half their number."""
    own = scores[np.arange(len(scores)), wanted][:, None]
    above = (scores > own).sum(axis=1)
    level = (scores == own).sum(axis=1) - 1
    return np.asarray(above + level // 2, dtype=np.int64)


def sigmoid(logits: Floats) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))
