"""Metrics against scikit-learn and numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sk_log_loss
from sklearn.metrics import roc_auc_score

from adstool.training import metrics


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_auc_is_sklearns_with_ties(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([score / 7.0 for _, score in rows])
    if labels.min() == labels.max():
        assert math.isnan(metrics.auc(labels, scores))
    else:
        assert metrics.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_log_loss_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = (rng.random(500) < p).astype(float)
    assert metrics.log_loss(y, p) == pytest.approx(sk_log_loss(y, p))
    assert np.isfinite(metrics.log_loss(np.array([1.0]), np.array([0.0])))


def test_normalized_entropy_of_the_base_rate_is_one() -> None:
    y = np.array([1.0, 0, 0, 0])
    assert metrics.normalized_entropy(y, np.full(4, 0.25)) == pytest.approx(1.0)
    # By hand: log loss of (.7, .1, .1, .1) over the entropy of 1/4.
    loss = -(math.log(0.7) + 3 * math.log(0.9)) / 4
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert metrics.normalized_entropy(y, np.array([0.7, 0.1, 0.1, 0.1])) == pytest.approx(loss / entropy)
    assert math.isnan(metrics.normalized_entropy(np.zeros(3), np.full(3, 0.1)))


def test_calibration_ratio() -> None:
    assert metrics.calibration_ratio(np.array([1.0, 0, 1]), np.array([0.5, 0.5, 0.5])) == pytest.approx(0.75)
    assert math.isnan(metrics.calibration_ratio(np.zeros(2), np.ones(2)))


def test_heads_rest_on_their_known_labels_only() -> None:
    labels = np.array([[1, np.nan], [0, 1], [1, 0], [0, np.nan]])
    p = np.array([[0.9, 0.5], [0.1, 0.4], [0.8, 0.3], [0.2, 0.9]])
    result = metrics.head_metrics(labels, p, ("click", "save"))
    assert result["click"]["auc"] == 1.0
    assert result["click"]["rows"] == 4
    assert result["save"] == {
        "auc": 1.0,
        "log_loss": pytest.approx(-(math.log(0.4) + math.log(0.7)) / 2),
        "ne": pytest.approx(-(math.log(0.4) + math.log(0.7)) / 2 / math.log(2)),
        "calibration": pytest.approx(0.7),
        "rows": 2,
        "positives": 1,
    }


def test_ranks_count_ties_half() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 5.0, 5.0]])
    assert metrics.ranks_of(scores, np.array([2, 0, 0])).tolist() == [1, 1, 2]
    assert metrics.recall_at(np.array([0, 1, 2, 9]), 2) == 0.5


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(all="raise"):
        values = metrics.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    assert values.tolist() == [0.0, 0.5, 1.0]
