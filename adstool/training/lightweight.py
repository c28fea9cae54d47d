"""`train lightweight`: a cheap ranker with a head an action, to thin thousands of candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adstool.config import Settings
from adstool.models.inputs import Batch, InputSpec, input_spec
from adstool.models.pairs import PairModel
from adstool.models.registry import KINDS
from adstool.training.batches import Rows
from adstool.training.data import Examples, base_rates, engaged_rows, happened, load_training_data
from adstool.training.engagement import summed_log_loss
from adstool.training.losses import inclusion_log_q, masked_bce, same_user_hits, sampled_softmax
from adstool.training.options import Plan, TrainOptions, TrainResult, make_plan
from adstool.training.predict import gather, predict_logits
from adstool.training.record import (
    calibration_context,
    fingerprint_of,
    finish_run,
    fit_run,
    probability_metrics,
)
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

# The first is the default. `interactrank` is the recipe of InteractRank's two-tower baseline.
KIND_OF = {"inttower": "inttower", "cold": "cold"}  # preset -> architecture; the others are two towers
PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "dim": 16,
        "hidden": (96,),
        "mask_blocks": 2,
        "mask_width": 48,
        "average": 0.99,
        "initial_scale": 4.0,
    },
    "interactrank": {
        "dim": 64,
        "hidden": (256,),
        "mask_blocks": 4,
        "mask_width": 64,
        "initial_scale": 4.0,
        "gamma": 2.0,
        "learning_rate": 6e-4,
    },
    "inttower": {"dim": 16, "hidden": (96, 64), "average": 0.99},
    "cold": {"dim": 32, "hidden": (96,), "average": 0.99},
}


@dataclass(frozen=True)
class LightweightTaskConfig:
    """What `train lightweight` can be told besides the model's and the loop's settings."""

    gamma: float = 0.0  # focal exponent; 2 in InteractRank, 0 keeps probabilities calibrated
    softmax_weight: float = 0.01  # of the in-batch softmax over the engaged rows


class LightweightTask:
    """Cross entropy of every head, and a little in-batch softmax between engaged items."""

    name = "lightweight"

    def __init__(self, model: PairModel, examples: Examples, config: LightweightTaskConfig) -> None:
        self.model, self.examples, self.config = model, examples, config
        train = examples.splits["train"]
        self.first, self.rows = train.start, train.stop - train.start
        self.inputs = model.input_names
        engaged = engaged_rows(examples, train)
        self.engaged = np.zeros(self.rows, dtype=bool)
        self.engaged[engaged - self.first] = True
        counts = np.bincount(examples.item_row[engaged], minlength=len(examples.items.content))
        self.share = (counts / max(len(engaged), 1)).astype(np.float32)

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """Inputs, labels, weights, and which rows are engaged with whom and what."""
        engaged = np.flatnonzero(self.engaged[rows])
        rows = rows + self.first
        batch = gather(self.examples, self.inputs, rows, self.model.config.history_used)
        batch["labels"] = torch.from_numpy(happened(self.examples.labels[rows]))
        batch["weight"] = torch.from_numpy(np.ascontiguousarray(self.examples.sample_weight[rows]))
        items, first, target = np.unique(
            self.examples.item_row[rows[engaged]], return_index=True, return_inverse=True
        )
        batch["engaged"] = torch.from_numpy(engaged)
        batch["candidate"] = torch.from_numpy(engaged[first])
        batch["target"] = torch.from_numpy(target.astype(np.int64))
        batch["share"] = torch.from_numpy(self.share[items])
        batch["user"] = torch.from_numpy(np.asarray(self.examples.user[rows[engaged]], dtype=np.int64))
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of all heads, .01 times the softmax, and the penalty on the embeddings read."""
        logits, penalty, user, item = self.model.with_penalty(batch)  # the rows of both sides
        loss = masked_bce(logits, batch["labels"], batch["weight"], self.config.gamma) + penalty
        engaged = batch["engaged"]
        if self.config.softmax_weight == 0 or len(batch["candidate"]) < 2:
            return loss
        asked, shown = self.model.matched(user[engaged], item[batch["candidate"]])
        scores = asked @ shown.T
        log_q = inclusion_log_q(batch["share"], len(engaged), 0, 0)
        hidden = same_user_hits(batch["user"], batch["target"], scores.shape[1])
        softmax = sampled_softmax(scores, batch["target"], log_q, hidden)
        return loss + self.config.softmax_weight * softmax

    def validate(self) -> float:
        """The log loss of the validation split, summed over heads."""
        rows = self.examples.splits["valid"]
        labels = happened(np.asarray(self.examples.labels[rows]))
        return summed_log_loss(predict_logits(self.model, self.examples, rows), labels)


def build_lightweight(kind: str, spec: InputSpec, plan: Plan, examples: Examples) -> PairModel:
    """A model of this kind with fresh weights and a head an action, biases at the base rates."""
    torch.manual_seed(plan.loop.seed)
    model = KINDS[kind].model(KINDS[kind].config(inputs=spec, **{**plan.model, "heads": spec.actions}))
    assert isinstance(model, PairModel)
    rates = torch.from_numpy(base_rates(examples, examples.splits["train"]))
    with torch.no_grad():
        model.bias.copy_(torch.logit(rates))
    return model


def train_lightweight(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the lightweight ranker on the workspace's impressions, into `run_dir`."""
    kind = KIND_OF.get(options.preset, "two_tower")
    plan = make_plan(settings, options, PRESETS, KINDS[kind].config, LightweightTaskConfig)  # type: ignore[arg-type]
    dataset = load_training_data(ws, settings, con)
    spec = input_spec(dataset)
    task_config = LightweightTaskConfig(**plan.task)
    model = build_lightweight(kind, spec, plan, dataset)
    fingerprint = fingerprint_of(dataset, model, plan.loop, task_config)
    task = LightweightTask(model, dataset, task_config)
    fitted, device = fit_run(task, plan.loop, options, run_dir, fingerprint)
    metrics = probability_metrics(model, dataset, run_dir, calibration_context(dataset, spec))
    return finish_run(
        run_dir, "lightweight", kind, model, fitted, device, plan.loop, metrics, dataset,
        dataset.encoder, cross=model.cross.tolist(),
    )  # fmt: skip
