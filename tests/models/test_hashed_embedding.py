"""Bounded embedding tables: hash functions by hand, sparse gradients, and quality beside the full table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training.synthetic import make_examples

from adstool.config import Settings
from adstool.models.embedding import HASHES, PRIME, FieldEmbedding
from adstool.models.engagement import EngagementConfig
from adstool.models.inputs import InputSpec
from adstool.training.engagement import (
    PRESETS,
    EngagementTask,
    EngagementTaskConfig,
    build_engagement,
)
from adstool.training.loop import fit
from adstool.training.options import TrainOptions, make_plan
from adstool.training.record import training_device

SPEC = InputSpec(("a", "b"), ("user", "item"), (700, 300), (), (), ("click",))


def test_vectors_are_the_sum_of_the_hashed_rows() -> None:
    embedding = FieldEmbedding(SPEC, 4, max_rows=97, hashes=3)
    codes = torch.tensor([[0, 0], [699, 299], [12, 250]])
    fields, _ = embedding({"categorical": codes})
    weight = embedding.table.weight.detach()
    assert weight.shape == (97, 4)
    for row in range(3):
        for field, offset in enumerate((0, 700)):
            value = int(codes[row, field]) + offset
            places = [(a * value + b) % PRIME % 97 for a, b in HASHES[:3]]
            torch.testing.assert_close(fields[row, field].detach(), weight[places].sum(dim=0))
    fields.sum().backward()
    assert embedding.table.weight.grad is not None
    assert embedding.table.weight.grad.is_sparse


def test_two_hashes_tell_values_apart_that_one_does_not() -> None:
    values = torch.arange(1000)
    alone, pairs = (FieldEmbedding(SPEC, 2, max_rows=200, hashes=n) for n in (1, 2))
    one = {(int(x),) for x in alone.hashed(values, 0)}
    two = set(zip(*(pairs.hashed(values, index).tolist() for index in range(2)), strict=True))
    assert len(one) <= 200
    assert len(two) > 950
    # The rows are taken evenly: chi-squared with 199 degrees of freedom stays below its 99.9 % quantile.
    counts = np.bincount(pairs.hashed(values, 1).numpy(), minlength=200)
    assert ((counts - 5.0) ** 2 / 5.0).sum() < 267


def test_a_table_large_enough_is_not_hashed() -> None:
    embedding = FieldEmbedding(SPEC, 2, max_rows=1000)
    assert embedding.hashes == 0
    assert embedding.table.num_embeddings == 1000


def loss_of(max_rows: int, folder: Path) -> float:
    examples = make_examples(6000)
    overrides = {"hidden": "16", "id_dropout": "0", "max_rows": str(max_rows), "precision": "fp32"}
    options = TrainOptions(overrides=overrides, epochs=4, batch_size=256)
    plan = make_plan(Settings(), options, PRESETS, EngagementConfig, EngagementTaskConfig)
    task = EngagementTask(
        "engagement", build_engagement(examples.spec(), plan, examples), examples, EngagementTaskConfig()
    )
    folder.mkdir()
    return fit(task, plan.loop, training_device(), folder, "mark").best_loss


def test_half_the_rows_cost_little(tmp_path: Path) -> None:
    full, half = (loss_of(rows, tmp_path / str(rows)) for rows in (0, 67))
    assert half == pytest.approx(full, rel=0.03)
