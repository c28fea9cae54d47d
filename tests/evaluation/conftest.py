"""A hand-made evaluation: arrays in place of data set and model, so that a figure can be computed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import numpy as np
import pytest

from adstool.config import Action, EvaluationSettings, Settings
from adstool.evaluation.context import Evaluation
from adstool.features.items import NO_TIME
from adstool.workspace import Workspace

HOUR = 3_600_000_000
ACTIONS = (Action("click", weight=1.0), Action("hide", weight=-2.0, positive=False))


class Items(SimpleNamespace):
    """Items with two text columns."""

    def __len__(self) -> int:
        return len(self.category)

    def numbered(self, name: str) -> tuple[np.ndarray, list[str]]:
        values = getattr(self, name)
        names = sorted({value for value in values if value is not None})
        return np.array([names.index(v) if v is not None else -1 for v in values]), names

    def times(self, name: str) -> np.ndarray:
        return np.asarray(self.created_at if name == "created_at" else None)


def _make(rows: int = 4000, seed: int = 0, resamples: int = 30) -> Evaluation:
    """An evaluation of made-up slates of five; the last fifth of the rows is the test split.

    True probabilities depend on a hidden number a row; the model sees it with noise. Item 19 appears only in
    the test split, and user 39 too.
    """
    random = np.random.default_rng(seed)
    start = rows - rows // 5
    item = random.integers(0, 19, size=rows)
    item[start + 7 :: 40] = 19
    user = np.repeat(random.integers(0, 39, size=rows // 5), 5)
    user[start : start + 25] = 39
    hidden = random.normal(size=rows)
    true = np.stack([1 / (1 + np.exp(2 - hidden)), 1 / (1 + np.exp(3 + hidden))], axis=1)
    labels = (random.random((rows, 2)) < true).astype(np.float32)
    labels[::97, 1] = np.nan  # some hides could not have been seen
    noisy = hidden + random.normal(size=rows) * 0.5
    predicted = np.stack([1 / (1 + np.exp(2 - noisy)), 1 / (1 + np.exp(3 + noisy))], axis=1)
    dataset = SimpleNamespace(
        labels=labels,
        user=user,
        request=np.repeat(np.arange(rows // 5), 5)[::-1],
        item_row=item,
        ts=np.repeat(np.arange(rows // 5), 5) * HOUR,
        surface=random.integers(0, 2, size=rows),
        surfaces=["home", "search"],
        position=np.tile(np.arange(1, 6), rows // 5),
        splits={"test": slice(start, rows)},
        actions=list(ACTIONS),
        items=Items(
            category=["shoes", "hats", None, "cups"] * 5, vertical=["wear"] * 20, created_at=[NO_TIME] * 20
        ),
        fingerprint="f",
    )
    settings = Settings(actions=ACTIONS, evaluation=EvaluationSettings(bootstrap=resamples, requests=200))
    evaluation = Evaluation(Workspace(Path("/nowhere")), settings, cast(duckdb.DuckDBPyConnection, None))
    test = slice(start, rows)
    made: dict[str, Any] = {
        "dataset": dataset,
        "engagement_run": Path("r7"),
        "predictions": predicted[test],
        "true": {"click": true[test, 0], "hide": true[test, 1]},
        "predict": lambda chosen, position=None: predicted[chosen],
        "predict_worth": lambda chosen, position: predicted[chosen],
    }
    evaluation.__dict__.update(made)
    return evaluation


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., Evaluation]:
    """Makes a hand-made evaluation: make_evaluation(rows=4000, seed=0, resamples=30)."""
    return _make
