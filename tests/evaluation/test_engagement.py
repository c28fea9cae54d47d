"""The engagement stage on hand-made examples, against scikit-learn and direct computation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from adstool.evaluation.context import PRIOR_IMPRESSIONS
from adstool.evaluation.engagement import evaluate_engagement, reliability, slices_of

HOUR = 3_600_000_000  # microseconds


@pytest.fixture(scope="module")
def evaluation(make_evaluation):  # type: ignore[no-untyped-def]
    return make_evaluation()


@pytest.fixture(scope="module")
def stage(evaluation):  # type: ignore[no-untyped-def]
    return evaluate_engagement(evaluation)


@pytest.mark.parametrize(("column", "name"), [(0, "click"), (1, "hide")])
def test_figures_are_those_of_scikit_learn(evaluation, stage, column: int, name: str) -> None:  # type: ignore[no-untyped-def]
    known = ~np.isnan(evaluation.labels[:, column])
    y, p = evaluation.labels[known, column], evaluation.predictions[known, column]
    head = stage["heads"][name]
    assert head["auc"] == pytest.approx(roc_auc_score(y, p))
    assert head["log_loss"] == pytest.approx(log_loss(y, p), rel=1e-6)
    assert head["ne"] == pytest.approx(log_loss(y, p) / log_loss(y, np.full(len(y), y.mean())), rel=1e-6)
    assert head["calibration"] == pytest.approx(p.sum() / y.sum())
    assert head["rows"] == known.sum()
    assert head["positives"] == y.sum()
    for metric, (low, high) in head["intervals"].items():
        assert low < head[metric] < high
    assert known.all() == (name == "click")  # masked labels are left out, not taken for none


def test_popularity_knows_only_what_was_before_the_test(evaluation, stage) -> None:  # type: ignore[no-untyped-def]
    dataset, start = evaluation.dataset, evaluation.test.start
    before = dataset.labels[:start, 0]
    base = (before.sum() + 0.5) / (start + 1.0)
    for row in (0, 11, 7):
        item = dataset.item_row[start + row]
        shown = before[dataset.item_row[:start] == item]
        wanted = (shown.sum() + PRIOR_IMPRESSIONS * base) / (len(shown) + PRIOR_IMPRESSIONS)
        assert evaluation.popularity[row, 0] == pytest.approx(wanted)
    assert dataset.item_row[start + 7] == 19  # never shown before: the base rate
    assert evaluation.popularity[7, 0] == pytest.approx(base)
    gain = stage["heads"]["click"]["auc_over_popularity"]
    both = stage["heads"]["click"]["auc"] - stage["heads"]["click"]["popularity"]["auc"]
    assert gain["value"] == pytest.approx(both)
    assert gain["interval"][0] > 0


def test_the_truth_is_a_floor(evaluation, stage) -> None:  # type: ignore[no-untyped-def]
    head = stage["heads"]["click"]
    assert head["truth"]["ne"] < head["ne"] < head["popularity"]["ne"]
    assert head["truth"]["auc"] > head["auc"]
    t, p = evaluation.true["click"], evaluation.predictions[:, 0]
    excess = np.mean(t * np.log(t / p) + (1 - t) * np.log((1 - t) / (1 - p)))
    assert head["truth"]["excess_log_loss"] == pytest.approx(excess)
    assert excess > 0


def test_a_partly_known_truth_says_how_many_rows_it_rests_on(make_evaluation) -> None:  # type: ignore[no-untyped-def]
    evaluation = make_evaluation()
    evaluation.true["click"][::2] = np.nan
    found = evaluate_engagement(evaluation)["heads"]["click"]["truth"]
    y, t = evaluation.labels[1::2, 0], evaluation.true["click"][1::2]
    assert found["rows"] == len(t)
    assert found["auc"] == pytest.approx(roc_auc_score(y, t))


def test_slices_hold_the_rows_they_name(evaluation, stage) -> None:  # type: ignore[no-untyped-def]
    dataset, start = evaluation.dataset, evaluation.test.start
    slices = slices_of(evaluation)
    items = dataset.item_row[start:]
    assert (slices["surface=home"] == (dataset.surface[start:] == 0)).all()
    assert "user never seen in training" not in slices  # 25 rows say nothing
    assert "item never shown in training" not in slices  # 20 rows
    shoes = np.isin(items, np.flatnonzero(np.array(dataset.items.category) == "shoes"))
    assert (slices["category=shoes"] == shoes).all()
    found = stage["slices"]["category=shoes"]
    assert found["rows"] == shoes.sum()
    y, p = evaluation.labels[shoes, 0], evaluation.predictions[shoes, 0]
    assert found["heads"]["click"]["auc"] == pytest.approx(roc_auc_score(y, p))


def test_new_items_and_users_are_slices_when_there_are_enough(make_evaluation) -> None:  # type: ignore[no-untyped-def]
    evaluation = make_evaluation(rows=20_000)
    evaluation.dataset.user[evaluation.test.start : evaluation.test.start + 60] = 39
    evaluation.dataset.ts //= 20  # a slate every three minutes: the test split lasts 40 hours
    middle = evaluation.test_start + 5 * HOUR
    evaluation.dataset.items.created_at[3] = middle  # all others: nobody knows when
    slices = slices_of(evaluation)
    items = evaluation.dataset.item_row[evaluation.test]
    assert (slices["item never shown in training"] == (items == 19)).all()
    first_day = slices["item first shown in the last day"]
    assert first_day.sum() < (items == 19).sum()
    assert (items[first_day] == 19).all()
    assert (slices["user never seen in training"] == (evaluation.users == 39)).all()
    ts = evaluation.dataset.ts[evaluation.test]
    its_day = (items == 3) & (ts >= middle) & (ts < middle + 24 * HOUR)
    assert 50 <= its_day.sum() < (items == 3).sum()
    assert (slices["item created in the last day"] == its_day).all()


def test_reliability_covers_every_row(evaluation) -> None:  # type: ignore[no-untyped-def]
    y, p = evaluation.labels[:, 0], evaluation.predictions[:, 0]
    bins = reliability(y, p)
    assert sum(one["rows"] for one in bins) == len(y)
    assert sum(one["rows"] * one["observed"] for one in bins) == pytest.approx(y.sum())
    assert all(one["low"] <= one["observed"] <= one["high"] for one in bins)
