"""Retrieval and the lightweight ranker: candidates, snapshots, and that they learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training.synthetic import make_examples

from adstool.config import Settings
from adstool.errors import DataError
from adstool.models.pairs import PairModel
from adstool.models.two_tower import TwoTowerConfig
from adstool.training import lightweight, retrieval
from adstool.training.loop import fit
from adstool.training.metrics import head_metrics, sigmoid
from adstool.training.options import TrainOptions, make_plan
from adstool.training.predict import predict_logits
from adstool.training.record import training_device
from adstool.training.retrieval_conversions import Converted

EXAMPLES = make_examples(15000)


def retrieval_task(negatives: int = 32) -> tuple[retrieval.RetrievalTask, object]:
    exact = {"learning_rate": "0.01", "precision": "fp32"}  # alike on machines with bf16 and without
    options = TrainOptions(epochs=10, batch_size=128, overrides=exact)
    plan = make_plan(Settings(), options, retrieval.PRESETS, TwoTowerConfig, retrieval.RetrievalTaskConfig)
    model = retrieval.build_retrieval(EXAMPLES.spec(), plan)
    task = retrieval.RetrievalTask(model, EXAMPLES, retrieval.RetrievalTaskConfig(negatives))
    return task, plan.loop


def test_candidates_are_unique_and_hold_every_positive() -> None:
    task, _ = retrieval_task()
    rows = np.arange(100)
    batch = task.load(rows, np.random.default_rng(0))
    wanted = EXAMPLES.item_row[task.engaged[rows]]
    codes = batch["item/categorical"][:, 1].numpy()  # the item's code: its row + 3
    assert len(np.unique(codes)) == len(codes)
    np.testing.assert_array_equal(codes[batch["target"].numpy()] - 3, wanted)
    assert len(codes) > len(np.unique(wanted))  # global negatives came on top
    counts = np.bincount(EXAMPLES.item_row[task.engaged], minlength=50) / task.rows
    np.testing.assert_allclose(batch["share"].numpy(), counts[codes - 3], rtol=1e-5)


def test_only_engaged_rows_of_training_are_positives() -> None:
    task, _ = retrieval_task()
    train = EXAMPLES.splits["train"]
    labels = np.nan_to_num(EXAMPLES.labels)
    np.testing.assert_array_equal(task.engaged, np.flatnonzero(labels[train].any(axis=1)))


def test_newcomers_bring_their_side_and_the_rows_keep_their_request() -> None:
    task, _ = retrieval_task()
    firsts = {user: row for row, user in reversed(list(enumerate(EXAMPLES.user))) if row in set(task.engaged)}
    assert sorted(task.newcomers) == sorted(firsts.values())
    task.config = retrieval.RetrievalTaskConfig(newcomers=1.0)
    spec = task.model.config.inputs
    user_side, request_side = spec.columns(("user",)), spec.columns(("context",))
    positive = task.engaged[-200:]
    codes = task._askers(positive, np.random.default_rng(0))["categorical"].numpy()
    np.testing.assert_array_equal(codes[:, request_side], EXAMPLES.categorical[positive][:, request_side])
    known = {tuple(row) for row in EXAMPLES.categorical[task.newcomers][:, user_side].tolist()}
    assert all(tuple(row) in known for row in codes[:, user_side].tolist())
    task.config = retrieval.RetrievalTaskConfig(newcomers=0.0)
    codes = task._askers(positive, np.random.default_rng(0))["categorical"].numpy()
    np.testing.assert_array_equal(codes, EXAMPLES.categorical[positive])


def test_a_share_of_the_candidates_stands_as_when_it_was_new() -> None:
    task, _ = retrieval_task()
    train = EXAMPLES.splits["train"]
    shown = EXAMPLES.item_row[train]
    items = np.unique(shown)
    last = np.array([np.flatnonzero(shown == item)[-1] for item in items])
    first = np.array([np.flatnonzero(shown == item)[0] for item in items])
    for share, expected in ((0.0, last), (1.0, first)):
        task.config = retrieval.RetrievalTaskConfig(new_items=share)
        np.testing.assert_array_equal(task._as_new(items, last, np.random.default_rng(0)), expected)
    task.config = retrieval.RetrievalTaskConfig(new_items=0.3)
    many, rows = np.repeat(items, 100), np.repeat(last, 100)
    assert 0.27 < (task._as_new(many, rows, np.random.default_rng(0)) != rows).mean() < 0.33


def test_snapshot_is_the_last_row_before_the_split_or_the_first_within() -> None:
    items, rows = retrieval.item_snapshot(EXAMPLES, EXAMPLES.splits["test"])
    start = EXAMPLES.splits["test"].start
    for item, row in zip(items, rows, strict=True):
        before = np.flatnonzero(EXAMPLES.item_row[:start] == item)
        after = np.flatnonzero(EXAMPLES.item_row[start:] == item) + start
        assert row == (before[-1] if len(before) else after[0])
    assert set(items) == set(np.unique(EXAMPLES.item_row).tolist())


def test_retrieval_beats_popularity_where_tastes_differ(tmp_path: Path) -> None:
    task, loop = retrieval_task()
    fit(task, loop, training_device(), tmp_path, "mark")
    task.model.eval()
    loss, metrics = task.judge("test")
    assert metrics["rows"] > 200
    assert metrics["recall@10"] > metrics["popular_recall@10"] + 0.02
    assert loss < np.log(metrics["items"])


def test_the_conversion_head_learns_what_is_converted_on(tmp_path: Path) -> None:
    """Here only a fifth of the items is ever converted on, by those who engage with them anyway."""
    engaged = {name: retrieval.engaged_rows(EXAMPLES, split) for name, split in EXAMPLES.splits.items()}
    rows = {name: found[EXAMPLES.item_row[found] % 5 == 0] for name, found in engaged.items()}
    converted = Converted(rows, np.arange(50, dtype=np.int32) // 5)
    options = TrainOptions(epochs=3, batch_size=128, overrides={"learning_rate": "0.01"})
    plan = make_plan(Settings(), options, retrieval.PRESETS, TwoTowerConfig, retrieval.RetrievalTaskConfig)
    model = retrieval.build_retrieval(EXAMPLES.spec(), plan, conversions=True)
    task = retrieval.RetrievalTask(
        model, EXAMPLES, retrieval.RetrievalTaskConfig(32, conversion_engaged=0.3), converted
    )
    batch = task.load(np.arange(100), np.random.default_rng(0))
    assert len(batch["user/categorical"]) == 125  # a quarter of the batch was converted on
    items = batch["item/categorical"][:, 1].numpy() - 3
    assert (items[batch["credited"].numpy()] % 5 == 0).all()
    np.testing.assert_array_equal(batch["advertiser"].numpy(), items // 5)
    fit(task, plan.loop, training_device(), tmp_path, "mark")
    task.model.eval()
    metrics = task.judge_conversions("test")["conversions"]
    assert metrics["rows"] == len(rows["test"]) > 50
    assert metrics["recall@10"] > metrics["engage_recall@10"] + 0.2
    assert metrics["recall@10"] > metrics["popular_recall@10"] + 0.2
    assert retrieval_task()[0].judge_conversions("test") == {}


def test_nothing_engaged_is_said(tmp_path: Path) -> None:
    nothing = make_examples(200)
    nothing.labels[:] = 0.0
    with pytest.raises(DataError, match="engaged"):
        retrieval.RetrievalTask(lightweight_model(), nothing, retrieval.RetrievalTaskConfig())


def lightweight_model(**overrides: str) -> PairModel:
    options = TrainOptions(preset="small", overrides=overrides)
    plan = make_plan(
        Settings(), options, lightweight.PRESETS, TwoTowerConfig, lightweight.LightweightTaskConfig
    )
    return lightweight.build_lightweight("two_tower", EXAMPLES.spec(), plan, EXAMPLES)


def test_lightweight_heads_start_at_the_base_rates_and_learn(tmp_path: Path) -> None:
    model = lightweight_model()
    rates = np.nanmean(EXAMPLES.labels[EXAMPLES.splits["train"]], axis=0)
    np.testing.assert_allclose(sigmoid(model.bias.detach().numpy()), rates, atol=2e-3)
    task = lightweight.LightweightTask(model, EXAMPLES, lightweight.LightweightTaskConfig())
    options = TrainOptions("small", {"learning_rate": "0.01"}, epochs=8, batch_size=256)
    plan = make_plan(
        Settings(), options, lightweight.PRESETS, TwoTowerConfig, lightweight.LightweightTaskConfig
    )
    fit(task, plan.loop, training_device(), tmp_path, "mark")
    held = EXAMPLES.splits["test"]
    p = sigmoid(predict_logits(model, EXAMPLES, held))
    metrics = head_metrics(EXAMPLES.labels[held], p, ("click", "save"))
    assert metrics["click"]["auc"] > 0.68
    assert metrics["click"]["ne"] < 0.95


def test_the_softmax_term_reads_only_engaged_rows() -> None:
    model = lightweight_model()
    task = lightweight.LightweightTask(model, EXAMPLES, lightweight.LightweightTaskConfig())
    rows = np.arange(64)
    batch = task.load(rows, np.random.default_rng(0))
    engaged = np.flatnonzero(np.nan_to_num(EXAMPLES.labels[rows]).any(axis=1))
    assert batch["engaged"].tolist() == engaged.tolist()
    items = EXAMPLES.item_row[rows]
    np.testing.assert_array_equal(items[batch["candidate"]][batch["target"]], items[engaged])
