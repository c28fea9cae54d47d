"""The events of a long history that are nearest to a candidate, as of the request.

TransAct V2 (Xia et al. 2025, section 3.2) lets a ranker read a history of thousands of events by its few
nearest to each candidate. Likeness is the cosine of content vectors kept in int8. Products of int8 vectors
are whole numbers that float32 holds exactly, so training and serving choose the same events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adstool.features.engagements import Engagements, history_content, read_history
from adstool.features.items import ItemTable
from adstool.features.mapping import mapped
from adstool.workspace import write_array

WINDOW = 10_000  # newest events of a user that are looked through
UNSEEN = np.float32(0.5)  # likeness of items of one category when either has no vector
EXACT = 1040  # widest int8 vectors whose product float32 holds: 1040 * 127^2 < 2^24
_STEPS = 1 << 20  # steps of likeness that are told apart; within one, the newer event is nearer
_PLACES = 1 << 31
_BLOCK = 4_000_000  # pairs of a candidate and an event that are compared at once


@dataclass(frozen=True)
class Likeness:
    """Items as they are compared: int8 vectors [items, D], float32 scales (0: no vector), categories."""

    vectors: np.ndarray
    scale: np.ndarray
    category: np.ndarray

    @classmethod
    def of(cls, items: ItemTable) -> Likeness:
        """The vectors of all items, a scale a row: row = vector * scale within scale / 2."""
        largest = np.abs(items.content).max(axis=1, initial=0.0)
        scale = (largest / 127.0).astype(np.float32)
        step = np.where(scale > 0, scale, np.float32(1.0))[:, None]
        vectors = np.rint(items.content / step).clip(-127, 127).astype(np.int8)
        return cls(vectors, scale, items.categories[0])

    def between(self, candidates: np.ndarray, events: np.ndarray) -> np.ndarray:
        """The likeness of every candidate with every event, by item rows: float32 [C, E]."""
        exact = np.float32 if self.vectors.shape[1] <= EXACT else np.float64
        product = self.vectors[candidates].astype(exact) @ self.vectors[events].astype(exact).T
        scales = self.scale[candidates][:, None] * self.scale[events]
        category = self.category[candidates][:, None]
        alike = (category == self.category[events]) & (category >= 0)
        found = np.where(scales > 0, product.astype(np.float32) * scales, UNSEEN * alike)
        return np.asarray(found, dtype=np.float32)


def nearest_places(
    engagements: Engagements,
    likeness: Likeness,
    start: int,
    ends: np.ndarray,
    candidates: np.ndarray,
    n: int,
) -> np.ndarray:
    """Places in the log of the n events of one user nearest to each candidate, newest first, -1 for none.

    start: where the user's events begin. ends: int64 [C], where they end for each candidate's request; the
    last WINDOW before that are looked through. candidates: item rows [C]. Returns int32 [C, n].
    """
    out = np.full((len(candidates), n), -1, dtype=np.int32)
    if not len(candidates):
        return out
    first, last = max(start, int(ends.min()) - WINDOW), int(ends.max())
    if last <= first:
        return out
    events = np.asarray(engagements.item[first:last])
    places = np.arange(first, last)
    step = max(_BLOCK // len(events), 1)
    for at in range(0, len(candidates), step):
        part = slice(at, at + step)
        end = ends[part, None]
        alike = likeness.between(candidates[part], events)  # -1 to 1
        steps = np.rint(alike * _STEPS).astype(np.int64) + 2 * _STEPS
        # Whole numbers, all different: the choice never hangs on how a sort treats ties.
        keys = np.where((places < end) & (places >= end - WINDOW), steps * _PLACES + places, -1)
        kept = min(n, len(events))
        best = np.partition(keys, len(events) - kept, axis=1)[:, len(events) - kept :]
        chosen = np.where(best >= 0, best % _PLACES, -1)
        out[part, :kept] = -np.sort(-chosen, axis=1)
    return out


def nearest_of_examples(
    engagements: Engagements,
    likeness: Likeness,
    user: np.ndarray,
    ends: np.ndarray,
    candidates: np.ndarray,
    n: int,
) -> np.ndarray:
    """`nearest_places` of N examples of many users: int32 [N, n]. user: numbers [N], -1 for unknown ones."""
    out = np.full((len(user), n), -1, dtype=np.int32)
    order = np.argsort(user, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(user[order])) + 1):
        if len(rows) and user[rows[0]] >= 0:
            start = int(engagements.offsets[user[rows[0]]])
            out[rows] = nearest_places(engagements, likeness, start, ends[rows], candidates[rows], n)
    return out


def stored(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a .npy file, memory-mapped; made and written first, whole or not at all, where there is
    none."""
    if not path.is_file():
        write_array(path, make())
    return mapped(path)


def nearest_inputs(
    engagements: Engagements,
    places: np.ndarray,
    asked: np.ndarray,
    codes: tuple[np.ndarray, np.ndarray],
    content: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """NEAREST_INPUTS of the events at `places` for requests at times `asked`; the last only with `content`.

    codes: int32 [items] each, the codes of `item_id` and `category` of every item row.
    """
    read = read_history(engagements, places, asked, *codes)
    inputs = {f"nearest_{name}": values for name, values in vars(read).items()}
    if content is not None:
        inputs["nearest_content"] = history_content(engagements, places, content)
    return inputs
