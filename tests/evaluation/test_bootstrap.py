"""The user bootstrap against copies of rows, known sampling errors and a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from adstool.evaluation.bootstrap import Resampler, estimate


def _log(seed: int, users: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    user = random.integers(0, users, size=users * 12) * 11
    scores = np.round(random.normal(size=len(user)), 1)
    labels = (random.random(len(user)) < 1 / (1 + np.exp(1 - scores))).astype(float)
    return user, labels, scores


def test_draws_are_those_of_repeated_rows() -> None:
    user, labels, scores = _log(0)
    resampler = Resampler(user, 8, seed=3)
    found = resampler.auc(labels, scores)
    total, rows = resampler.sums(labels, np.ones(len(labels)))
    for draw in range(9):
        times = resampler.counts[draw][resampler.user].astype(int)
        assert found[draw] == pytest.approx(roc_auc_score(np.repeat(labels, times), np.repeat(scores, times)))
        assert total[draw] == pytest.approx(labels @ times)
        assert rows[draw] == times.sum()
    assert (resampler.counts.sum(axis=1) == len(resampler.names)).all()


def test_the_first_draw_is_the_data_and_a_seed_repeats() -> None:
    user, labels, scores = _log(1)
    one, other = Resampler(user, 20, seed=5), Resampler(user, 20, seed=5)
    assert one.auc(labels, scores)[0] == pytest.approx(roc_auc_score(labels, scores))
    assert (one.auc(labels, scores) == other.auc(labels, scores)).all()
    assert not np.array_equal(one.counts, Resampler(user, 20, seed=6).counts)


def test_width_is_the_sampling_error_of_users_not_rows() -> None:
    # Every user has 50 equal rows, so the error of the mean is that of 400 draws, not of 20,000.
    random = np.random.default_rng(2)
    value = random.normal(size=400)
    user = np.repeat(np.arange(400), 50)
    found = Resampler(user, 2000).mean(np.repeat(value, 50))
    wanted = 2 * 1.96 * value.std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(wanted, rel=0.08)
    assert found.low < found.value < found.high


def test_coverage_of_a_known_mean() -> None:
    random = np.random.default_rng(4)
    inside = 0
    for trial in range(200):
        effect = random.normal(size=80)
        user = np.repeat(np.arange(80), 5)
        found = Resampler(user, 200, seed=trial).mean(effect[user] + random.normal(size=400))
        inside += found.low <= 0.0 <= found.high
    assert 176 <= inside <= 199  # 95 % of 200, give or take four standard errors


def test_mean_leaves_unknown_values_out() -> None:
    found = Resampler(np.arange(4), 10).mean(np.array([1.0, np.nan, 3.0, np.nan]))
    assert found.value == 2.0


def test_one_class_gives_no_figure() -> None:
    resampler = Resampler(np.arange(5), 10)
    assert np.isnan(resampler.auc(np.ones(5), np.arange(5.0))).all()
    found = estimate(resampler.auc(np.ones(5), np.arange(5.0)))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    user, labels, scores = _log(7, users=300)
    resampler = Resampler(user, 200)
    good = resampler.auc(labels, scores)
    worse = resampler.auc(labels, scores + np.random.default_rng(0).normal(size=len(scores)) * 0.3)
    gain = estimate(good - worse)
    assert gain.high - gain.low < estimate(good).high - estimate(good).low
    assert gain.low > 0
