"""What every user engaged with, and what of it was known at a moment: histories and content summaries.

All positive actions lie in one array by user and time. What a request may see of it is a range of that array,
found by binary search, so a history is three numbers an example and not a copied sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from adstool.errors import AdstoolError
from adstool.features.mapping import mapped
from adstool.workspace import write_array

HOUR = 3_600_000_000  # microseconds
_ARRAYS = ("offsets", "ts", "item", "action")
# Inputs that all candidates of a request have in common: serving gives these one row.
SHARED_INPUTS = (
    "user_content",
    "history_item",
    "history_category",
    "history_action",
    "history_age",
    "history_content",
)
# What a candidate has of its own: the events of the whole history that are nearest to it.
NEAREST_INPUTS = (
    "nearest_item",
    "nearest_category",
    "nearest_action",
    "nearest_age",
    "nearest_content",
)


@dataclass(frozen=True)
class SequenceNeeds:
    """What a model reads of histories beside dataset.INPUTS."""

    content: int = 0  # newest entries whose content vectors are read, as `history_content`
    nearest: int = 0  # events nearest to each candidate that are read, as NEAREST_INPUTS
    vectors: bool = True  # whether the nearest come with their content vectors


NOTHING = SequenceNeeds()


@dataclass(frozen=True)
class Engagements:
    """Positive actions sorted by user, then time, item and action.

    offsets: int64 [users + 1], the range of every user. ts: int64 [E] microseconds. item: int32 [E] row of
    the ItemTable. action: int8 [E], 1 + index into the actions of the spec.
    """

    offsets: np.ndarray
    ts: np.ndarray
    item: np.ndarray
    action: np.ndarray

    @classmethod
    def of(
        cls, user: np.ndarray, ts: np.ndarray, item: np.ndarray, action: np.ndarray, users: int
    ) -> Engagements:
        """From columns already sorted by (user, ts, item, action)."""
        offsets = np.searchsorted(user, np.arange(users + 1)).astype(np.int64)
        return cls(offsets, ts.astype(np.int64), item.astype(np.int32), action.astype(np.int8))

    def __len__(self) -> int:
        return len(self.ts)

    @cached_property
    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct times, and user · (distinct times + 1) + rank of the time: sorted, and safe from
        overflow."""
        times = np.unique(self.ts)
        user = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return times, user * (len(times) + 1) + np.searchsorted(times, self.ts)

    def before(self, user: np.ndarray, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ranges [start, end) of what users engaged with strictly before `ts`: int64 [n] each.

        user: numbers [n]; an unknown one (-1) gets the empty range (0, 0).
        """
        times, keys = self._keys
        user = np.asarray(user, dtype=np.int64)
        end = np.searchsorted(keys, user * (len(times) + 1) + np.searchsorted(times, ts)).astype(np.int64)
        known = user >= 0
        start = self.offsets[np.where(known, user, 0)]
        return np.where(known, start, 0), np.where(known, end, 0)

    def before_one(self, user: int, ts: int) -> tuple[int, int]:
        """`before` for one request."""
        if user < 0:
            return 0, 0
        start, stop = int(self.offsets[user]), int(self.offsets[user + 1])
        return start, start + int(np.searchsorted(self.ts[start:stop], ts))

    def recent(self, start: np.ndarray, end: np.ndarray, length: int) -> np.ndarray:
        """Places of the last `length` actions of each range, newest first: int64 [n, length], -1 where there
        is none."""
        places = end[:, None] - 1 - np.arange(length)
        return np.where(places >= start[:, None], places, -1)

    def save(self, directory: Path) -> None:
        """Write the arrays as engagements_<name>.npy."""
        for name in _ARRAYS:
            write_array(directory / f"engagements_{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, directory: Path) -> Engagements:
        """What `save` wrote, memory-mapped; raises AdstoolError when it is damaged or absent."""
        try:
            return cls(*(mapped(directory / f"engagements_{name}.npy") for name in _ARRAYS))
        except (OSError, ValueError) as error:
            raise AdstoolError(f"{directory} holds no histories: {error}", "Build it again.") from None


@dataclass(frozen=True)
class History:
    """The history inputs of n requests, newest first, zeros behind the end.

    item, category: int32 [n, L] vocabulary codes. action: int8 [n, L], 1 + index of the action.
    age: float32 [n, L], ln(1 + hours) before the request.
    """

    item: np.ndarray
    category: np.ndarray
    action: np.ndarray
    age: np.ndarray


def read_history(
    engagements: Engagements,
    places: np.ndarray,
    asked: np.ndarray,
    item_code: np.ndarray,
    category_code: np.ndarray,
) -> History:
    """The inputs at `places` (of `recent`) for requests at times `asked`, int64 [n] microseconds.

    item_code, category_code: int32 [items], the codes of every item row.
    """
    present = places >= 0
    if not len(engagements):
        empty = np.zeros(places.shape, dtype=np.int32)
        return History(empty, empty, empty.astype(np.int8), empty.astype(np.float32))
    safe = np.where(present, places, 0)
    row = engagements.item[safe]
    hours = (asked[:, None] - engagements.ts[safe]).astype(np.float64) / HOUR
    return History(
        item=np.where(present, item_code[row], 0).astype(np.int32),
        category=np.where(present, category_code[row], 0).astype(np.int32),
        action=np.where(present, engagements.action[safe], 0).astype(np.int8),
        age=np.where(present, np.log1p(np.maximum(hours, 0.0)), 0.0).astype(np.float32),
    )


def history_content(engagements: Engagements, places: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The content vectors of the items at `places`, float32 [n, L, D]; zeros where there is no event."""
    if not len(engagements):
        return np.zeros((*places.shape, content.shape[1]), dtype=np.float32)
    rows = engagements.item[np.where(places >= 0, places, 0)]
    vectors = content[rows]
    vectors[places < 0] = 0.0
    return np.asarray(vectors, dtype=np.float32)


def content_summary(
    engagements: Engagements, places: np.ndarray, content: np.ndarray, decay: float
) -> np.ndarray:
    """The mean content vector of the actions at `places`, each next older one weighing `decay` times as much.

    The weights depend on the order only, so the summary changes only when the user engages. places: int64
    [n, R], newest first, -1 for none. Returns float32 [n, D] of unit length, zeros where nothing has a
    vector.
    """
    if not len(engagements):
        return np.zeros((len(places), content.shape[1]), dtype=np.float32)
    weights = (decay ** np.arange(places.shape[1])) * (places >= 0)
    rows = engagements.item[np.where(places >= 0, places, 0)]
    summary = np.einsum("nr,nrd->nd", weights.astype(np.float32), content[rows])
    norm = np.linalg.norm(summary, axis=1, keepdims=True)
    return np.asarray(summary / np.where(norm > 1e-12, norm, 1.0), dtype=np.float32)
