"""The loop: the order of batches, exact resume, early stopping, damage, and a golden curve."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from training.synthetic import SyntheticExamples, make_examples

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.models.engagement import EngagementConfig
from adstool.training.batches import WINDOW, batch_count, epoch_batches, prefetch, window_rows
from adstool.training.checkpoint import NAME, load_checkpoint
from adstool.training.engagement import (
    PRESETS,
    EngagementTask,
    EngagementTaskConfig,
    build_engagement,
    train_examples,
)
from adstool.training.loop import FitResult, fit
from adstool.training.options import Plan, TrainOptions, make_plan
from adstool.training.predict import predict_logits
from adstool.training.record import training_device

SMALL = {"hidden": "16", "cross_rank": "8", "precision": "fp32"}
OPTIONS = TrainOptions(overrides=SMALL, epochs=3, batch_size=256, seed=5)


def plan_of(options: TrainOptions = OPTIONS, **loop: object) -> Plan:
    plan = make_plan(Settings(), options, PRESETS, EngagementConfig, EngagementTaskConfig)
    return dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, **loop))


def task_of(examples: SyntheticExamples, plan: Plan) -> EngagementTask:
    model = build_engagement(examples.spec(), plan, examples)
    return EngagementTask("engagement", model, examples, EngagementTaskConfig())


def fitted(
    examples: SyntheticExamples, plan: Plan, folder: Path, task: EngagementTask | None = None
) -> tuple[FitResult, dict[str, torch.Tensor]]:
    task = task or task_of(examples, plan)
    result = fit(task, plan.loop, training_device(), folder, "mark")
    return result, task.model.state_dict()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Killed(Exception):
    """Stands for the end of the process."""


class DyingTask(EngagementTask):
    """Dies when it is asked for the loss of the n-th batch."""

    def __init__(self, inner: EngagementTask, survives: int) -> None:
        super().__init__(inner.name, inner.model, inner.examples, inner.config)
        self.left = survives

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().loss(batch)


@pytest.mark.parametrize(("rows", "block", "window"), [(1000, 64, 256), (10, 4096, 1 << 20), (513, 16, 16)])
def test_an_epoch_sees_every_row_once(rows: int, block: int, window: int) -> None:
    batches = list(epoch_batches(rows, 100, np.random.default_rng(0), block, window))
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    assert [len(b) for b in batches[:-1]] == [100] * (len(batches) - 1)
    assert len(batches) == batch_count(rows, 100)
    again = list(epoch_batches(rows, 100, np.random.default_rng(0), block, window))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_a_window_reads_neighbours_only() -> None:
    first = next(epoch_batches(100_000, 512, np.random.default_rng(0), block=256, window=512))
    assert len(np.unique(first // 256)) == 2  # of 391 blocks


@pytest.mark.parametrize(
    ("mapped", "available", "window"),
    [
        (10**9, None, WINDOW),
        (0, 10**8, WINDOW),
        (10**9, 2_700_000_000, WINDOW),  # twice the arrays beside 700 MB
        (10**9, 2_699_999_999, 122 * 4096),  # a quarter of 2 GB is half of the rows
        (10**9, 10**9, 18 * 4096),  # 75 MB, of 1 kB a row
        (10**9, 10**8, 16 * 4096),
        (10**6, 700_000_001, 16 * 4096),
    ],
)
def test_a_window_is_what_memory_holds(mapped: int, available: int | None, window: int) -> None:
    assert window_rows(1_000_000, mapped, available) == window


@pytest.mark.parametrize(
    ("available", "sizes"),
    [(None, [8192, 808]), (2_000_000_000, [8192, 808]), (1_999_999_999, [2048] * 4 + [808])],
)
def test_fewer_rows_are_predicted_at_once_where_memory_is_small(
    available: int | None, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, seen = make_examples(9000), []
    model = task_of(examples, plan_of()).model
    expected = predict_logits(model, examples, slice(0, 9000))
    monkeypatch.setattr("adstool.training.predict.available_bytes", lambda: available)
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]["numeric"])))
    found = predict_logits(model, examples, np.arange(9000))
    assert seen == sizes
    assert found.shape == (9000, 2)
    assert np.allclose(found, expected, rtol=0, atol=1e-5)


def test_with_more_memory_a_training_goes_on_in_the_order_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, plan = make_examples(9000), plan_of(checkpoint_seconds=0.0, epochs=1)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    _, in_one_window = fitted(examples, plan, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("adstool.training.loop.window_rows", lambda *_: 4096)
        _, expected = fitted(examples, plan, tmp_path / "whole")
        with pytest.raises(Killed):
            fitted(examples, plan, tmp_path / "cut", DyingTask(task_of(examples, plan), 12))
    _, weights = fitted(examples, plan, tmp_path / "cut")
    assert same(weights, expected)
    assert not same(weights, in_one_window)


def test_prefetch_keeps_order_and_raises_where_the_error_was() -> None:
    def job(value: int) -> int:
        if value == 3:
            raise ValueError("three")
        return value

    results: Iterator[int] = prefetch(iter([lambda v=v: job(v) for v in range(6)]))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


TRANSACT = {**SMALL, "sequence": "transact", "sequence_dim": "4", "time_mask_hours": "24"}
PARTS = {**SMALL, "accumulate": "2"}


@pytest.mark.parametrize(
    ("survives", "every", "overrides", "parts"),
    [(14, 60.0, SMALL, 1), (18, 0.0, SMALL, 1), (15, 0.0, TRANSACT, 1), (37, 0.0, PARTS, 2)],
)
def test_a_resumed_run_has_the_same_bits(
    survives: int, every: float, overrides: dict[str, str], parts: int, tmp_path: Path
) -> None:
    """Killed between epochs' checkpoints, (every = 0) with a checkpoint after every batch, and in a batch's
    second part."""
    examples = make_examples(3000)
    options = dataclasses.replace(OPTIONS, overrides=overrides)
    plan = plan_of(options, checkpoint_seconds=every, precision="auto")
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, expected = fitted(examples, plan, tmp_path / "whole")
    with pytest.raises(Killed):
        fitted(examples, plan, tmp_path / "cut", DyingTask(task_of(examples, plan), survives))
    state = load_checkpoint(tmp_path / "cut", "mark")
    assert state is not None
    assert 0 < state.progress.epoch * 9 + state.progress.step <= survives // parts
    resumed, weights = fitted(examples, plan, tmp_path / "cut")
    assert resumed.resumed
    assert same(weights, expected)
    assert resumed.curve == whole.curve


def test_other_data_or_settings_start_over(tmp_path: Path) -> None:
    examples = make_examples(1500)
    plan = plan_of()
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(Killed):
        fitted(examples, plan, run, DyingTask(task_of(examples, plan), 7))
    assert load_checkpoint(run, "mark") is not None
    assert load_checkpoint(run, "another") is None
    result = train_examples("e", examples.spec(), plan, examples, examples.encoder, run, OPTIONS)
    assert not result.resumed
    assert not (run / NAME).exists()  # nothing of the attempt is left in a whole run


def test_a_damaged_checkpoint_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\x10" * 100)
    assert load_checkpoint(tmp_path, "mark") is None


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    class Scripted(EngagementTask):
        losses = iter([0.9, 0.7, 0.8, 0.75, 0.1])
        seen: list[dict[str, torch.Tensor]]

        def validate(self) -> float:
            self.seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
            return next(self.losses)

    examples = make_examples(1500)
    plan = plan_of(dataclasses.replace(OPTIONS, epochs=9))
    inner = task_of(examples, plan)
    task = Scripted(inner.name, inner.model, examples, inner.config)
    task.seen = []
    result = fit(task, plan.loop, training_device(), tmp_path, "mark")
    assert (result.epochs, result.best_epoch, result.best_loss) == (4, 2, 0.7)
    assert same(task.model.state_dict(), task.seen[1])


def test_a_loss_that_is_not_finite_names_the_batch(tmp_path: Path) -> None:
    examples = make_examples(3000)
    examples.numeric[777, 1] = np.inf
    plan = plan_of()
    with pytest.raises(
        AdstoolError, match=r"became nan in epoch 1, batch \d of 9 \(examples \d+ to \d+"
    ) as caught:
        fitted(examples, plan, tmp_path)
    assert "learning_rate" in caught.value.hint


def test_a_plateau_lowers_the_learning_rate_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 1.1, 0.9, 0.8])  # the second epoch is no better

    class Told(EngagementTask):
        def validate(self) -> float:
            return next(losses)

    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, closure: None = None) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    examples = make_examples(1000)
    plan = plan_of(schedule="plateau", epochs=4, batch_size=1000, warmup=1, learning_rate=0.01)
    task = task_of(examples, plan)
    result, _ = fitted(examples, plan, tmp_path, Told("told", task.model, examples, task.config))
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert result.best_epoch == 4


def test_a_batch_in_parts_makes_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    examples = make_examples(1000)
    certain = dataclasses.replace(
        OPTIONS, overrides={**SMALL, "dropout": "0", "id_dropout": "0"}, epochs=1, batch_size=200
    )
    found = []
    for parts in (1, 3):
        folder = tmp_path / str(parts)
        folder.mkdir()
        found.append(fitted(examples, plan_of(certain, accumulate=parts), folder))
    (whole, expected), (split, weights) = found
    assert split.curve[0]["train_loss"] == pytest.approx(whole.curve[0]["train_loss"], abs=2e-3)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=2e-3, rtol=0, msg=name)


def test_golden_curve(tmp_path: Path) -> None:
    """A change that is meant to leave training as it is must leave these losses."""
    result, _ = fitted(make_examples(3000), plan_of(), tmp_path)
    train = [round(row["train_loss"], 4) for row in result.curve]
    valid = [round(row["valid_loss"], 4) for row in result.curve]
    assert train == pytest.approx(GOLDEN["train"], abs=1.5e-4)
    assert valid == pytest.approx(GOLDEN["valid"], abs=1.5e-4)


def test_training_learns_what_there_is(tmp_path: Path) -> None:
    examples = make_examples(8000)
    plan = plan_of(
        TrainOptions(epochs=6, batch_size=256, overrides={"hidden": "32", "learning_rate": "0.003"})
    )
    result = train_examples("e", examples.spec(), plan, examples, examples.encoder, tmp_path, TrainOptions())
    held = examples.splits["test"]
    truth = examples.probability[held, 0]
    label = examples.labels[held, 0]
    floor = -np.mean(np.log(np.where(label > 0, truth, 1 - truth)))
    rate = label.mean()
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    got = result.metrics["test"]["click"]["log_loss"]
    assert floor < got < floor + 0.35 * (base - floor)
    lucky = truth.sum() / label.sum()  # what the draw of the labels alone does to the ratio
    assert result.metrics["test"]["click"]["calibration"] / lucky == pytest.approx(1.0, abs=0.08)


GOLDEN = {"train": [0.8367, 0.8337, 0.8269], "valid": [0.8222, 0.8192, 0.8137]}
