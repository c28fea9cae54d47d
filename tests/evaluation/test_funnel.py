"""Orders of logged slates, against scikit-learn's NDCG slate by slate."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from adstool.evaluation import funnel


def _by_hand(evaluation, scores: np.ndarray) -> tuple[float, int]:  # type: ignore[no-untyped-def]
    gains = np.maximum(np.nan_to_num(evaluation.labels) @ evaluation.weights, 0)
    requests = evaluation.dataset.request[evaluation.test]
    found = []
    for request in np.unique(requests):
        rows = requests == request
        if gains[rows].sum() > 0:
            found.append(ndcg_score(gains[rows][None], scores[rows][None], k=10))
    return float(np.mean(found)), len(found)


def test_slates_are_judged_as_scikit_learn_does(make_evaluation) -> None:  # type: ignore[no-untyped-def]
    evaluation = make_evaluation()
    stage = funnel._slates(evaluation)
    wanted, count = _by_hand(evaluation, evaluation.predictions @ evaluation.weights)
    assert stage["ndcg@10"] == pytest.approx(wanted)
    assert stage["slates"] == count
    assert stage["rows"] == 5 * count
    true = np.stack([evaluation.true["click"], evaluation.true["hide"]], axis=1)
    assert stage["ndcg@10_truth"] == pytest.approx(_by_hand(evaluation, true @ evaluation.weights)[0])
    shown = -evaluation.dataset.position[evaluation.test].astype(float)
    assert stage["ndcg@10_logged"] == pytest.approx(_by_hand(evaluation, shown)[0])
    assert stage["ndcg@10_truth"] > stage["ndcg@10"] > stage["ndcg@10_logged"]
    for name, (low, high) in stage["intervals"].items():
        assert low < stage[name] < high


def test_unknown_positions_and_unknown_truth_are_left_out(make_evaluation) -> None:  # type: ignore[no-untyped-def]
    evaluation = make_evaluation()
    evaluation.dataset.position[-1] = 0
    del evaluation.true["hide"]
    evaluation.labels[evaluation.dataset.request[evaluation.test] != 3] = 0
    stage = funnel._slates(evaluation)
    assert "ndcg@10_truth" not in stage
    assert stage["slates"] <= 1


def test_no_slate_with_a_gain_gives_no_figure(make_evaluation) -> None:  # type: ignore[no-untyped-def]
    evaluation = make_evaluation()
    evaluation.labels[:] = 0
    assert np.isnan(funnel._slates(evaluation)["ndcg@10"])


def test_a_sample_of_slates_keeps_whole_slates() -> None:
    requests = np.repeat(np.arange(50), 4)[::-1]
    gains = (np.arange(200) % 8 == 0).astype(float)  # every second slate
    rows, group = funnel._choose(requests, gains, 10)
    assert len(np.unique(group)) == 10
    assert (np.bincount(group) == 4).all()
    assert all(len(np.unique(requests[rows[group == g]])) == 1 for g in range(10))


def test_slates_without_a_choice_are_left_out() -> None:
    requests = np.array([7, 8, 8, 9, 9])  # one item; two that earned alike; a choice
    gains = np.array([1.0, 1.0, 1.0, 0.0, 1.0])
    rows, group = funnel._choose(requests, gains, 10)
    assert rows.tolist() == [3, 4]
    assert group.tolist() == [0, 0]
