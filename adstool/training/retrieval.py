"""`train retrieval`: two towers under a sampled softmax with ln q subtracted, judged by recall@k.

Where the log has conversions, the towers have a second head for them: see retrieval_conversions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adstool.config import Settings
from adstool.errors import DataError
from adstool.models.inputs import Batch, InputSpec, input_spec
from adstool.models.two_tower import TwoTower, TwoTowerConfig
from adstool.training.batches import Rows
from adstool.training.data import Examples, engaged_rows, load_training_data
from adstool.training.losses import (
    group_softmax,
    inclusion_log_q,
    keep_out_log,
    same_user_hits,
    sampled_softmax,
)
from adstool.training.metrics import ranks_of, recall_at
from adstool.training.options import Plan, TrainOptions, TrainResult, make_plan
from adstool.training.predict import gather, row_parts
from adstool.training.record import fingerprint_of, finish_run, fit_run
from adstool.training.retrieval_conversions import HEAD, Converted, load_converted
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

DEPTHS = (10, 50, 100, 500)  # k of recall@k
JUDGED = 4096  # engaged rows of a split that metrics rest on, evenly spaced; each is ranked among all items

# The first is the default.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"batch_size": 512, "epochs": 15},
    "base": {"batch_size": 2048, "dim": 64, "hidden": (256, 128), "negatives": 2048},
}


@dataclass(frozen=True)
class RetrievalTaskConfig:
    """What `train retrieval` can be told besides the model's and the loop's settings."""

    negatives: int = 512  # R items drawn uniformly a batch, beside the batch's own
    newcomers: float = 0.1  # share of the positives asked for by somebody without a past
    new_items: float = 0.1  # share of the candidates shown as they were when they were shown first
    conversion_weight: float = 0.3  # of the conversion head's loss; 0: no such head
    conversion_share: float = 0.25  # credited impressions in a batch, against its engaged ones
    conversion_engaged: float = 3.0  # of the head's loss on engaged rows, against that on credited ones


class RetrievalTask:
    """Sampled softmax over the engaged rows of the training split."""

    name = "retrieval"

    def __init__(
        self,
        model: TwoTower,
        examples: Examples,
        config: RetrievalTaskConfig,
        converted: Converted | None = None,
    ) -> None:
        """converted: what the second head of `model` learns; None where it has one head."""
        self.model, self.examples, self.config, self.converted = model, examples, config, converted
        if converted is not None:
            self.converted_share = converted.share(np.asarray(examples.item_row))
        train = examples.splits["train"]
        self.engaged = engaged_rows(examples, train)
        self.rows, self.mapped_bytes = len(self.engaged), examples.mapped_bytes
        if self.rows == 0:
            raise DataError(
                "The log holds no impression that was engaged with before its last parts: nothing to learn.",
                "Check that the actions of the log are those of [[actions]].",
            )
        # Where each user engaged for the first time, and so had no past yet.
        users = np.asarray(examples.user[self.engaged])
        self.newcomers = self.engaged[np.unique(users, return_index=True)[1]]
        self.of_request = _request_columns(model)
        counts = np.bincount(examples.item_row[self.engaged], minlength=len(examples.items.content))
        self.popularity = counts
        self.share = (counts / self.rows).astype(np.float32)
        # Items by the training rows that show them, so that a uniform item comes as it was at some time of
        # training: its counters then tell nothing about whether it is a positive.
        items = np.asarray(examples.item_row[train])
        self.by_item = np.argsort(items, kind="stable").astype(np.int64) + train.start
        self.shown, self.starts, self.counts = np.unique(
            items[self.by_item - train.start], return_index=True, return_counts=True
        )

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """User inputs of the positives, and the item inputs of all candidates, each item once."""
        examples, used = self.examples, self.model.config.history_used
        positive = self.engaged[rows]
        credited = self._credited(len(rows), rng)
        drawn = rng.integers(0, len(self.shown), self.config.negatives)
        offset = (rng.random(len(drawn)) * self.counts[drawn]).astype(np.int64)
        pool = np.concatenate([positive, credited, self.by_item[self.starts[drawn] + offset]])
        items, first, place = np.unique(examples.item_row[pool], return_index=True, return_inverse=True)
        user = self._askers(positive, rng)
        if len(credited):
            own = gather(examples, self.model.user_inputs, credited, used)
            user = {name: torch.cat([values, own[name]]) for name, values in user.items()}
        item = gather(examples, self.model.item_inputs, self._as_new(items, pool[first], rng), used)
        batch = {f"user/{k}": v for k, v in user.items()} | {f"item/{k}": v for k, v in item.items()}
        batch["target"] = torch.from_numpy(place[: len(positive)].astype(np.int64))
        batch["share"] = torch.from_numpy(self.share[items])
        batch["user"] = torch.from_numpy(np.asarray(examples.user[positive], dtype=np.int64))
        if self.converted is not None:
            target = place[len(positive) : len(positive) + len(credited)]
            batch["credited"] = torch.from_numpy(target.astype(np.int64))
            batch["credited_share"] = torch.from_numpy(self.converted_share[items])
            batch["advertiser"] = torch.from_numpy(self.converted.advertiser[items].astype(np.int64))
        return batch

    def _credited(self, positives: int, rng: np.random.Generator) -> Rows:
        """Rows with a conversion, drawn for a batch of so many positives; none without the head."""
        if self.converted is None:
            return np.zeros(0, dtype=np.int64)
        count = max(1, round(positives * self.config.conversion_share))
        return rng.choice(self.converted.rows["train"], count)

    def _askers(self, positive: Rows, rng: np.random.Generator) -> Batch:
        """The user inputs of these rows, a share of them those of newcomers with the row's own request.

        Few rows of a log are of users without a past, and many requests are: without this the tower has
        hardly seen what it is asked for them, and popularity serves them better.
        """
        names, used = self.model.user_inputs, self.model.config.history_used
        chosen = np.flatnonzero(rng.random(len(positive)) < self.config.newcomers)
        asked = positive.copy()
        asked[chosen] = rng.choice(self.newcomers, len(chosen))
        batch = gather(self.examples, names, asked, used)
        own = gather(self.examples, tuple(self.of_request), positive[chosen])
        for name, columns in self.of_request.items():
            batch[name][chosen[:, None], columns] = own[name][:, columns]
        return batch

    def _as_new(self, items: NDArray[Any], rows: Rows, rng: np.random.Generator) -> Rows:
        """Rows to read these items from: `rows`, for a share of the items their first of training.

        An item that was engaged with has a past in nearly every row, so that without this having none tells
        against an item whatever it shows. Sample world, two seeds: recall@100 of ads made in the day before
        the request rises from .118 and .109 to .173 and .191; of all, .493 and .478 become .489 and .482.
        """
        chosen = rng.random(len(items)) < self.config.new_items
        first = self.by_item[self.starts[np.searchsorted(self.shown, items)]]
        return np.where(chosen, first, rows)

    def loss(self, batch: Batch) -> Tensor:
        """Sampled softmax of every head, and the penalty on the embeddings that were read."""
        user, user_penalty = self.model.encode_user_with_penalty(_side(batch, "user/"))
        item, item_penalty = self.model.encode_item_with_penalty(_side(batch, "item/"))
        target = batch["target"]
        count, scale = len(target), self.model.scale()
        others = None
        if self.converted is not None:
            others = keep_out_log(batch["credited_share"], len(batch["credited"]))
        log_q = inclusion_log_q(batch["share"], count, self.config.negatives, len(self.shown), others)
        log_q = log_q.to(user.device)
        hidden = same_user_hits(batch["user"], target, len(item))
        loss = sampled_softmax(user[:count, 0] @ item[:, 0].T * scale[0], target, log_q, hidden)
        if self.converted is not None:
            logits = user[:, 1] @ item[:, 1].T * scale[1]
            credited = batch["credited"]
            own = sampled_softmax(logits[count:], credited, log_q)
            own = own + group_softmax(logits[count:], credited, log_q, batch["advertiser"])
            engaged = sampled_softmax(logits[:count], target, log_q, hidden)
            loss = loss + self.config.conversion_weight * (own + self.config.conversion_engaged * engaged)
        return loss + user_penalty + item_penalty

    def validate(self) -> float:
        """The cross entropy of the validation split's engaged items among all items."""
        return self.judge("valid")[0]

    def judge(self, split: str) -> tuple[float, dict[str, Any]]:
        """Full-softmax cross entropy and recall@k of a split's engaged rows, beside popularity's recall."""
        rows = self.examples.splits[split]
        positive = engaged_rows(self.examples, rows)
        if len(positive) == 0:
            return float("nan"), {"rows": 0}
        positive = positive[np.linspace(0, len(positive) - 1, min(len(positive), JUDGED)).astype(np.int64)]
        items, seen_at = item_snapshot(self.examples, rows)
        user, item = self._encode("user", positive)[:, 0], self._encode("item", seen_at)[:, 0]
        wanted = np.searchsorted(items, self.examples.item_row[positive])
        scale = float(self.model.scale()[0].detach())
        ranks, losses = [], []
        for start in range(0, len(positive), 512):
            part = slice(start, start + 512)
            scores = (user[part] @ item.T) * scale
            ranks.append(ranks_of(scores, wanted[part]))
            top = scores.max(axis=1, keepdims=True)
            total = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
            losses.append(total - scores[np.arange(len(scores)), wanted[part]])
        popular = self.popularity[items].astype(np.float64)
        by_popularity = ranks_of(np.broadcast_to(popular, (1, len(items))).repeat(len(positive), 0), wanted)
        metrics: dict[str, Any] = {"rows": len(positive), "items": len(items)}
        for k in DEPTHS:
            if k < len(items):
                metrics[f"recall@{k}"] = recall_at(np.concatenate(ranks), k)
                metrics[f"popular_recall@{k}"] = recall_at(by_popularity, k)
        loss = float(np.mean(np.concatenate(losses)))
        return loss, {**metrics, "log_loss": loss}

    def judge_conversions(self, split: str) -> dict[str, Any]:
        """recall@k of what was converted on in a split, by the conversion head, by the engagement head and by
        popularity; empty without the head."""
        if self.converted is None or not len(self.converted.rows[split]):
            return {}
        positive = self.converted.rows[split]
        items, seen_at = item_snapshot(self.examples, self.examples.splits[split])
        user, item = self._encode("user", positive), self._encode("item", seen_at)
        wanted = np.searchsorted(items, self.examples.item_row[positive])
        popular = np.tile(self.popularity[items].astype(np.float64), (len(positive), 1))
        scores = {"": user[:, 1] @ item[:, 1].T, "engage_": user[:, 0] @ item[:, 0].T, "popular_": popular}
        ranks = {name: ranks_of(values, wanted) for name, values in scores.items()}
        found = {
            f"{name}recall@{k}": recall_at(places, k)
            for name, places in ranks.items()
            for k in DEPTHS
            if k < len(items)
        }
        return {"conversions": {"rows": len(positive), **found}}

    @torch.inference_mode()
    def _encode(self, side: str, rows: Rows) -> NDArray[Any]:
        encode = self.model.encode_user if side == "user" else self.model.encode_item
        names = self.model.user_inputs if side == "user" else self.model.item_inputs
        device = next(self.model.parameters()).device
        parts = []
        for part in row_parts(rows):
            batch = gather(self.examples, names, part, self.model.config.history_used)
            parts.append(encode({k: v.to(device) for k, v in batch.items()}).float().cpu().numpy())
        return np.concatenate(parts)


def _request_columns(model: TwoTower) -> dict[str, NDArray[np.int64]]:
    """The columns of each input that belong to the request and not to the user."""
    spec = model.config.inputs
    columns = {"categorical": spec.columns(("context",)), "numeric": spec.numeric_columns(("context",))}
    return {
        name: np.asarray(places, dtype=np.int64)
        for name, places in columns.items()
        if places and name in model.user_inputs
    }


def _side(batch: Batch, prefix: str) -> Batch:
    return {name[len(prefix) :]: value for name, value in batch.items() if name.startswith(prefix)}


def item_snapshot(examples: Examples, split: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items to choose from during a split, sorted, and for each the row that shows it as the split begins.

    That is its last row before the split; an item first shown within the split stands as it was then, new.
    """
    before = np.asarray(examples.item_row[: split.start])
    known, reverse = np.unique(before[::-1], return_index=True)
    fresh, first = np.unique(np.asarray(examples.item_row[split]), return_index=True)
    new = ~np.isin(fresh, known, assume_unique=True)
    items = np.concatenate([known, fresh[new]])
    rows = np.concatenate([split.start - 1 - reverse, split.start + first[new]])
    order = np.argsort(items)
    return items[order].astype(np.int64), rows[order].astype(np.int64)


def build_retrieval(spec: InputSpec, plan: Plan, *, conversions: bool = False) -> TwoTower:
    """Towers with fresh weights and a head, with `conversions` two."""
    torch.manual_seed(plan.loop.seed)
    heads = ("engage", HEAD) if conversions else ("engage",)
    return TwoTower(TwoTowerConfig(inputs=spec, **{**plan.model, "heads": heads}))


def train_retrieval(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the retrieval towers on the workspace's engaged impressions, into `run_dir`."""
    plan = make_plan(settings, options, PRESETS, TwoTowerConfig, RetrievalTaskConfig)
    dataset = load_training_data(ws, settings, con)
    task_config = RetrievalTaskConfig(**plan.task)
    converted = load_converted(ws, settings, con, dataset) if task_config.conversion_weight > 0 else None
    model = build_retrieval(input_spec(dataset), plan, conversions=converted is not None)
    fingerprint = fingerprint_of(dataset, model, plan.loop, task_config)
    fingerprint += converted.fingerprint if converted is not None else ""
    task = RetrievalTask(model, dataset, task_config, converted)
    fitted, device = fit_run(task, plan.loop, options, run_dir, fingerprint)
    model.eval()
    metrics = {
        split: {**task.judge(split)[1], **task.judge_conversions(split)} for split in ("valid", "test")
    }
    return finish_run(
        run_dir, "retrieval", "two_tower", model, fitted, device, plan.loop, metrics, dataset,
        dataset.encoder,
    )  # fmt: skip
