"""Off-policy estimators by hand, against direct sums, against known truth, and at their limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from support import run_cli

from adstool.config import EvaluationSettings
from adstool.errors import DataError, UsageError
from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.off_policy import (
    LoggedActions,
    cells_of,
    cells_of_vectors,
    dr,
    effective_size,
    ips,
    mips,
    snips,
    switch_dr,
)
from adstool.evaluation.off_policy_log import evaluate_off_policy
from adstool.evaluation.off_policy_slate import slate_values
from adstool.evaluation.off_policy_table import OffPolicyRequest
from adstool.evaluation.propensities import fitted_propensities, indicators

SETTINGS = EvaluationSettings(bootstrap=50)
CONTEXTS, ACTIONS = 3, 4


def one_by_one(rows: int) -> Resampler:
    return Resampler(np.arange(rows), 2)


def hand() -> LoggedActions:
    """w = 2, .5, 1, 0; worked on paper."""
    return LoggedActions(
        np.array([1.0, 0.0, 2.0, 4.0]),
        np.array([0.25, 0.5, 0.5, 0.5]),
        np.array([0.5, 0.25, 0.5, 0.0]),
        np.array([0.5, 1.0, 1.0, 3.0]),
        np.array([1.0, 1.0, 2.0, 2.0]),
    )


def test_estimators_worked_by_hand() -> None:
    log, users = hand(), one_by_one(4)
    assert ips(log, users).value == pytest.approx((2 + 0 + 2 + 0) / 4)
    assert snips(log, users).value == pytest.approx(4 / 3.5)
    # corrections 2 (1 - .5), .5 (0 - 1), 1 (2 - 1), 0
    assert dr(log, users).value == pytest.approx((6 + 1 - 0.5 + 1) / 4)
    value, at = switch_dr(log, users, 1.0)
    assert at == 1.0
    assert value.value == pytest.approx((6 - 0.5 + 1) / 4)
    assert switch_dr(log, users, 0.0)[0].value == pytest.approx(6 / 4)  # the model alone
    assert effective_size(log.weight) == pytest.approx(3.5**2 / 5.25)
    # cells {2, .5} and {1, 0} have the mean weights 1.25 and .5
    value, size = mips(log, users, np.array([7, 7, 3, 3]))
    assert value.value == pytest.approx((1.25 * 1 + 0.5 * 6) / 4)
    assert size == pytest.approx(3.5**2 / (2 * 1.25**2 + 2 * 0.5**2))


def test_slates_worked_by_hand() -> None:
    # Two slates, given out of order: weights (2, .5, 1) of rewards (1, 0, 1) and (.5, 3) of (1, 2).
    target = np.array([0.5, 1.0, 0.25, 0.25, 0.75])
    propensity = np.array([0.5, 0.5, 0.5, 0.5, 0.25])
    reward = np.array([1.0, 1.0, 0.0, 1.0, 2.0])
    slate, position = np.array([0, 0, 0, 1, 1]), np.array([3, 1, 2, 1, 2])
    q, direct = np.full(5, 0.5), np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    log = LoggedActions(reward, propensity, target, q, direct)
    found = slate_values(log, one_by_one(5), slate, position)
    value = {name: found[name]["value"] for name in ("standard", "independent", "cascade", "cascade_dr")}
    assert found["slates"] == 2
    assert found["logged"]["value"] == pytest.approx(5 / 2)
    assert value["standard"] == pytest.approx((1 * 2 + 1.5 * 3) / 2)
    assert value["independent"] == pytest.approx((2 + 0 + 1 + 0.5 + 6) / 2)
    assert value["cascade"] == pytest.approx((2 + 0 + 1 + 0.5 + 1.5 * 2) / 2)
    by_model = [2 * 0.5 + 0.4, 1 * -0.5 + 2 * 0.6, 1 * 0.5 + 1 * 0.2, 0.5 * 0.5 + 0.8, 1.5 * 1.5 + 0.5 * 1.0]
    assert value["cascade_dr"] == pytest.approx(sum(by_model) / 2)
    with pytest.raises(DataError, match="same position"):
        slate_values(log, one_by_one(5), slate, np.array([1, 1, 2, 1, 2]))


def world(seed: int, rows: int) -> tuple[dict[str, Any], float]:
    """A log of a known world by its columns, and the true value of its target."""
    fixed = np.random.default_rng(9)
    logits = fixed.normal(size=(CONTEXTS, ACTIONS))
    logging = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.exp(-logits) / np.exp(-logits).sum(axis=1, keepdims=True)
    rate = np.repeat(fixed.permutation(np.linspace(0.1, 0.9, 6)).reshape(CONTEXTS, 2), 2, axis=1)  # in pairs
    random = np.random.default_rng(seed)
    x = random.integers(0, CONTEXTS, rows)
    a = (logging[x].cumsum(axis=1) < random.random((rows, 1))).sum(axis=1)
    model = np.clip(rate + fixed.normal(0, 0.1, rate.shape), 0, 1)
    columns = {
        "r": (random.random(rows) < rate[x, a]).astype(float),
        "p": logging[x, a],
        "t": target[x, a],
        "q": model[x, a],
        "qt": (target * model).sum(axis=1)[x],
        "x": x,
        "a": a,
        "pair": a // 2,
    }
    return columns, float((target * rate).sum(axis=1).mean())


def test_estimators_are_right_on_average_and_better_ones_vary_less() -> None:
    found: dict[str, list[float]] = {name: [] for name in ("ips", "snips", "dr", "own", "mips", "plain")}
    for seed in range(200):
        columns, truth = world(seed, 300)
        log = LoggedActions(*(columns[name] for name in ("r", "p", "t", "q", "qt")))
        users = one_by_one(300)
        found["ips"].append(ips(log, users).value)
        found["snips"].append(snips(log, users).value)
        found["dr"].append(dr(log, users).value)
        found["own"].append(dr(LoggedActions(log.reward, log.propensity, log.target, log.q_hat), users).value)
        cells = cells_of(columns["x"], columns["pair"])
        found["mips"].append(mips(log, users, cells)[0].value)
        found["plain"].append(log.reward.mean())
    error = {name: (np.mean(values) - truth) / (np.std(values) / 14.1) for name, values in found.items()}
    assert abs(error["plain"]) > 5  # the log itself is worth something else
    assert all(abs(error[name]) < 4 for name in ("ips", "dr", "own", "mips"))
    assert abs(np.mean(found["snips"]) - truth) < 0.02
    spread = {name: np.std(values) for name, values in found.items()}
    assert spread["dr"] < 0.75 * spread["ips"]
    assert spread["mips"] < 0.75 * spread["ips"]


def test_a_target_that_is_the_log_is_worth_the_mean() -> None:
    columns, _ = world(0, 200)
    log = LoggedActions(columns["r"], columns["p"], columns["p"], columns["q"], columns["q"])
    users = one_by_one(200)
    mean = pytest.approx(columns["r"].mean())
    assert ips(log, users).value == mean
    assert snips(log, users).value == mean
    assert dr(log, users).value == mean
    assert mips(log, users, columns["a"])[0].value == mean
    slates = slate_values(log, users, np.arange(200) // 4, np.arange(200) % 4)
    assert all(
        slates[name]["value"] == pytest.approx(4 * columns["r"].mean())
        for name in ("standard", "independent", "cascade", "cascade_dr")
    )


def test_cells_of_one_row_each_make_mips_ips_and_vectors_find_their_cluster() -> None:
    log = hand()
    assert mips(log, one_by_one(4), np.arange(4))[0].value == pytest.approx(ips(log, one_by_one(4)).value)
    centres = np.random.default_rng(0).normal(size=(4, 8))
    kind = np.arange(400) % 4
    vectors = centres[kind] + np.random.default_rng(1).normal(0, 0.01, (400, 8))
    cells = cells_of_vectors(vectors, 4)
    assert len(np.unique(cells)) == 4
    assert len(set(zip(kind.tolist(), cells.tolist(), strict=True))) == 4
    assert cells_of(np.array(["a", "b", "a"]), np.array([1, 1, 2])).tolist() == [0, 2, 1]


def test_fitted_propensities_come_near_the_true_ones() -> None:
    columns, _ = world(1, 20_000)
    fitted = fitted_propensities(columns["a"], indicators(columns["x"]))
    assert np.abs(fitted - columns["p"]).max() < 0.03
    share = fitted_propensities(np.array(["a", "b", "b", "b"]), None)
    assert share.tolist() == [0.25, 0.75, 0.75, 0.75]
    with pytest.raises(DataError, match="one action only"):
        fitted_propensities(np.zeros(3), None)


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        path.write_text("".join(f"{row}\n".replace("'", '"') for row in table.to_pylist()))
    return path


def asked(log: Path, **more: Any) -> OffPolicyRequest:
    return OffPolicyRequest(**{"log": log, "reward": "r", "target": "t", "propensity": "p", **more})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_table_gives_what_direct_sums_give(tmp_path: Path, suffix: str) -> None:
    columns, _ = world(2, 400)
    file = write(tmp_path / f"log.{suffix}", {**columns, "u": [f"u{i // 3}" for i in range(400)]})
    found = evaluate_off_policy(asked(file, q_hat="q", q_target="qt", user="u"), SETTINGS)
    w = columns["t"] / columns["p"]
    assert found["ips"] == pytest.approx((w * columns["r"]).mean(), abs=1e-9)
    assert found["snips"] == pytest.approx((w * columns["r"]).sum() / w.sum(), abs=1e-9)
    direct = columns["qt"] + w * (columns["r"] - columns["q"])
    assert found["dr"] == pytest.approx(direct.mean(), abs=1e-9)
    assert found["ess"] == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert (found["refused"], found["users"], found["propensities"]) == (False, 134, "logged")
    low, high = found["intervals"]["ips"]
    assert low < found["ips"] < high


def test_columns_named_as_ours_and_paths_like_patterns_change_nothing(tmp_path: Path) -> None:
    columns, _ = world(3, 400)
    plain = evaluate_off_policy(asked(write(tmp_path / "log.csv", columns)), SETTINGS)
    odd = tmp_path / "t=1" / "log*.csv"
    odd.parent.mkdir()
    write(odd.with_name("log2.csv"), {name: values[:9] for name, values in columns.items()})
    ours = {**columns, "n_reward": np.full(400, np.nan), "n_target": np.full(400, np.nan)}
    assert evaluate_off_policy(asked(write(odd, ours)), SETTINGS)["ips"] == plain["ips"]


def test_a_log_without_support_or_with_damage_is_told(tmp_path: Path) -> None:
    columns, _ = world(3, 400)
    thin = {**columns, "t": np.where(np.arange(400) < 5, 1.0, 0.0)}
    found = evaluate_off_policy(asked(write(tmp_path / "thin.csv", thin)), SETTINGS)
    assert found["refused"]
    assert "effective" in found["reason"]
    assert found["ips"] is None
    zero = {**columns, "p": np.where(np.arange(400) == 7, 0.0, columns["p"])}
    assert (
        "propensity 0" in evaluate_off_policy(asked(write(tmp_path / "zero.csv", zero)), SETTINGS)["reason"]
    )
    uncovered = {**columns, "t": columns["p"] * 0.3}
    assert (
        "average 0.30"
        in evaluate_off_policy(asked(write(tmp_path / "low.csv", uncovered)), SETTINGS)["reason"]
    )
    with pytest.raises(DataError, match=r"propensity is 1.5 in row 8"):
        evaluate_off_policy(
            asked(write(tmp_path / "b.csv", {**columns, "p": np.where(np.arange(400) == 7, 1.5, 1)})),
            SETTINGS,
        )
    rewards = ["many" if i == 2 else "1" for i in range(400)]
    with pytest.raises(DataError, match="no number in row 3"):
        evaluate_off_policy(asked(write(tmp_path / "c.csv", {**columns, "r": rewards})), SETTINGS)
    with pytest.raises(DataError, match="no column 'nowhere'"):
        evaluate_off_policy(asked(tmp_path / "b.csv", q_hat="nowhere"), SETTINGS)
    with pytest.raises(UsageError, match="fitted"):
        evaluate_off_policy(asked(tmp_path / "b.csv", propensity=None), SETTINGS)


def test_unlogged_propensities_are_fitted_with_a_warning(tmp_path: Path) -> None:
    columns, truth = world(4, 20_000)
    file = write(tmp_path / "log.parquet", {**columns, "x": [f"c{x}" for x in columns["x"]]})
    found = evaluate_off_policy(
        asked(file, propensity=None, action="a", context=("x",), embedding=("pair",)), SETTINGS
    )
    assert found["propensities"] == "fitted"
    assert "fitted by x" in found["warnings"][0]
    assert found["snips"] == pytest.approx(truth, abs=0.03)
    assert found["mips"] == pytest.approx(truth, abs=0.03)


def test_the_verb_prints_json_and_refuses_with_exit_3(tmp_path: Path) -> None:
    columns, _ = world(5, 300)
    words = ("evaluate", "ope", "--reward", "r", "--propensity", "p", "--target", "t", "--log")
    done = run_cli("--json", *words, write(tmp_path / "log.csv", columns), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"ips", "snips", "dr", "intervals", "ess", "refused"} <= found.keys()
    assert "one by one" in done.stderr
    thin = write(tmp_path / "thin.csv", {**columns, "t": np.where(np.arange(300) < 3, 1.0, 0.0)})
    done = run_cli("--json", *words, thin, cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["refused"] is True
    assert "cannot tell" in done.stderr
