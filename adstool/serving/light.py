"""The lightweight ranker as it serves, whatever its architecture: rows of users and items, and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from adstool.features.cross import CrossFeatures
from adstool.features.state import RequestContext, ServingState
from adstool.serving.scorer import GraphSession, SidesScorer, TowerScorer
from adstool.training.calibration import GROUPS

PAIR = "pair.onnx"


class LightScorer(SidesScorer):
    """A lightweight run: user.onnx and item.onnx give rows, pair.onnx the probabilities of one user's pairs.

    Raises AdstoolError when the run was not exported.
    """

    @cached_property
    def _pair(self) -> GraphSession:
        # Small next to the sides, and most of its time is in reading rows: full precision in every form.
        return GraphSession(self.run_dir / PAIR, self.threads)

    @cached_property
    def cross(self) -> CrossFeatures:
        """What the pairs read that belongs to both sides."""
        return CrossFeatures(self.encoder, self.config.get("cross", []))

    def probability(self, user: np.ndarray, items: np.ndarray, cross: np.ndarray | None = None) -> np.ndarray:
        """Probabilities before calibration, [n, H], of one user's row [1, U] with n items' rows [n, V].

        cross [n, K]: `cross.of`, where K > 0.
        """
        inputs = {"user": user, "item": items}
        return self._pair.run(inputs if cross is None else {**inputs, "cross": cross})

    def score(
        self, state: ServingState, ctx: RequestContext, user: np.ndarray, items: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Calibrated probabilities [n, H] of a request's candidates.

        user [1, U]: the request's row; items [n, V]: the candidates' rows; rows [n]: of the state's items.
        """
        cross = self.cross.of(state, ctx, rows) if self.cross.width else None
        probability = self.probability(user, items, cross)
        if self.calibration is None:
            return probability
        codes = state.codes(self.encoder, ctx, rows, [name for name in GROUPS if name in self._columns])
        return np.asarray(self.calibration.apply(probability, codes))

    def predict(self, inputs: Mapping[str, np.ndarray], request: np.ndarray | None = None) -> np.ndarray:
        """Calibrated probabilities [n, H] of rows of inputs (dataset.INPUTS), every row another pair.

        request: numbers [n]; rows of one request that follow each other share its user, and go faster.
        """
        users, items = self.user(inputs), self.item(inputs)
        count = len(items)
        starts = np.arange(count) if request is None else np.flatnonzero(np.diff(request, prepend=-1))
        columns = self.config.get("cross", [])
        crossed = inputs["numeric"][:, columns] if columns else None
        made = np.zeros((count, len(self.outputs)), dtype=np.float32)
        for start, stop in zip(starts, [*starts[1:], count], strict=True):
            part = slice(start, stop)
            cross = None if crossed is None else crossed[part]
            made[part] = self.probability(users[start : start + 1], items[part], cross)
        return self.calibrated(made, inputs["categorical"])

    @property
    def _columns(self) -> list[str]:
        return list(self.config["config"]["inputs"]["categorical"])


Tower = TowerScorer | LightScorer  # whatever has rows of users and of items


def open_towers(folders: Mapping[str, Path], threads: int = 1) -> dict[str, Tower]:
    """The scorers of the runs that make the index's vectors, by model."""
    return {
        model: (LightScorer if model == "lightweight" else TowerScorer)(run, threads=threads)
        for model, run in folders.items()
    }
