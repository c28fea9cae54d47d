"""`train users`: a vector of every user from what he engaged with, in order, ads and pins alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.errors import DataError
from adstool.features.item_codes import ItemCodes, code_sequence
from adstool.models.user_sequence import UserSequence, UserSequenceConfig
from adstool.training.co_engagement import CoEngagement
from adstool.training.data import engaged_rows, load_training_data
from adstool.training.metrics import ranks_of, recall_at
from adstool.training.options import TrainOptions, TrainResult, make_plan
from adstool.training.record import fingerprint_of, finish_run, fit_run
from adstool.training.retrieval import JUDGED, item_snapshot
from adstool.training.user_sequence import (
    CHUNK,
    Held,
    SequenceTask,
    SequenceTaskConfig,
    build_user_sequence,
    leave_out,
    scores_of,
)
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from adstool.features.dataset import Dataset

DEPTHS = (10, 100)  # k of recall@k
DECAY = 0.7  # an engagement, of the item-item baseline
REPEATED = 0.01  # share of engagements with an item known from before, from which repeats are looked for

# The first is the default. `actions` looks ahead as PinnerFormer does, to any of the next ten engagements.
_LOOP = {"batch_size": 128, "epochs": 8, "schedule": "cosine", "learning_rate": 3e-3}
PRESETS: dict[str, dict[str, Any]] = {
    "small": _LOOP,
    "base": {**_LOOP, "dim": 128, "layers": 1},
    "actions": {**_LOOP, "horizon": 10},
}


@dataclass(frozen=True)
class Judged:
    """Engaged impressions of a split: what each user had engaged with before, and what he then chose."""

    held: Held
    choices: NDArray[np.int64]  # rows of the items there were to choose from, sorted
    chosen: NDArray[np.int64]  # index into `choices`, a row an impression


class SequenceLog:
    """The log as sequences of codes: what training may know, and what each split asks."""

    def __init__(self, dataset: Dataset) -> None:
        """Raises DataError when nobody engaged with anything before the validation split."""
        self.dataset = dataset
        log = dataset.engagements
        until = int(dataset.ts[dataset.splits["valid"].start])
        users = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
        known = np.asarray(log.ts) < until
        if not known.any():
            raise DataError(
                "Nobody in the log engaged with anything before its last parts, so there are no sequences.",
                "Check that the actions of the log are those of [[actions]].",
            )
        self.codes = ItemCodes.engaged_with(dataset.items, np.asarray(log.item)[known])
        self.of_row = self.codes.of_rows(dataset.items)
        # Actions lie by time within a user, so that what is known of one is the head of his range.
        ends = log.offsets[:-1] + np.bincount(users[known], minlength=len(log.offsets) - 1)
        self.users = np.flatnonzero(ends > log.offsets[:-1])  # numbers of those who have a sequence
        pairs = zip(log.offsets[self.users].tolist(), ends[self.users].tolist(), strict=True)
        self.sequences = [code_sequence(log, self.of_row, start, end) for start, end in pairs]

    def judged(self, split: str) -> Judged:
        """At most JUDGED engaged impressions of the split, evenly spaced, each with all that was engaged with
        before it; the same as `train retrieval` is judged by."""
        dataset, rows = self.dataset, self.dataset.splits[split]
        positive = engaged_rows(dataset, rows)
        if len(positive):
            places = np.linspace(0, len(positive) - 1, min(len(positive), JUDGED)).astype(np.int64)
            positive = positive[places]
        choices, _ = item_snapshot(dataset, rows)
        bounds = zip(
            dataset.history_start[positive].tolist(), dataset.history_end[positive].tolist(), strict=True
        )
        histories = [code_sequence(dataset.engagements, self.of_row, start, end) for start, end in bounds]
        item = np.asarray(dataset.item_row[positive], dtype=np.int64)
        return Judged(Held(histories, self.of_row[item]), choices, np.searchsorted(choices, item))

    def repeated(self) -> float:
        """The share of training's engagements with an item that the user had engaged with before."""
        steps = sum(len(one) - 1 for one in self.sequences)
        again = sum(len(one) - len(np.unique(one)) for one in self.sequences)
        return again / steps if steps else 0.0

    def metrics(
        self, model: UserSequence, alike: CoEngagement, judged: Judged, repeats: bool
    ) -> dict[str, Any]:
        """recall@k of the chosen item among all there were, beside popularity's and item-item similarity's.

        Items that training has not seen have no score and stand behind all others; so does, without repeats
        and in all three, what the user had engaged with before.
        """
        codes, histories = self.of_row[judged.choices], judged.held.histories
        ranks: dict[str, list[NDArray[np.int64]]] = {"": [], "popular_": [], "item_item_": []}
        for start in range(0, len(histories), CHUNK):
            part, chosen = histories[start : start + CHUNK], judged.chosen[start : start + CHUNK]
            scores = {
                "": scores_of(model, part),
                "popular_": np.tile(alike.counts, (len(part), 1)),
                "item_item_": alike.scores(part, DECAY),
            }
            for name, table in scores.items():
                if not repeats:
                    leave_out(table, part)
                ranks[name].append(ranks_of(table[:, codes], chosen))
        result: dict[str, Any] = {"rows": len(histories), "items": len(codes)}
        for k in (k for k in DEPTHS if k < len(codes) and len(histories)):
            for name, parts in ranks.items():
                result[f"{name}recall@{k}"] = recall_at(np.concatenate(parts), k)
        return result


def train_users(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the users' vectors on the workspace's positive engagements, into `run_dir`."""
    plan = make_plan(settings, options, PRESETS, UserSequenceConfig, SequenceTaskConfig)
    dataset = load_training_data(ws, settings, con)
    log = SequenceLog(dataset)
    config = UserSequenceConfig(items=len(log.codes), **plan.model)
    task_config = SequenceTaskConfig(**{"repeats": log.repeated() >= REPEATED, **plan.task})
    alike = CoEngagement(log.sequences, len(log.codes))
    model = build_user_sequence(config, task_config, alike, plan.loop.seed)
    judged = {split: log.judged(split) for split in ("valid", "test")}
    task = SequenceTask(model, log.sequences, judged["valid"].held, task_config)
    fingerprint = fingerprint_of(dataset, model, plan.loop, task_config)
    fitted, device = fit_run(task, plan.loop, options, run_dir, fingerprint)
    model.eval()
    metrics = {split: log.metrics(model, alike, one, task_config.repeats) for split, one in judged.items()}
    return finish_run(
        run_dir,
        "users",
        "user_sequence",
        model,
        fitted,
        device,
        plan.loop,
        metrics,
        dataset,
        log.codes,
        repeats=task_config.repeats,
    )
