"""The funnel stage: how well logged slates would be ordered, and what a request costs and leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.context import FIRST_POSITION, Evaluation
from adstool.evaluation.metrics import grouped_ndcg
from adstool.evaluation.replay import replay_requests

Array = NDArray[Any]
SLATE = 10  # NDCG@10
SLATES_A_REQUEST = 50  # slates scored for every request that is replayed: they cost less


def evaluate_funnel(evaluation: Evaluation) -> dict[str, Any]:
    """NDCG@10 of logged slates by final utility, and stage sizes and latencies of replayed requests.

    The gain of an item is the utility of what was observed on it, at least 0. The order by utility stands
    beside the order that was shown, popularity and, in a synthetic world, the true utility, on the same
    slates. The model scores every item as if it stood first, as serving does: the logged order cannot leak.
    """
    replayed = replay_requests(evaluation)
    return {**_slates(evaluation), **replayed}


def _slates(evaluation: Evaluation) -> dict[str, Any]:
    weights = evaluation.weights
    gains = np.maximum(np.nan_to_num(evaluation.labels) @ weights, 0.0)
    requests = np.asarray(evaluation.dataset.request[evaluation.test])
    rows, group = _choose(requests, gains, SLATES_A_REQUEST * evaluation.settings.evaluation.requests)
    result: dict[str, Any] = {"slates": len(np.unique(group)), "rows": len(rows), "intervals": {}}
    if not len(rows):
        return {**result, "ndcg@10": float("nan")}
    first = np.unique(group, return_index=True)[1]
    users = evaluation.resampler(evaluation.users[rows[first]])
    orders: dict[str, Array | None] = {
        "ndcg@10": evaluation.predict_worth(rows + evaluation.test.start, FIRST_POSITION) @ weights,
        "ndcg@10_logged": _logged(evaluation, rows),
        "ndcg@10_popularity": evaluation.popularity[rows] @ weights,
        "ndcg@10_truth": _true_utility(evaluation, rows),
    }
    for name, scores in orders.items():
        if scores is None:
            continue
        found = users.mean(grouped_ndcg(group, gains[rows], scores, SLATE))
        result[name], result["intervals"][name] = found.value, found.interval
    return result


def _choose(requests: Array, gains: Array, most: int) -> tuple[Array, Array]:
    """Rows of at most `most` requests whose order matters (a repeatable sample), and their numbers from 0.

    It matters when some items earned more than others; a log without requests, where every event is one of
    its own, has none such.
    """
    ids, number = np.unique(requests, return_inverse=True)
    least, greatest = np.full(len(ids), np.inf), np.full(len(ids), -np.inf)
    np.minimum.at(least, number, gains)
    np.maximum.at(greatest, number, gains)
    chosen = np.flatnonzero(greatest > least)
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:most])
    renumbered = np.full(len(ids), -1)
    renumbered[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(renumbered[number] >= 0)
    return rows, renumbered[number[rows]]


def _logged(evaluation: Evaluation, rows: Array) -> Array | None:
    """The order as it was shown; None when positions were not logged."""
    position = np.asarray(evaluation.dataset.position[evaluation.test])[rows]
    return None if (position <= 0).any() else -position.astype(np.float64)


def _true_utility(evaluation: Evaluation, rows: Array) -> Array | None:
    """Utility of the true probabilities; None when there is no truth of every action."""
    if any(head not in evaluation.true for head in evaluation.heads):
        return None
    true = np.stack([evaluation.true[head][rows] for head in evaluation.heads], axis=1)
    return None if np.isnan(true).any() else true @ evaluation.weights
