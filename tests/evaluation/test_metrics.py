"""Ranking and calibration metrics against scikit-learn, scipy, brute force and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score, roc_auc_score

from adstool.evaluation import metrics


def _ragged(seed: int, groups: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(groups), random.integers(2, 15, size=groups))
    scores = random.normal(size=len(number))
    gains = random.integers(0, 4, size=len(number)).astype(float)
    order = random.permutation(len(number))
    return number[order], gains[order], np.round(scores, 0 if ties else 12)[order]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [3, 10])
def test_grouped_ndcg_is_that_of_scikit_learn(ties: bool, k: int) -> None:
    groups, gains, scores = _ragged(3, 40, ties)
    found = metrics.grouped_ndcg(groups, gains, scores, k)
    for group in range(40):
        rows = groups == group
        if gains[rows].sum() == 0:
            assert np.isnan(found[group])
        else:
            assert found[group] == pytest.approx(ndcg_score(gains[rows][None], scores[rows][None], k=k))


def test_ndcg_worked_by_hand() -> None:
    # The gain of 3 stands second: 3 / log2(3) of a possible 3 + 1 / log2(3).
    found = metrics.grouped_ndcg(np.zeros(2, int), np.array([1.0, 3.0]), np.array([0.9, 0.1]), 10)
    assert found[0] == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))


@pytest.mark.parametrize("ties", [False, True])
def test_grouped_auc_is_the_weighted_mean_of_scikit_learns(ties: bool) -> None:
    groups, gains, scores = _ragged(5, 60, ties)
    labels = (gains >= 2).astype(float)
    wanted, weights = [], []
    for group in range(60):
        rows = groups == group
        if 0 < labels[rows].sum() < rows.sum():
            wanted.append(roc_auc_score(labels[rows], scores[rows]))
            weights.append(rows.sum())
    value, count = metrics.grouped_auc(groups * 7, labels, scores)
    assert value == pytest.approx(np.average(wanted, weights=weights))
    assert count == len(wanted)


def test_grouped_auc_without_both_classes() -> None:
    value, count = metrics.grouped_auc(np.array([0, 0, 1]), np.array([1.0, 1.0, 0.0]), np.arange(3.0))
    assert np.isnan(value)
    assert count == 0


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_cut_against_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(3, 30))
    keep, slate = int(random.integers(1, n + 1)), int(random.integers(1, 6))
    scores, utility = random.normal(size=n), random.normal(size=n)
    found = metrics.cut(scores, utility, keep, slate)
    kept = sorted(range(n), key=lambda i: -scores[i])[:keep]
    worth = [max(one, 0.0) for one in utility]
    assert found.kept == pytest.approx(sum(worth[i] for i in kept))
    assert found.best == pytest.approx(sum(sorted(worth)[::-1][:keep]))
    assert found.slate_kept == pytest.approx(sum(sorted((worth[i] for i in kept), reverse=True)[:slate]))
    top = sorted(range(n), key=lambda i: -utility[i])[:slate]
    assert found.recall == pytest.approx(len(set(top) & set(kept)) / len(top))
    assert found.kept <= found.best + 1e-9


def test_recall_overlap_and_tau() -> None:
    found = np.array([4, 2, 9, 7])
    assert metrics.recall(found, np.array([2, 7, 5]), 2) == pytest.approx(1 / 3)
    assert metrics.recall(found, np.array([2, 7, 5]), 10) == pytest.approx(2 / 3)
    assert np.isnan(metrics.recall(found, np.array([], int), 2))
    assert metrics.overlap(found, np.array([2, 4, 1, 0]), 2) == 1.0
    assert metrics.overlap(found, np.array([2, 4, 1, 0]), 10) == 0.5
    first, second = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    assert metrics.kendall_tau(first, second) == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert metrics.kendall_tau(first, second) == pytest.approx(stats.kendalltau(first, second)[0])


def test_bins_hold_every_row_once_and_ties_stay_together() -> None:
    random = np.random.default_rng(0)
    p = np.round(random.beta(1, 20, size=5000), 2)
    y = (random.random(5000) < p).astype(float)
    bins = metrics.equal_mass_bins(y, p, 10)
    assert bins.rows.sum() == 5000
    assert all(len(np.unique(bins.number[p == value])) == 1 for value in np.unique(p))
    assert np.average(bins.observed, weights=bins.rows) == pytest.approx(y.mean())
    assert np.average(bins.predicted, weights=bins.rows) == pytest.approx(p.mean())


def test_calibration_error_worked_by_hand_and_of_true_rates() -> None:
    p = np.repeat([0.1, 0.5], 10)
    y = np.r_[np.ones(3), np.zeros(7), np.ones(5), np.zeros(5)]
    assert metrics.expected_calibration_error(y, p) == pytest.approx(0.1)  # .2 off on one half
    assert np.isnan(metrics.expected_calibration_error(np.zeros(0), np.zeros(0)))
    random = np.random.default_rng(1)
    true = random.beta(2, 20, size=200_000)
    drawn = (random.random(200_000) < true).astype(float)
    assert metrics.expected_calibration_error(drawn, true) < 0.004
    assert metrics.expected_calibration_error(drawn, np.minimum(1.5 * true, 1)) > 0.03


def test_wilson_is_that_of_scipy() -> None:
    low, high = metrics.wilson(np.array([3.0]), np.array([40.0]))
    wanted = stats.binomtest(3, 40).proportion_ci(0.95, method="wilson")
    assert low[0] == pytest.approx(wanted.low, abs=1e-4)
    assert high[0] == pytest.approx(wanted.high, abs=1e-4)
