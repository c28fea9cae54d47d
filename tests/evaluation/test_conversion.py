"""The conversion stage: figures against scikit-learn and sums by hand, the baseline, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support import cli_json, run_cli
from training.conversion_logs import KINDS, make_log

from adstool.evaluation.context import Evaluation
from adstool.evaluation.conversion import PRIOR_CLICKS, advertiser_rates, judge
from adstool.evaluation.results import read_results
from adstool.training.conversion_data import known_outcome, windows_of
from adstool.training.conversion_metrics import Outcome, Predicted
from adstool.workspace import Workspace


def random_case(rows: int = 3000) -> tuple[Predicted, Outcome, np.ndarray, np.ndarray]:
    """Predictions with noise, what became of the impressions, their users, and the true rates."""
    rng = np.random.default_rng(5)
    true = rng.uniform(0.05, 0.5, (rows, 2))
    clicked = rng.random(rows) < 0.4
    converted = (rng.random((rows, 2)) < true) & clicked[:, None]
    money = np.where(converted, rng.gamma(2.0, 10.0, (rows, 2)), 0.0)
    noisy = np.clip(true + rng.normal(0, 0.05, true.shape), 0.01, 0.99)
    found = Predicted(np.full(rows, 0.4), noisy, np.full((rows, 2), 20.0))
    return (
        found,
        Outcome(clicked, converted, money),
        rng.integers(0, 200, rows),
        1 - np.prod(1 - true, axis=1),
    )


def test_figures_agree_with_scikit_learn_and_with_sums(make_evaluation: Callable[..., Evaluation]) -> None:
    found, known, users, true = random_case()
    flat = np.full((len(users), 2), 0.2)
    stage = judge(make_evaluation(), users, found, known, KINDS, flat, true)
    inside = known.clicked
    assert (stage["rows"], stage["clicks"]) == (len(users), inside.sum())
    assert stage["conversions"] == known.converted.sum()
    assert stage["calibration"] == pytest.approx(found.conversion[inside].sum() / known.converted.sum())
    low, high = stage["intervals"]["calibration"]
    assert low < stage["calibration"] < high
    for column, kind in enumerate(KINDS):
        head = stage["heads"][kind]
        want = roc_auc_score(known.converted[inside, column], found.conversion[inside, column])
        assert head["auc"] == pytest.approx(want)
        assert head["popularity"]["auc"] == pytest.approx(0.5)
        joint = found.click * found.conversion[:, column]
        assert stage["joint"][kind]["auc"] == pytest.approx(roc_auc_score(known.converted[:, column], joint))
        assert stage["joint"][kind]["rows"] == len(users)
    happened = known.converted[inside].any(axis=1)
    assert stage["any"]["positives"] == happened.sum()
    assert stage["any"]["truth"]["auc"] == pytest.approx(roc_auc_score(happened, true[inside]))
    assert sum(one["rows"] for one in stage["any"]["reliability"]) == inside.sum()


def test_money_is_summed_over_clicks_and_ranked_by_what_was_expected(
    make_evaluation: Callable[..., Evaluation],
) -> None:
    found, known, users, _ = random_case()
    stage = judge(make_evaluation(), users, found, known, KINDS, np.full((len(users), 2), 0.2), None)
    inside = known.clicked
    expected, observed = found.value[inside], known.value[inside].sum(axis=1)
    money = stage["value"]
    assert money["calibration"] == pytest.approx(expected.sum() / observed.sum())
    first = np.argsort(-expected, kind="stable")[: len(expected) // 10]
    assert money["top_tenth"] == pytest.approx(observed[first].sum() / observed.sum())
    assert money["top_tenth"] > 0.1
    assert "truth" not in stage["any"]


def test_the_baseline_is_the_rate_of_matured_clicks_by_advertiser(tmp_path: Path) -> None:
    made, labels = make_log(tmp_path)
    owner = np.arange(50) % 3 - 1  # an item in three has no advertiser
    made.items = SimpleNamespace(content=made.items.content, advertisers=(owner, ["v0", "v1"]))
    windows = windows_of(made, labels, 0.2, 24.0)
    rates = advertiser_rates(made, labels, windows)
    old = np.flatnonzero(made.ts[: windows.train.stop] + 30_000_000 <= windows.cut - windows.horizon)
    known = known_outcome(labels, old, windows.cut, windows.horizon)
    total = known.converted.sum(axis=0) / known.clicked.sum()
    for place, advertiser in enumerate((0, 1, -1)):
        mine = known.clicked & (owner[made.item_row[old]] == advertiser)
        want = (known.converted[mine].sum(axis=0) + PRIOR_CLICKS * total) / (mine.sum() + PRIOR_CLICKS)
        assert rates[place] == pytest.approx(want, rel=0.01)


def test_the_stage_is_judged_shown_and_named_when_its_data_changed(demo_copy: Path) -> None:
    where = ("--workspace", demo_copy)
    stage = read_results(Workspace(demo_copy))["conversion"]
    assert stage["clicks"] > 500
    assert stage["any"]["truth"]["auc"] > 0.6
    assert stage["horizon_days"] == pytest.approx(3.5, abs=0.1)
    assert set(stage["heads"]) == {"checkout", "add_to_cart", "signup", "lead"}
    people = run_cli(*where, "evaluate", "conversion")
    assert "Predicted over observed" in people.stdout
    (demo_copy / "adstool.toml").write_text("[conversion]\nclick_window_hours = 24.0\n")
    changed = run_cli(*where, "evaluate", "conversion")
    assert changed.returncode == 1
    assert "adstool train conversion" in changed.stderr
    planned = {one["name"]: one["state"] for one in cli_json(*where, "run", "--dry-run")["stages"]}
    # The head of retrieval for conversions has the same labels, and the index its vectors.
    stale = {name for name, state in planned.items() if state == "stale"}
    assert stale == {"conversion", "retrieval", "index", "evaluate", "report"}


def test_a_log_without_conversions_has_a_funnel_all_the_same(shop_copy: Any) -> None:
    import duckdb

    with duckdb.connect(str(shop_copy.warehouse)) as con:
        con.execute("delete from conversions")
    where = ("--workspace", shop_copy.root)
    done = cli_json(*where, "run", "--only", "conversion")["stages"]
    assert done[0]["state"] == "done"
    assert "no conversions" in done[0]["result"]["skipped"]
    asked = run_cli(*where, "evaluate", "conversion")
    assert asked.returncode == 1
    assert "no conversions" in asked.stderr
