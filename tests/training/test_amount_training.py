"""Actions that are timed or counted, from labels to what is served; and starting from the run before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from training.synthetic import SyntheticExamples, make_examples

from adstool.config import Action, Settings
from adstool.errors import UsageError
from adstool.models.engagement import EngagementConfig, EngagementModel
from adstool.models.registry import load_model
from adstool.serving.export import export_run
from adstool.serving.scorer import Scorer
from adstool.training.calibration import calibrate_run
from adstool.training.engagement import PRESETS, EngagementTaskConfig, thinned, train_examples
from adstool.training.metrics import amount_metrics
from adstool.training.options import Plan, TrainOptions, TrainResult, make_plan
from adstool.training.predict import gather, predict_amounts
from adstool.training.train import entropies_before, train_model
from adstool.training.value import Value
from adstool.training.warm_start import warm_start
from adstool.workspace import Workspace, write_json

OPTIONS = TrainOptions(overrides={"hidden": "16", "cross_rank": "8"}, epochs=6, batch_size=256)
DWELL = Action("dwell", kind="duration", weight=0.5)


def plan_of(options: TrainOptions = OPTIONS) -> Plan:
    return make_plan(Settings(), options, PRESETS, EngagementConfig, EngagementTaskConfig)


def timed(rows: int = 6000) -> tuple[SyntheticExamples, np.ndarray]:
    """A third action: after a click users stay, longer where a numeric says so; and the true expectation."""
    examples = make_examples(rows)
    rng = np.random.default_rng(3)
    mean = np.log(20.0) + 0.8 * examples.numeric[:, 1]
    clicked = examples.labels[:, 0] > 0
    seconds = np.where(clicked, rng.lognormal(mean, 0.5), 0.0).astype(np.float32)
    examples.labels = np.column_stack([examples.labels, seconds])
    examples.actions = (*examples.actions, DWELL)
    return examples, examples.probability[:, 0] * np.exp(mean + 0.125)


def spec_of(examples: SyntheticExamples, loss: str):  # type: ignore[no-untyped-def]
    return dataclasses.replace(examples.spec(), amounts=("dwell",), amount_losses=(loss,))


@pytest.mark.parametrize("loss", ["lognormal", "weighted"])
def test_a_timed_action_is_expected_and_served(loss: str, tmp_path: Path) -> None:
    examples, truth = timed()
    spec = spec_of(examples, loss)
    result = train_examples("engagement", spec, plan_of(), examples, examples.encoder, tmp_path, OPTIONS)
    figures = result.metrics["test"]["dwell"]["amount"]
    assert figures["gini"] > 0.35
    assert result.metrics["test"]["dwell"]["positives"] == figures["happened"]

    model = load_model(tmp_path)
    assert isinstance(model, EngagementModel)
    test = examples.splits["test"]
    expected = predict_amounts(model, examples, test)[:, 0]
    assert figures["ratio"] == pytest.approx(expected.sum() / examples.labels[test, 2].sum(), rel=1e-4)
    # Odds of a weighted regression exceed the mean where clicks are as frequent as these.
    assert expected.sum() / truth[test].sum() == pytest.approx(1.0 if loss == "lognormal" else 1.5, abs=0.2)
    assert np.corrcoef(np.log(expected), np.log(truth[test]))[0, 1] > 0.7

    export_run(tmp_path)
    calibrate_run(tmp_path)
    scorer = Scorer(tmp_path)
    inputs = {name: value.numpy() for name, value in gather(examples, model.input_names, test).items()}
    probability, worth = scorer.predict_worth(inputs)
    assert scorer.calibration is not None
    (factor,) = scorer.calibration.amounts
    np.testing.assert_allclose(worth[:, 2] * scorer.typical["dwell"], expected * factor, rtol=2e-3)
    np.testing.assert_array_equal(worth[:, :2], probability[:, :2])
    np.testing.assert_array_equal(scorer.predict(inputs), probability)
    valid = examples.splits["valid"]
    held = predict_amounts(model, examples, valid)[:, 0] * factor
    assert held.sum() == pytest.approx(examples.labels[valid, 2].sum(), rel=0.1)

    value = Value.of(dataclasses.replace(Settings(), actions=examples.actions), scorer.outputs)
    np.testing.assert_allclose(value.utility(worth), worth @ [1.0, 4.0, 0.5])


def test_amount_metrics_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(500) < 0.3).astype(float)
    score = rng.random(500) + 0.5 * label
    figures = amount_metrics(label * 7.0, score)
    assert figures["gini"] == pytest.approx(2 * roc_auc_score(label, score) - 1)
    unknown = amount_metrics(np.array([2.0, np.nan, 0.0]), np.array([1.0, 50.0, 2.0]))
    assert (unknown["ratio"], unknown["rows"], unknown["mean"], unknown["error"]) == (1.5, 2, 1.0, 1.5)


def test_a_run_starts_from_the_one_before(tmp_path: Path) -> None:
    before, after = make_examples(2000), timed(2000)[0]
    options = dataclasses.replace(OPTIONS, epochs=1)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train_examples(
        "engagement", before.spec(), plan_of(options), before, before.encoder, tmp_path / "one", options
    )
    old = load_model(tmp_path / "one")
    new = EngagementModel(EngagementConfig(inputs=spec_of(after, "lognormal"), **plan_of(options).model))
    fresh = new.heads.weight[2].clone()
    carried = warm_start(new, tmp_path / "one", after.encoder)
    assert isinstance(old, EngagementModel)
    assert carried == len(old.state_dict())
    for ours, theirs in (
        (new.trunk.deep[0].weight, old.trunk.deep[0].weight),  # type: ignore[union-attr,index]
        (new.embedding.table.weight, old.embedding.table.weight),
        (new.heads.weight[:2], old.heads.weight),
        (new.history.action.weight[:3], old.history.action.weight),  # type: ignore[union-attr]
        (new.position_bias.weight[:, :2], old.position_bias.weight),  # type: ignore[union-attr]
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(new.heads.weight[2], fresh)
    result = train_examples(
        "engagement", spec_of(after, "lognormal"), plan_of(options), after, after.encoder, tmp_path / "two",
        options, start=tmp_path / "one",
    )  # fmt: skip
    first = [row["train_loss"] for row in _curve(tmp_path / "two")]
    assert result.epochs == 1
    assert first[0] > 0
    earlier = entropies_before(tmp_path / "one", result)
    assert set(earlier["ne"]) == {"click", "save"}
    assert earlier["run_id"] == "one"


def _curve(run: Path) -> list[dict[str, float]]:
    import json

    curve: list[dict[str, float]] = json.loads((run / "run.json").read_text())["curve"]
    return curve


def test_runs_judged_on_other_rows_are_not_compared(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"test": {"click": {"ne": 0.9, "rows": 10}}})
    result = TrainResult("engagement", {"test": {"click": {"ne": 0.8, "rows": 11}}}, 1, 1.0, 1.0, 1, 1)
    assert entropies_before(tmp_path, result) == {}
    assert entropies_before(None, result) == {}
    result.metrics["test"]["click"]["rows"] = 10
    assert entropies_before(tmp_path, result)["ne"] == {"click": 0.9}


def test_only_engagement_starts_warm(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--warm-start is of engagement"):
        train_model(
            Workspace(tmp_path), Settings(), None, "lightweight",  # type: ignore[arg-type]
            TrainOptions(warm_start=True), export=lambda _: None,
        )  # fmt: skip


def test_fewer_negatives_leave_the_loss_as_it_was_on_average() -> None:
    examples = make_examples(20_000)
    rows, weight = thinned(examples, 0.25)
    train = examples.splits["train"]
    empty = ~(np.nan_to_num(examples.labels[train]) > 0).any(axis=1)
    assert set(np.flatnonzero(~empty)) <= set(rows - train.start)
    assert len(rows) == pytest.approx((~empty).sum() + 0.25 * empty.sum(), rel=0.02)
    assert weight.sum() == pytest.approx(len(empty), rel=0.02)
    assert set(weight[empty[rows]].tolist()) == {4.0}
    whole, ones = thinned(examples, 1.0)
    assert len(whole) == len(empty)
    assert (ones == 1).all()
    with pytest.raises(UsageError, match="--set negatives="):
        thinned(examples, 0.0)
