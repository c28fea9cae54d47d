"""The engagement stage: how well the heavy ranker's probabilities order, and how true they are, by head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.bootstrap import Estimate, Resampler, estimate
from adstool.evaluation.context import Evaluation
from adstool.evaluation.metrics import equal_mass_bins, expected_calibration_error, grouped_auc, wilson
from adstool.training.metrics import EPSILON

Array = NDArray[Any]
DAY = 86_400_000_000  # microseconds
TOP_VALUES = 5  # slices by category or vertical: the values with most rows
LEAST_ROWS = 50  # a smaller slice says nothing


def evaluate_engagement(evaluation: Evaluation) -> dict[str, Any]:
    """AUC, log loss, normalized entropy and calibration of every head on the test split, whole and by slice.

    Beside the model stand the item's own rate before the test (popularity) and, in a synthetic world, the
    true probabilities, on the same rows and drawn alike.
    """
    run = evaluation.engagement_run  # first: a missing model is told before the examples are built
    labels, predicted = evaluation.labels, evaluation.predictions
    requests = np.asarray(evaluation.dataset.request[evaluation.test])
    heads = {}
    for column, name in enumerate(evaluation.heads):
        known = ~np.isnan(labels[:, column])
        y, p = labels[known, column].astype(np.float64), predicted[known, column]
        users = evaluation.resampler(evaluation.users[known])
        figures, draws = head_figures(users, y, p)
        within, groups = grouped_auc(requests[known], y, p)
        figures["auc_within_request"], figures["requests_with_both"] = within, groups
        figures["reliability"] = reliability(y, p)
        popular = evaluation.popularity[known, column]
        figures["popularity"], other = head_figures(users, y, popular)
        figures["auc_over_popularity"] = plain(estimate(draws - other))
        true = evaluation.true.get(name)
        if true is not None:
            figures["truth"] = _against_truth(users, y, p, true[known])
        heads[name] = figures
    return {
        "run_id": run.name,
        "rows": len(labels),
        "users": len(np.unique(evaluation.users)),
        "heads": heads,
        "slices": _slices(evaluation),
    }


def plain(found: Estimate) -> dict[str, Any]:
    """An estimate as results hold it: its value and its interval."""
    return {"value": found.value, "interval": found.interval}


def head_figures(users: Resampler, labels: Array, predicted: Array) -> tuple[dict[str, Any], Array]:
    """The metrics of one column of probabilities with their intervals, and the draws of its AUC."""
    p = np.clip(predicted.astype(np.float64), EPSILON, 1 - EPSILON)
    loss = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    draws = users.auc(labels, p) if len(p) else np.full(1, np.nan)
    rows = np.ones(len(p))
    found = {
        "auc": estimate(draws),
        "log_loss": users.ratio(loss, rows),
        "ne": users.of_sums(_entropy_ratio, loss, labels, rows),
        "calibration": users.ratio(p, labels),
    }
    figures: dict[str, Any] = {name: one.value for name, one in found.items()}
    figures["ece"] = expected_calibration_error(labels, p)
    figures["rows"], figures["positives"] = len(p), int(labels.sum())
    figures["intervals"] = {name: one.interval for name, one in found.items()}
    return figures, draws


def _entropy_ratio(loss: Array, positives: Array, rows: Array) -> Array:
    """Normalized entropy from sums: the loss over that of always predicting the rate of the same rows."""
    rate = positives / rows
    return np.asarray(loss / (-rows * (rate * np.log(rate) + (1 - rate) * np.log1p(-rate))))


def _against_truth(users: Resampler, labels: Array, predicted: Array, true: Array) -> dict[str, Any]:
    """The floor on the rows whose true probability is known, and how far the model is above it there."""
    known = np.isfinite(true)
    if not known.any():
        return {"rows": 0, "positives": 0}
    some = users if known.all() else Resampler(users.user[known], users.resamples, users.seed)
    figures, _ = head_figures(some, labels[known], true[known])
    p = np.clip(predicted[known].astype(np.float64), EPSILON, 1 - EPSILON)
    t = true[known]
    # Expected under the true probabilities, so without the noise of the labels that were drawn.
    excess = t * np.log(t / p) + (1 - t) * np.log((1 - t) / (1 - p))
    figures["excess_log_loss"] = float(np.mean(excess))
    figures["calibration_of_model"] = float(p.sum() / t.sum())
    return figures


def reliability(labels: Array, predicted: Array, bins: int = 12) -> list[dict[str, float]]:
    """Predicted and observed rate by bin of equal size, with the Wilson interval of the observed one."""
    found = equal_mass_bins(labels, predicted, bins)
    low, high = wilson(found.observed * found.rows, found.rows)
    return [
        {"predicted": float(a), "observed": float(b), "low": float(c), "high": float(d), "rows": int(n)}
        for a, b, c, d, n in zip(found.predicted, found.observed, low, high, found.rows, strict=True)
    ]


def slices_of(evaluation: Evaluation) -> dict[str, Array]:
    """Named subsets of the test split, bool [n] each: surface, age of item and user, largest categories."""
    dataset, test = evaluation.dataset, evaluation.test
    found: dict[str, Array] = {}
    surface = np.asarray(dataset.surface[test])
    for code, name in enumerate(dataset.surfaces):
        found[f"surface={name}"] = surface == code
    items = np.asarray(dataset.item_row)
    ts = np.asarray(dataset.ts)
    first = np.full(len(dataset.items), np.iinfo(np.int64).max)
    np.minimum.at(first, items, ts)
    shown = items[test]
    created = dataset.items.times("created_at")[shown]
    found["item created in the last day"] = (created <= ts[test]) & (created > ts[test] - DAY)
    found["item first shown in the last day"] = ts[test] - first[shown] < DAY
    found["item never shown in training"] = first[shown] >= evaluation.test_start
    before = np.unique(np.asarray(dataset.user[: test.start]))
    found["user never seen in training"] = ~np.isin(evaluation.users, before)
    for column in ("category", "vertical"):
        codes, names = dataset.items.numbered(column)
        of_row = codes[shown]
        counted = np.bincount(of_row[of_row >= 0], minlength=len(names))
        for code in np.argsort(-counted, kind="stable")[:TOP_VALUES]:
            found[f"{column}={names[code]}"] = of_row == code
    return {name: rows for name, rows in found.items() if rows.sum() >= LEAST_ROWS}


def _slices(evaluation: Evaluation) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, inside in slices_of(evaluation).items():
        heads = {}
        for column, head in enumerate(evaluation.heads):
            rows = inside & ~np.isnan(evaluation.labels[:, column])
            if not rows.any():
                continue
            y = evaluation.labels[rows, column].astype(np.float64)
            users = evaluation.resampler(evaluation.users[rows])
            heads[head], _ = head_figures(users, y, evaluation.predictions[rows, column])
        result[name] = {"rows": int(inside.sum()), "heads": heads}
    return result
