"""`train lightweight`: a cheap ranker with a head an action, to thin thousands of candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adstool.config import Settings
from adstool.errors import UsageError
from adstool.models.inputs import Batch, InputSpec, input_spec
from adstool.models.pairs import PairModel
from adstool.models.registry import KINDS
from adstool.training.alignment import cut_loss, first, inside, neural_sort, standardised, weighed
from adstool.training.batches import Rows
from adstool.training.data import Examples, base_rates, engaged_rows, happened, load_training_data
from adstool.training.engagement import summed_log_loss
from adstool.training.lists import Lessons, list_batch, list_logits, list_scores, relative_error
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

    from adstool.features.dataset import Dataset

# The first is the default: on 6,000 ads of a sample world (tests/bench/lightweight.py) it loses half of the
# utility that two towers lose. `small` are two towers, `interactrank` as in InteractRank's baseline.
KIND_OF = {"cold": "cold", "inttower": "inttower"}  # preset -> architecture; the others are two towers
PRESETS: dict[str, dict[str, Any]] = {
    "cold": {"dim": 16, "hidden": (96,), "average": 0.99},
    "inttower": {"dim": 16, "hidden": (96, 64), "average": 0.99},
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
}

CUTS = 2  # that alignment looks at: what is kept, and what is shown of it
JUDGED_LISTS = 64  # lists of the validation split at once


@dataclass(frozen=True)
class LightweightTaskConfig:
    """What `train lightweight` can be told besides the model's and the loop's settings."""

    gamma: float = 0.0  # focal exponent; 2 in InteractRank, 0 keeps probabilities calibrated
    softmax_weight: float = 0.01  # of the in-batch softmax over the engaged rows
    distill: float = 0.0  # weight of what the heavy ranker says of candidates, shown or not; 0: not asked
    worth: float = 1.0  # weight within that of the squared error of what a candidate is worth
    align: bool = False  # also keep what the heavy ranker would put first (training.alignment)
    tau: float = 50.0  # of the relaxed sort that alignment is by
    lists: int = 1600  # requests the heavy ranker is asked about
    candidates: int = 96  # of each
    lists_a_step: int = 12  # beside every batch

    @property
    def taught(self) -> bool:
        """Whether the heavy ranker is asked at all."""
        return self.distill > 0 or self.align


class LightweightTask:
    """Cross entropy of every head, a little in-batch softmax between engaged items, and the heavy ranker's
    opinion of lists of candidates where there are lessons."""

    name = "lightweight"

    def __init__(
        self,
        model: PairModel,
        examples: Examples,
        config: LightweightTaskConfig,
        lessons: Lessons | None = None,
    ) -> None:
        self.model, self.examples, self.config, self.lessons = model, examples, config, lessons
        train = examples.splits["train"]
        self.first, self.rows = train.start, train.stop - train.start
        self.mapped_bytes = examples.mapped_bytes
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
        if self.lessons is not None:
            lists = self.lessons.train
            some = rng.choice(len(lists), min(self.config.lists_a_step, len(lists)), replace=False)
            batch |= list_batch(lists, self.examples.items.content, self.inputs, some)
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of all heads, .01 times the softmax, the penalty on the embeddings read, and what the
        lists teach."""
        logits, penalty, user, item = self.model.with_penalty(batch)  # the rows of both sides
        loss = masked_bce(logits, batch["labels"], batch["weight"], self.config.gamma) + penalty
        loss = loss + self._softmax(batch, user, item)
        if self.lessons is None:
            return loss
        soft, cuts = self.taught(batch, self.lessons)
        loss = loss + self.config.distill * soft
        return weighed([loss, *cuts], self.model.log_weights) if cuts else loss

    def _softmax(self, batch: Batch, user: Tensor, item: Tensor) -> Tensor:
        engaged = batch["engaged"]
        if self.config.softmax_weight == 0 or len(batch["candidate"]) < 2:
            return user.new_zeros(())
        asked, shown = self.model.matched(user[engaged], item[batch["candidate"]])
        scores = asked @ shown.T
        log_q = inclusion_log_q(batch["share"], len(engaged), 0, 0)
        hidden = same_user_hits(batch["user"], batch["target"], scores.shape[1])
        return self.config.softmax_weight * sampled_softmax(scores, batch["target"], log_q, hidden)

    def taught(self, batch: Batch, lessons: Lessons) -> tuple[Tensor, list[Tensor]]:
        """Of the lists of a batch, the cross entropy with the heavy ranker's probabilities, and with `align`
        the loss of every cut."""
        logits = list_logits(self.model, batch)
        heads = logits.shape[2]
        weight = logits.new_ones(logits.shape[0] * logits.shape[1])
        soft = masked_bce(logits.reshape(-1, heads), batch["taught"].reshape(-1, heads), weight)
        scores = list_scores(logits, batch, lessons.value)
        if self.config.worth > 0:
            soft = soft + self.config.worth * relative_error(scores, batch["worth"])
        if not self.config.align:
            return soft, []
        order = neural_sort(standardised(scores), self.config.tau)
        depths = [max(1, round(share * scores.shape[1])) for share in lessons.cuts]
        return soft, [cut_loss(inside(order, depth), first(batch["worth"], depth)) for depth in depths]

    def validate(self) -> float:
        """The log loss of the validation split, summed over heads, and what its lists add."""
        rows = self.examples.splits["valid"]
        labels = happened(np.asarray(self.examples.labels[rows]))
        loss = summed_log_loss(predict_logits(self.model, self.examples, rows), labels)
        return loss if self.lessons is None else loss + self._judged(self.lessons)

    def _judged(self, lessons: Lessons) -> float:
        """What the lists of the validation split add, on the model's device."""
        device, lists = next(self.model.parameters()).device, lessons.valid
        total = 0.0
        for start in range(0, len(lists), JUDGED_LISTS):
            rows = slice(start, start + JUDGED_LISTS)
            batch = list_batch(lists, self.examples.items.content, self.inputs, rows)
            there = {name: value.to(device) for name, value in batch.items()}
            soft, cuts = self.taught(there, lessons)
            total += (self.config.distill * float(soft) + float(sum(cuts))) * len(there["worth"])
        return total / len(lists)


def build_lightweight(
    kind: str, spec: InputSpec, plan: Plan, examples: Examples, loss_parts: int = 0
) -> PairModel:
    """A model of this kind with fresh weights and a head an action, biases at the base rates."""
    torch.manual_seed(plan.loop.seed)
    config = {**plan.model, "heads": spec.actions, "loss_parts": loss_parts}
    model = KINDS[kind].model(KINDS[kind].config(inputs=spec, **config))
    assert isinstance(model, PairModel)
    rates = torch.from_numpy(base_rates(examples, examples.splits["train"]))
    with torch.no_grad():
        model.bias.copy_(torch.logit(rates))
    return model


def lessons_for(
    dataset: Dataset, config: LightweightTaskConfig, options: TrainOptions, seed: int
) -> Lessons | None:
    """What the heavy ranker teaches, None where it is not asked. Raises UsageError where nobody can ask."""
    if not config.taught:
        return None
    if config.lists < 1 or config.candidates < 2 or config.lists_a_step < 1:
        raise UsageError(
            "--set lists, candidates or lists_a_step is too small for lists to be learned from.",
            "Give 2 candidates or more, and 1 list or more, a step too.",
        )
    if options.teach is None:
        raise UsageError(
            "--align and --set distill need a heavy ranker to ask, and none is given here.",
            "Leave out --align and --set distill.",
        )
    return options.teach(dataset, config.lists, config.candidates, seed)


def train_lightweight(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the lightweight ranker on the workspace's impressions, into `run_dir`."""
    kind = KIND_OF.get(options.preset or next(iter(PRESETS)), "two_tower")
    plan = make_plan(settings, options, PRESETS, KINDS[kind].config, LightweightTaskConfig)  # type: ignore[arg-type]
    dataset = load_training_data(ws, settings, con)
    spec = input_spec(dataset)
    task_config = LightweightTaskConfig(**plan.task)
    model = build_lightweight(kind, spec, plan, dataset, 1 + CUTS if task_config.align else 0)
    fingerprint = fingerprint_of(dataset, model, plan.loop, task_config)
    lessons = lessons_for(dataset, task_config, options, plan.loop.seed)
    if lessons is not None:
        fingerprint += f"-{lessons.teacher}-{lessons.train.logged}"
    task = LightweightTask(model, dataset, task_config, lessons)
    fitted, device = fit_run(task, plan.loop, options, run_dir, fingerprint)
    metrics = probability_metrics(model, dataset, run_dir, calibration_context(dataset, spec))
    return finish_run(
        run_dir, "lightweight", kind, model, fitted, device, plan.loop, metrics, dataset,
        dataset.encoder, cross=model.cross.tolist(),
    )  # fmt: skip
