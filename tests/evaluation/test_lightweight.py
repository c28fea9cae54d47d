"""Alignment of two rankers, worked by hand and against a perfect and a blind ranker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adstool.evaluation.lightweight import Judged, by_part, judge, kept_of


def _scored(
    seed: int, noise: float, requests: int = 30, items: int = 80
) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    worth = [random.exponential(size=items) for _ in range(requests)]
    return [(one + noise * random.normal(size=items), one) for one in worth]


def test_regret_worked_by_hand(make_evaluation: Any) -> None:
    light = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    worth = np.array([1.0, 0.0, 8.0, 4.0, 3.0])
    stage = judge([(light, worth)], most=2, share=0.4, evaluation=make_evaluation())
    assert stage["kept"] == 2  # items 0 and 1 are kept, 2 and 3 would have been best
    assert stage["utility_regret"] == pytest.approx(1 - 1 / 12)
    assert stage["slate_regret"] == pytest.approx(1 - 1 / 16)
    assert stage["recall"] == pytest.approx(2 / 5)  # all five are among the heavy ranker's ten best
    assert stage["kendall_tau"] == pytest.approx((4 - 6) / 10)


def test_parts_of_the_regret_worked_by_hand(make_evaluation: Any) -> None:
    light, worth = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.0, 8.0, 4.0, 3.0])
    members = {"new": np.array([True, False, False, True, True])}
    one = Judged(light, worth, ("surface=home",), np.array([0, 0, 1, 1, 0]), members)
    found = by_part([one] * 60, ("clip", "fresh"), most=3, share=0.6, evaluation=make_evaluation())
    # Kept are 0, 1 and 2; worth keeping were 2, 3 and 4.
    assert found["sources"]["fresh"]["utility_regret"] == pytest.approx(1 - 8 / 12)
    assert found["sources"]["clip"]["utility_regret"] == pytest.approx(1.0)
    assert found["sources"]["clip"]["recall"] == pytest.approx(2 / 3)  # of the heavy ranker's first ten
    assert found["sources"]["clip"]["kendall_tau"] == pytest.approx((1 - 2) / 3)
    assert found["slices"]["new"]["best"] == 120
    assert found["slices"]["new"]["utility_regret"] == pytest.approx(1.0)
    assert found["slices"]["new"]["recall"] == pytest.approx(1 / 3)
    assert found["slices"]["surface=home"]["requests"] == 60
    assert found["slices"]["surface=home"]["utility_regret"] == pytest.approx(1 - 9 / 15)


def test_a_perfect_ranker_has_no_regret_and_a_blind_one_much(make_evaluation: Any) -> None:
    evaluation = make_evaluation()
    perfect = judge(_scored(0, 0.0), 8, 0.1, evaluation)
    noisy = judge(_scored(0, 0.5), 8, 0.1, evaluation)
    blind = judge(_scored(0, 1e6), 8, 0.1, evaluation)
    assert perfect["utility_regret"] == pytest.approx(0.0)
    assert perfect["kendall_tau"] == pytest.approx(1.0)
    assert perfect["recall"] == pytest.approx(0.8)  # eight places for ten
    assert 0 < noisy["utility_regret"] < blind["utility_regret"]
    assert abs(blind["kendall_tau"]) < 0.1
    for stage in (noisy, blind):
        for name, (low, high) in stage["intervals"].items():
            assert low <= stage[name] <= high
    assert noisy["curve"][-1] == {"share": 1.0, "recall": 1.0, "utility_regret": pytest.approx(0.0)}
    recalls = [point["recall"] for point in noisy["curve"]]
    assert recalls == sorted(recalls)


def test_regret_is_unknown_where_nothing_is_worth_showing(make_evaluation: Any) -> None:
    light = np.arange(5.0)
    stage = judge([(light, -1.0 - light)], 2, 0.4, make_evaluation())
    assert np.isnan(stage["utility_regret"])
    # What is worth less than nothing need not be shown, so keeping it costs nothing but its place.
    stage = judge([(light, np.array([2.0, 0.0, 0.0, 1.0, -5.0]))], 2, 0.4, make_evaluation())
    assert stage["utility_regret"] == pytest.approx(1 - 1 / 3)


def test_no_request_gives_no_figure(make_evaluation: Any) -> None:
    stage = judge([], 2, 0.4, make_evaluation())
    assert np.isnan(stage["recall"])
    assert stage["kept"] == 0


@pytest.mark.parametrize(
    ("candidates", "kept"), [(2000, 200), (5000, 200), (187, 19), (3, 1), (1, 1), (100, 10)]
)
def test_a_small_catalogue_is_cut_by_the_same_share(candidates: int, kept: int) -> None:
    assert kept_of(candidates, most=200, share=0.1) == kept
