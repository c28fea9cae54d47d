"""User vectors from sequences: sampled softmax over what comes next, started from item-to-item similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adstool.errors import DataError
from adstool.models.inputs import Batch
from adstool.models.user_sequence import UserSequence, UserSequenceConfig
from adstool.training.batches import Rows
from adstool.training.co_engagement import Codes, CoEngagement
from adstool.training.losses import inclusion_log_q, sampled_softmax

CHUNK = 512  # users ranked at once


@dataclass(frozen=True)
class SequenceTaskConfig:
    """What training on sequences can be told besides the model's and the loop's settings."""

    negatives: int = 512  # items drawn uniformly a batch, beside the batch's own
    horizon: int = 1  # the target is one of so many engagements that follow; 1: the next one
    repeats: bool = True  # what a user engaged with is looked for again; `train users` sees if the log does
    spectral: bool = True  # start from the eigenvectors of the co-engagement matrix, else at random
    popularity: float = 0.5  # of ln(1 + engagements) in an item's bias at the start


@dataclass(frozen=True)
class Held:
    """Engagements held out: the codes before each, oldest first, and the code that followed (0: an item that
    training has not seen)."""

    histories: Sequence[Codes]
    wanted: Codes

    def known(self) -> Held:
        """Those whose item training has seen."""
        kept = self.wanted > 0
        pairs = zip(self.histories, kept, strict=True)
        return Held([history for history, known in pairs if known], self.wanted[kept])


def padded(sequences: Sequence[Codes], length: int) -> Codes:
    """The last `length` codes of each, oldest first, zeros behind the end: int64 [n, T], T ≥ 1."""
    width = max(1, min(length, max((len(one) for one in sequences), default=1)))
    out = np.zeros((len(sequences), width), dtype=np.int64)
    for row, one in enumerate(sequences):
        kept = one[-width:]
        out[row, : len(kept)] = kept
    return out


class SequenceTask:
    """Every position of every sequence predicts what follows, among the batch's targets and random items.

    Dense prediction as of PinnerFormer (Pancha et al. 2022, 3.2): with a horizon the target of a position is
    drawn from the engagements that follow it, so that the vector stands for more than the next step.
    """

    name = "users"
    mapped_bytes = 0

    def __init__(
        self, model: UserSequence, sequences: Sequence[Codes], held: Held, config: SequenceTaskConfig
    ) -> None:
        """sequences: codes from 1 on, oldest first, one a user. held: what early stopping judges; may be
        empty. Raises DataError when no sequence has two engagements."""
        self.model, self.config, self.held = model, config, held.known()
        length = model.config.length
        # Longer ones are cut, each part beginning with what the part before it had last predicted.
        self.parts = [
            one[max(0, stop - length - 1) : stop] for one in sequences for stop in range(len(one), 1, -length)
        ]
        self.rows = len(self.parts)
        if not self.rows:
            raise DataError(
                "No user of the log engaged twice, so there is no order to learn.", "Ingest a longer log."
            )
        counts = np.bincount(np.concatenate(sequences), minlength=model.config.items)
        self.share = (counts / counts.sum()).astype(np.float32)

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """Codes [B, T]; of every position that has a future its row, place and target among the candidates;
        and, unless repeats are wanted, the pairs (position, candidate) that lie in the past."""
        parts = [self.parts[row] for row in rows]
        whole = padded(parts, self.model.config.length + 1)
        row, place = np.nonzero(whole[:, 1:])
        left = np.array([len(one) for one in parts])[row] - 1 - place
        ahead = 1 + (rng.random(len(row)) * np.minimum(left, self.config.horizon)).astype(np.int64)
        target = whole[row, place + ahead]
        drawn = rng.integers(1, self.model.config.items, self.config.negatives)
        candidates, column = np.unique(np.concatenate([target, drawn]), return_inverse=True)
        arrays = {
            "items": whole[:, :-1],
            "row": row,
            "place": place,
            "target": column[: len(target)],
            "candidates": candidates,
            "share": self.share[candidates],
        }
        if not self.config.repeats:
            arrays["past_position"], arrays["past_column"] = _past(whole, row, place, candidates, target)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}

    def loss(self, batch: Batch) -> Tensor:
        """Sampled softmax with ln q subtracted."""
        states = self.model.states(batch["items"], batch["row"], batch["place"])
        logits = self.model.logits(states, batch["candidates"]).float()
        if "past_position" in batch:
            past = (batch["past_position"], batch["past_column"])
            logits = logits.index_put(past, torch.tensor(-1e9, device=logits.device))
        drawn, items = len(states), self.model.config.items - 1
        log_q = inclusion_log_q(batch["share"], drawn, self.config.negatives, items)
        return sampled_softmax(logits, batch["target"], log_q.to(logits.device))

    def validate(self) -> float:
        """Cross entropy of what followed the held histories, among all items; nan without any."""
        total, count = 0.0, len(self.held.wanted)
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            scores = scores_of(self.model, self.held.histories[part], self.config.repeats)
            wanted = torch.from_numpy(self.held.wanted[part])
            total += float(functional.cross_entropy(torch.from_numpy(scores), wanted, reduction="sum"))
        return total / count if count else math.nan


def _past(whole: Codes, row: Codes, place: Codes, candidates: Codes, target: Codes) -> tuple[Codes, Codes]:
    """Pairs (position, candidate) where the position's past holds the candidate, its own target apart."""
    column = np.minimum(np.searchsorted(candidates, whole), len(candidates) - 1)
    there = candidates[column] == whole
    length = place + 1  # position i has seen the first length[i] of its row
    position = np.repeat(np.arange(len(row)), length)
    before = np.arange(len(position)) - np.repeat(np.cumsum(length) - length, length)
    at = (row[position], before)
    kept = there[at] & (whole[at] != target[position])
    return position[kept], column[at][kept]


@torch.inference_mode()
def scores_of(model: UserSequence, histories: Sequence[Codes], repeats: bool = True) -> NDArray[np.float32]:
    """Logits of every item for every history, float32 [n, items]; -inf for the padding code and, without
    repeats, for what the history holds."""
    device = model.table.weight.device
    users = model.user_vectors(torch.from_numpy(padded(histories, model.config.length)).to(device))
    scores = (users @ model.item_vectors(torch.arange(model.config.items, device=device)).T).float()
    result = scores.cpu().numpy()
    result[:, 0] = -np.inf
    if not repeats:
        leave_out(result, histories)
    return np.asarray(result)


def leave_out(scores: NDArray[Any], histories: Sequence[Codes]) -> None:
    """Give -inf in scores [n, items] to what each history holds."""
    for row, history in enumerate(histories):
        scores[row, history] = -np.inf


def build_user_sequence(
    config: UserSequenceConfig, task: SequenceTaskConfig, alike: CoEngagement, seed: int
) -> UserSequence:
    """A model with fresh weights; `alike` is of the sequences it will be trained on."""
    torch.manual_seed(seed)
    model = UserSequence(config)
    with torch.no_grad():
        if task.spectral:
            start = alike.embedding(config.dim, seed)
            # An engagement's embedding gets length 1 in the mean, so that a temperature fits any data.
            mean = float(alike.counts @ np.square(start).sum(axis=1)) / max(float(alike.counts.sum()), 1.0)
            model.table.weight.copy_(torch.from_numpy(start / math.sqrt(max(mean, 1e-12))))
        model.bias.weight[:, 0] = task.popularity * torch.log1p(torch.from_numpy(alike.counts).float())
    return model
