"""`train engagement`: the heavy ranker on logged impressions, or on anyone's flat table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adstool.config import Settings
from adstool.errors import UsageError
from adstool.models.engagement import EngagementConfig, EngagementModel
from adstool.models.inputs import Batch, InputSpec, input_spec
from adstool.models.layers import quantile_edges
from adstool.progress import log
from adstool.training.batches import Rows
from adstool.training.data import Examples, base_rates, happened, load_training_data
from adstool.training.losses import masked_bce
from adstool.training.metrics import log_loss, sigmoid
from adstool.training.options import Plan, TrainOptions, TrainResult, make_plan
from adstool.training.predict import gather, predict_logits
from adstool.training.record import (
    calibration_context,
    fingerprint_of,
    finish_run,
    fit_run,
    probability_metrics,
)
from adstool.training.sequences import mask_time
from adstool.training.warm_start import warm_start
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

EDGE_SAMPLE = 200_000  # rows that the quantile edges of numeric columns rest on

# The first is the default: sized for tens of thousands of impressions. A preset is a row here.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"average": 0.99, "cross_rank": 64},
    "base": {"hidden": (400, 400), "cross_layers": 3, "embedding_dim": 16},
    "large": {
        # For millions of impressions and a GPU: wukong, which gains most from width and depth.
        "trunk": "wukong",
        "embedding_dim": 32,
        "tokens": 32,
        "token_dim": 64,
        "trunk_layers": 4,
        "wukong_rank": 24,
        "hidden": (512, 256),
        "average": 0.99,
        "recompute": True,
    },
    "masknet": {"average": 0.99, "trunk": "masknet"},
    "dhen": {"average": 0.99, "trunk": "dhen"},
    "wukong": {"average": 0.99, "trunk": "wukong"},
    "transact": {"average": 0.99, "cross_rank": 64, "sequence": "transact", "sequence_dim": 8},
    "hstu": {"average": 0.99, "cross_rank": 64, "sequence": "hstu", "sequence_dim": 16, "sequence_layers": 1},
    "dcnv2": {
        # The DCN-V2 that public CTR benchmarks train: 3 crosses beside an MLP of 400 x 3, 16 a field.
        "hidden": (400, 400, 400),
        "cross_layers": 3,
        "embedding_dim": 16,
        # Small first embeddings that learn fast: +.006 of AUC on MovieLens as a flat table, where rows of ids
        # that are seldom touched would else hardly move (SparseAdam has no momentum between touches).
        "embedding_std": 1e-4,
        "table_rate": 5.0,
        "dense_init": "xavier",
        "numeric_bins": 0,
        "dropout": 0.0,
        "id_dropout": 0.0,
        "embedding_penalty": 0.0,
        "weight_decay": 0.0,
    },
}


@dataclass(frozen=True)
class EngagementTaskConfig:
    """What `train engagement` can be told besides the model's and the loop's settings."""

    gamma: float = 0.0  # focal exponent; 0 is plain cross entropy
    amount_weight: float = 0.3  # of the losses of amounts, beside the cross entropies of what happens
    negatives: float = (
        1.0  # the share kept of impressions on which nothing happened, which then weigh 1 / share
    )


class EngagementTask:
    """Cross entropy of every action's head over the training split."""

    def __init__(
        self, name: str, model: EngagementModel, examples: Examples, config: EngagementTaskConfig
    ) -> None:
        self.name, self.model, self.examples, self.config = name, model, examples, config
        self.kept, self.boost = thinned(examples, config.negatives)
        self.rows, self.mapped_bytes = len(self.kept), examples.mapped_bytes

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """Inputs, labels and weights of training rows."""
        boost = self.boost[rows]
        rows = self.kept[rows]
        config = self.model.config
        batch = gather(self.examples, self.model.input_names, rows, config.history_used, config.long_history)
        mask_time(config, batch, rng)
        labels = self.examples.labels[rows]
        batch["labels"] = torch.from_numpy(happened(labels))
        if self.model.amounts is not None:
            batch["amounts"] = torch.from_numpy(np.ascontiguousarray(labels[:, self.model.amounts.columns]))
        batch["weight"] = torch.from_numpy(np.asarray(self.examples.sample_weight[rows]) * boost)
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy and the penalty on the embeddings that were read."""
        logits, penalty, shared = self.model.with_trunk(batch)
        loss = masked_bce(logits, batch["labels"], batch["weight"], self.config.gamma) + penalty
        if self.model.amounts is None:
            return loss
        amounts = self.model.amounts.loss(shared, batch["amounts"], batch["weight"])
        return loss + self.config.amount_weight * amounts

    def validate(self) -> float:
        """The log loss of the validation split, summed over heads."""
        rows = self.examples.splits["valid"]
        labels = happened(np.asarray(self.examples.labels[rows]))
        return summed_log_loss(predict_logits(self.model, self.examples, rows), labels)


def thinned(examples: Examples, share: float) -> tuple[Rows, np.ndarray]:
    """Training rows [n] with only a share of those on which nothing happened, and weights [n], 1 / share for
    those: every head's loss stays what it was on average, so that probabilities need no correction.

    Which rows are kept depends on nothing but their number. Raises UsageError for a share outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(f"--set negatives={share} is not above 0 and at most 1.", "Try --set negatives=0.25")
    train = examples.splits["train"]
    rows = np.arange(train.start, train.stop)
    if share == 1.0:
        return rows, np.ones(len(rows), dtype=np.float32)
    empty = ~(np.nan_to_num(np.asarray(examples.labels[train])) > 0).any(axis=1)
    keep = ~empty | (np.random.default_rng(len(rows)).random(len(rows)) < share)
    return rows[keep], np.where(empty[keep], 1.0 / share, 1.0).astype(np.float32)


def summed_log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Log loss summed over the heads that have known labels; nan when none has."""
    losses = []
    for head in range(labels.shape[1]):
        known = ~np.isnan(labels[:, head])
        if known.any():
            losses.append(log_loss(labels[known, head], sigmoid(logits[known, head])))
    return float(np.sum(losses)) if losses else float("nan")


def build_engagement(spec: InputSpec, plan: Plan, examples: Examples) -> EngagementModel:
    """A model with fresh weights, its bins at the quantiles of training and its biases at the base rates."""
    torch.manual_seed(plan.loop.seed)
    model = EngagementModel(EngagementConfig(inputs=spec, **plan.model))
    train = examples.splits["train"]
    set_bins(model, examples.numeric, np.arange(train.start, train.stop))
    rates = torch.from_numpy(base_rates(examples, train))
    with torch.no_grad():
        model.heads.bias.copy_(torch.logit(rates))
        if model.amounts is not None:
            seen = torch.from_numpy(np.asarray(examples.labels[train])[:, model.amounts.columns])
            model.amounts.start_from(seen)
    return model


def set_bins(model: EngagementModel, numeric: np.ndarray, rows: Rows) -> None:
    """Put the edges of the model's bins at the quantiles of a sample of these rows of numeric [N, M]."""
    if model.bins is not None:
        sample = np.asarray(numeric[rows[:: max(len(rows) // EDGE_SAMPLE, 1)]], dtype=np.float32)
        model.bins.set_edges(quantile_edges(torch.from_numpy(sample), model.bins.bins))


def train_engagement(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the heavy ranker on the workspace's impressions, into `run_dir`."""
    plan = make_plan(settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    start = ws.require_run("engagement", "train engagement") if options.warm_start else None
    dataset = load_training_data(ws, settings, con)
    spec = input_spec(dataset)
    context = calibration_context(dataset, spec)
    encoder = dataset.encoder
    return train_examples("engagement", spec, plan, dataset, encoder, run_dir, options, context, start)


def train_examples(
    name: str,
    spec: InputSpec,
    plan: Plan,
    examples: Examples,
    encoder: Any,
    run_dir: Path,
    options: TrainOptions,
    context: Mapping[str, np.ndarray] | None = None,
    start: Path | None = None,
) -> TrainResult:
    """Train an EngagementModel on any examples, from the weights of the run `start` if it is given, and
    write the run."""
    task_config = EngagementTaskConfig(**plan.task)
    model = build_engagement(spec, plan, examples)
    fingerprint = fingerprint_of(examples, model, plan.loop, task_config)
    facts: dict[str, Any] = {}
    if model.amounts is not None:
        facts["typical_amounts"] = model.amounts.typical.tolist()
    if start is not None:
        fingerprint = f"{fingerprint}-{start.name}"
        facts["started_from"] = start.name
        carried = warm_start(model, start, encoder)
        log.info(f"{carried} of {len(model.state_dict())} tensors start from {start.name}.")
    if model.embedding.hashes:
        log.info(f"Embedding table: {model.embedding.storage}.")
    task = EngagementTask(name, model, examples, task_config)
    fitted, device = fit_run(task, plan.loop, options, run_dir, fingerprint)
    metrics = probability_metrics(model, examples, run_dir, context or {})
    return finish_run(
        run_dir,
        name,
        "engagement",
        model,
        fitted,
        device,
        plan.loop,
        metrics,
        examples,
        encoder,
        **facts,
    )
