"""Amazon Video, leave last out: which item a user engages with next, ranked among all 23,715.

    python tests/bench/amazon_video.py [/work/shared/data/amazon_video/Video.txt] [--seeds 3] [--users 8000]

Run by hand. The last event of a user is the test; histories of the test end with the one before it. Items of
the history are left out of the ranking, equal scores stand in the middle of their ranks. What is chosen (the
shrinkage and decay of the item-item baseline, the epochs of a model) is chosen on the event before the test,
by a fit that has not seen it; every row of the table is then of a fit on all events but the test's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adstool.models.user_sequence import UserSequence, UserSequenceConfig
from adstool.training.co_engagement import CoEngagement
from adstool.training.loop import fit
from adstool.training.loop_config import LoopConfig
from adstool.training.record import training_device
from adstool.training.user_sequence import (
    Held,
    SequenceTask,
    SequenceTaskConfig,
    build_user_sequence,
    scores_of,
)

DECAY = 0.7
SHRINKAGES, DECAYS = (20.0, 50.0, 100.0), (0.6, 0.7, 0.8)
Array = NDArray[Any]
Histories = Sequence[Array]
# name -> settings of the model, settings of the task, epochs at most
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "two towers, mean of history": ({"ordered": False}, {"spectral": False}, 12),
    "mean, spectral start": ({"ordered": False}, {}, 5),
    "decay, random start": ({}, {"spectral": False}, 12),
    "user sequence": ({}, {}, 5),
    "user sequence, horizon 3": ({}, {"horizon": 3}, 5),
    "user sequence and attention": ({"layers": 1}, {}, 5),
}


def read(path: Path) -> list[Array]:
    """The codes of every user, oldest first."""
    user, item = np.loadtxt(path, dtype=np.int64).T
    return np.split(item, np.flatnonzero(np.diff(user)) + 1)


def judge(score: Callable[[Histories], Array], held: Held) -> Array:
    """Recall@10, recall@100 and NDCG@10, by scores [n, items] of n histories."""
    total = np.zeros(3)
    for start in range(0, len(held.wanted), 500):
        histories, wanted = held.histories[start : start + 500], held.wanted[start : start + 500]
        scores = np.asarray(score(histories), dtype=np.float64)
        for row, history in enumerate(histories):
            scores[row, history] = -np.inf  # an item wanted again would count as missed; here none is
        scores[:, 0] = -np.inf
        own = scores[np.arange(len(wanted)), wanted][:, None]
        rank = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
        gain = np.where(rank < 10, 1.0 / np.log2(rank + 2.0), 0.0)
        total += [(rank < 10).sum(), (rank < 100).sum(), gain.sum()]
    return total / len(held.wanted)


def shown(name: str, figures: list[Array], note: str) -> None:
    """A line of the table: mean and standard deviation over seeds."""
    table = np.array(figures)
    spread = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(table.shape[1])
    cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(table.mean(axis=0), spread, strict=True)]
    print(f"{name:34s} {'   '.join(cells)}   {note}", flush=True)


class Bench:
    """The two fits of the protocol and the floors."""

    def __init__(self, sequences: list[Array], users: int, dim: int) -> None:
        self.dim, self.items = dim, max(int(one.max()) for one in sequences) + 1
        judged = [one for one in sequences if len(one) >= 3][:users]
        # Whoever has fewer than three events is not judged, and is trained on.
        self.chosen_on = [one[:-2] if len(one) >= 3 else one for one in sequences]
        self.fitted = [one[:-1] if len(one) >= 3 else one for one in sequences]
        self.valid = Held([one[:-2] for one in judged], np.array([one[-2] for one in judged]))
        self.test = Held([one[:-1] for one in judged], np.array([one[-1] for one in judged]))

    def floors(self) -> None:
        """Popularity, item-item cosine as it is, with decay, and with what the validation event chose."""
        counts = CoEngagement(self.fitted, self.items).counts
        shown("popularity", [judge(lambda some: np.tile(counts, (len(some), 1)), self.test)], "")
        plain = CoEngagement(self.fitted, self.items, 0.0, 0.0)
        shown("item-item cosine", [judge(plain.scores, self.test)], "")
        shown(f"item-item, decay {DECAY}", [judge(lambda some: plain.scores(some, DECAY), self.test)], "")
        tried = {}
        for shrinkage in SHRINKAGES:
            alike = CoEngagement(self.chosen_on, self.items, shrinkage)
            for decay in DECAYS:
                figures = judge(lambda some, a=alike, d=decay: a.scores(some, d), self.valid)
                tried[shrinkage, decay] = figures[0]
        best = max(tried, key=lambda key: tried[key])
        alike = CoEngagement(self.fitted, self.items, best[0])
        figures = judge(lambda some: alike.scores(some, best[1]), self.test)
        shown("item-item, shrunk and decayed", [figures], f"shrinkage {best[0]:g}, decay {best[1]}")

    def fit(
        self, sequences: list[Array], held: Held, arm: tuple[dict[str, Any], dict[str, Any], int], seed: int
    ) -> tuple[UserSequence, int]:
        """A model fitted on `sequences`, and its best epoch on `held`, the last one where that is empty."""
        model_settings, task_settings, epochs = arm
        task = SequenceTaskConfig(repeats=False, **task_settings)
        config = UserSequenceConfig(items=self.items, dim=self.dim, **model_settings)
        model = build_user_sequence(config, task, CoEngagement(sequences, self.items), seed)
        loop = LoopConfig(epochs=epochs, batch_size=128, schedule="cosine", precision="fp32", seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            done = fit(
                SequenceTask(model, sequences, held, task), loop, training_device(), Path(folder), "bench"
            )
        return model.eval(), done.best_epoch

    def arm(self, name: str, seeds: int) -> None:
        """Choose the epochs with the first seed, then fit every seed with the validation events included."""
        model_settings, task_settings, _ = ARMS[name]
        started, figures = time.process_time(), []
        chosen, epochs = self.fit(self.chosen_on, self.valid, ARMS[name], 0)
        valid = judge(lambda some: scores_of(chosen, some), self.valid)
        for seed in range(seeds):
            nobody = Held([], np.zeros(0, dtype=np.int64))
            model, _ = self.fit(self.fitted, nobody, (model_settings, task_settings, epochs), seed)
            figures.append(judge(lambda some, m=model: scores_of(m, some), self.test))
        seconds = (time.process_time() - started) / (seeds + 1)
        shown(name, figures, f"{epochs} epochs, {seconds:.0f} CPU s a fit, validation {valid[0]:.4f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--users", type=int, default=8000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--only", help="floors, or the name of an arm")
    given = parser.parse_args()
    shared = Path(os.environ.get("SHARED_DATA", "/work/shared/data"))
    bench = Bench(read(given.path or shared / "amazon_video" / "Video.txt"), given.users, given.dim)
    print(f"{len(bench.test.wanted)} users, {bench.items - 1} items; recall@10, recall@100, NDCG@10")
    if given.only in (None, "floors"):
        bench.floors()
    for name in ARMS:
        if given.only is None or name == given.only:
            bench.arm(name, given.seeds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
