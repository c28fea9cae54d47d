"""Examples in memory with a signal that can be learned, in the shape the trainers read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from adstool.config import Action
from adstool.models.inputs import InputSpec
from adstool.workspace import write_json


class PlainEncoder:
    """Stands for features.FeatureEncoder where only its folder is wanted."""

    def save(self, directory: Path) -> None:
        write_json(directory / "features.json", {})


@dataclass
class SyntheticExamples:
    """Logged impressions drawn from a known model; attributes as features.dataset.Dataset has them."""

    categorical: np.ndarray
    numeric: np.ndarray
    item_row: np.ndarray
    items: Any
    user_content: np.ndarray
    history_item: np.ndarray
    history_category: np.ndarray
    history_action: np.ndarray
    history_age: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    sample_weight: np.ndarray
    user: np.ndarray
    splits: dict[str, slice]
    actions: tuple[Action, ...]
    probability: np.ndarray  # true, [N, A]
    fingerprint: str = "synthetic"
    content_dim: int = 6
    mapped_bytes: int = 0
    encoder: PlainEncoder = field(default_factory=PlainEncoder)

    def history_content(self, rows: slice | np.ndarray, length: int) -> np.ndarray:
        """Content vectors of the history, float32 [n, length, D]; items are numbered 0 .. and coded 3 .."""
        code = self.history_item[rows][:, :length]
        vectors = self.items.content[np.maximum(code - 3, 0)]
        return np.where((code > 0)[..., None], vectors, 0.0).astype(np.float32)

    def spec(self) -> InputSpec:
        return InputSpec(
            categorical=("user_id", "item_id", "category", "surface"),
            categorical_sides=("user", "item", "item", "context"),
            cardinalities=(68, 53, 9, 4),
            numeric=("n_user", "n_item", "n_cross"),
            numeric_sides=("user", "item", "cross"),
            actions=tuple(a.name for a in self.actions),
            content_dim=self.content_dim,
            history_length=5,
            history_item="item_id",
            history_category="category",
            unknown_buckets=2,
            positions=True,
        )


def make_examples(rows: int = 4000, seed: int = 0) -> SyntheticExamples:
    """Users like categories; items have quality; position and a numeric matter; two actions, one rare."""
    rng = np.random.default_rng(seed)
    users, items, categories = 60, 50, 6
    taste = rng.normal(size=(users, categories))
    category = rng.integers(0, categories, items)
    quality = rng.normal(size=items) * 0.7
    content = np.eye(6, dtype=np.float32)[category] + rng.normal(size=(items, 6)).astype(np.float32) * 0.2
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    user = rng.integers(0, users, rows)
    item = rng.integers(0, items, rows)
    surface = rng.integers(1, 4, rows)
    numeric = rng.normal(size=(rows, 3)).astype(np.float32)
    position = rng.integers(1, 6, rows)
    logit = taste[user, category[item]] + quality[item] + 0.5 * numeric[:, 2] - 0.25 * (position - 1) - 0.6
    probability = 1 / (1 + np.exp(-np.stack([logit, logit - 2.0], axis=1)))
    labels = (rng.random((rows, 2)) < probability).astype(np.float32)
    labels[rng.random(rows) < 0.1, 1] = np.nan
    history = rng.integers(0, 51, (rows, 5))
    kept = history > 0
    return SyntheticExamples(
        categorical=np.stack([user + 3, item + 3, category[item] + 3, surface], axis=1).astype(np.int32),
        numeric=numeric,
        item_row=item.astype(np.int32),
        items=SimpleNamespace(content=content.astype(np.float32)),
        user_content=(taste[user] / np.linalg.norm(taste[user], axis=1, keepdims=True)).astype(np.float16),
        history_item=np.where(kept, history + 2, 0).astype(np.int32),
        history_category=np.where(kept, category[history - 1] + 3, 0).astype(np.int32),
        history_action=kept.astype(np.int8),
        history_age=np.where(kept, rng.random((rows, 5)) * 3, 0).astype(np.float32),
        position=position.astype(np.int16),
        labels=labels,
        sample_weight=np.ones(rows, np.float32),
        user=user.astype(np.int32),
        splits={
            "train": slice(0, int(rows * 0.7)),
            "valid": slice(int(rows * 0.7), int(rows * 0.8)),
            "test": slice(int(rows * 0.8), rows),
        },
        actions=(Action("click"), Action("save", weight=4.0)),
        probability=probability,
    )
