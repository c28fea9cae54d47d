"""Whether the score of the users' vectors helps the engagement model: two more numeric columns, or none.

    python tests/bench/users_in_ranker.py WORKSPACE [--seeds 3]

Run by hand on a workspace with a full warehouse. A row's score is that of its item after what its user had
engaged with before the request. A model that was trained on a row's own engagement would give its label away,
so training rows are scored by models of the other users (two folds), validation and test rows by one of all.
Every seed has its own users' vectors and its own ranker. The score is the cosine: the logit itself, larger by
a model of all users than by one of half of them, costs .003 AUC on MovieLens 100k, the cosine nothing and
brings nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from adstool.config import Settings, load_settings
from adstool.features.dataset import Dataset
from adstool.features.item_codes import code_sequence
from adstool.models.engagement import EngagementConfig
from adstool.models.inputs import InputSpec, input_spec
from adstool.models.user_sequence import UserSequence, UserSequenceConfig
from adstool.training.co_engagement import CoEngagement
from adstool.training.data import load_training_data
from adstool.training.engagement import PRESETS, EngagementTaskConfig, train_examples
from adstool.training.loop import fit
from adstool.training.loop_config import LoopConfig
from adstool.training.options import TrainOptions, make_plan
from adstool.training.record import training_device
from adstool.training.user_sequence import (
    Held,
    SequenceTask,
    SequenceTaskConfig,
    build_user_sequence,
    padded,
)
from adstool.training.users import REPEATED, SequenceLog
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

LOOP = LoopConfig(epochs=8, batch_size=128, learning_rate=3e-3, schedule="cosine")


def vectors_of(log: SequenceLog, sequences: list[np.ndarray], seed: int) -> UserSequence:
    """A model of users' vectors fitted on these sequences."""
    task = SequenceTaskConfig(repeats=log.repeated() >= REPEATED)
    config = UserSequenceConfig(items=len(log.codes))
    model = build_user_sequence(config, task, CoEngagement(sequences, len(log.codes)), seed)
    nobody = Held([], np.zeros(0, dtype=np.int64))
    with tempfile.TemporaryDirectory() as folder:
        loop = dataclasses.replace(LOOP, seed=seed)
        fit(SequenceTask(model, sequences, nobody, task), loop, training_device(), Path(folder), "bench")
    return model.eval()


@torch.inference_mode()
def scores_of_rows(log: SequenceLog, model: UserSequence, rows: np.ndarray) -> np.ndarray:
    """[n, 2]: the cosine of user and item, and whether there was any; zeros without a past or a code."""
    data, length = log.dataset, model.config.length
    out = np.zeros((len(rows), 2), dtype=np.float32)
    for start in range(0, len(rows), 2048):
        part = rows[start : start + 2048]
        bounds = zip(data.history_start[part].tolist(), data.history_end[part].tolist(), strict=True)
        past = [code_sequence(data.engagements, log.of_row, *bound) for bound in bounds]
        code = torch.from_numpy(log.of_row[np.asarray(data.item_row[part], dtype=np.int64)])
        users = model.user_vectors(torch.from_numpy(padded(past, length)))
        score = functional.cosine_similarity(users[:, :-1], model.table(code)).numpy()
        known = (code.numpy() > 0) & (np.array([len(one) for one in past]) > 0)
        out[start : start + len(part)] = np.stack([np.where(known, score, 0.0), known], axis=1)
    return out


def with_scores(log: SequenceLog, seed: int) -> np.ndarray:
    """The numeric columns of the data set and two more."""
    data, train = log.dataset, log.dataset.splits["train"]
    fold = np.random.default_rng(seed).integers(0, 2, len(data.engagements.offsets) - 1)
    added = np.zeros((len(data), 2), dtype=np.float32)
    held = np.arange(train.stop, len(data))
    added[held] = scores_of_rows(log, vectors_of(log, log.sequences, seed), held)
    for other in (0, 1):
        sequences = [one for one, user in zip(log.sequences, log.users, strict=True) if fold[user] != other]
        user = np.asarray(data.user[train])
        rows = train.start + np.flatnonzero(fold[user] == other)
        added[rows] = scores_of_rows(log, vectors_of(log, sequences, seed), rows)
    added[:, 0] /= max(float(added[train, 0].std()), 1e-6)
    return np.concatenate([np.asarray(data.numeric), added], axis=1)


def widened(spec: InputSpec) -> InputSpec:
    """The inputs with the two columns."""
    return dataclasses.replace(
        spec,
        numeric=(*spec.numeric, "sequence_score", "sequence_known"),
        numeric_sides=(*spec.numeric_sides, "cross", "cross"),
    )


def figures(data: Dataset, spec: InputSpec, settings: Settings, seed: int) -> dict[str, tuple[float, float]]:
    """AUC and NE on the test split, by head."""
    options = TrainOptions(seed=seed)
    plan = make_plan(settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    with tempfile.TemporaryDirectory() as folder:
        result = train_examples("engagement", spec, plan, data, data.encoder, Path(folder), options)
    return {head: (one["auc"], one["ne"]) for head, one in result.metrics["test"].items()}


def main() -> None:
    """Train both ways with every seed, and print the figures and their differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    ws = Workspace(given.workspace)
    settings = load_settings(ws.config)
    with open_warehouse(ws, settings, read_only=True) as con:
        data = load_training_data(ws, settings, con)
    log, spec, plain = SequenceLog(data), input_spec(data), data.numeric
    pairs: list[tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]] = []
    for seed in range(given.seeds):
        data.numeric = plain
        without = figures(data, spec, settings, seed)
        data.numeric = with_scores(log, seed)
        pairs.append((without, figures(data, widened(spec), settings, seed)))
        print(f"seed {seed}: without {pairs[-1][0]}, with {pairs[-1][1]}", flush=True)
    for head in spec.actions:
        table = np.array([[one[head] for one in pair] for pair in pairs])  # seed, arm, figure
        gain = table[:, 1] - table[:, 0]
        for name, column in (("AUC", 0), ("NE", 1)):
            print(
                f"{head:12s}{name:4s} without {table[:, 0, column].mean():.4f}, with "
                f"{table[:, 1, column].mean():.4f}, difference {gain[:, column].mean():+.4f} ± "
                f"{gain[:, column].std(ddof=1) if len(pairs) > 1 else 0.0:.4f}"
            )


if __name__ == "__main__":
    main()
