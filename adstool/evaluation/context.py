"""What the stages of one evaluation share: examples, test split, draws of users, predictions, truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.truth import locate_truth, true_probabilities
from adstool.training.data import happened, load_training_data
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from adstool.features.dataset import Dataset
    from adstool.serving.scorer import Scorer

Array = NDArray[Any]
CHUNK = 8192  # rows a pass through the scorer
PRIOR_IMPRESSIONS = 20.0  # how many impressions at the base rate an item's own rate is mixed with
FIRST_POSITION = 1  # what serving sets the position to


class NotReady(AdstoolError):
    """A stage cannot be evaluated before something else is made."""


class Absent(NotReady):
    """The log has nothing that the stage could judge, and no verb makes it."""


@dataclass
class Evaluation:
    """One evaluation of a workspace; everything in it is computed when first asked for, and once."""

    ws: Workspace
    settings: Settings
    con: duckdb.DuckDBPyConnection
    seed: int = 0

    @cached_property
    def dataset(self) -> Dataset:
        """The examples of the workspace."""
        return load_training_data(self.ws, self.settings, self.con)

    @cached_property
    def test(self) -> slice:
        """The rows of the test split: the last of the log."""
        return self.dataset.splits["test"]

    @property
    def test_start(self) -> int:
        """The time of the first test example, microseconds UTC."""
        return int(self.dataset.ts[self.test.start])

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the actions, in the order of the labels' columns."""
        return tuple(action.name for action in self.dataset.actions)

    @cached_property
    def labels(self) -> Array:
        """Labels of the test split as 0, 1 and nan (masked), float32 [n, A]."""
        return happened(np.asarray(self.dataset.labels[self.test]))

    @cached_property
    def users(self) -> Array:
        """The user of every test row, int [n]."""
        return np.asarray(self.dataset.user[self.test])

    @cached_property
    def weights(self) -> Array:
        """The utility's weight of each action, [A]."""
        return np.array([action.weight for action in self.dataset.actions])

    def resampler(self, users: Array) -> Resampler:
        """Draws of these users, as many as the settings say."""
        return Resampler(users, self.settings.evaluation.bootstrap, self.seed)

    def require_run(self, name: str, verb: str) -> Path:
        """The run of a model in use; raises NotReady naming the verb that makes one."""
        run = self.ws.current_run(name)
        if run is None:
            raise NotReady(f"There is no '{name}' model in {self.ws.root}.", f"Make one: adstool {verb}.")
        return run

    @cached_property
    def engagement_run(self) -> Path:
        """The engagement model in use, which must have been trained on the data as it is now.

        A model of older data has other vocabularies: on these examples its codes would mean other things.
        Raises NotReady naming the verb that makes one.
        """
        run = self.require_run("engagement", "train engagement")
        trained_on = read_json(run / "run.json").get("data")
        if trained_on != self.dataset.fingerprint:
            raise NotReady(
                f"The engagement model {run.name} was trained on other data or settings than those of now.",
                "Train it again: adstool train engagement, or adstool run.",
            )
        return run

    @cached_property
    def scorer(self) -> Scorer:
        """The engagement model as it serves: exported, calibrated, quantized if that was accepted."""
        from adstool.serving.scorer import Scorer

        return Scorer(self.engagement_run)

    def predict(self, rows: Array, position: int | None = None) -> Array:
        """Calibrated probabilities [n, A] of dataset rows, at the logged positions or all at `position`."""
        return scored(self.dataset, self.scorer, rows, self.scorer.predict, position)

    def predict_worth(self, rows: Array, position: int) -> Array:
        """What the utility weighs of dataset rows at `position`: Scorer.predict_worth, [n, A]."""
        scorer = self.scorer
        return scored(self.dataset, scorer, rows, lambda inputs: scorer.predict_worth(inputs)[1], position)

    @cached_property
    def predictions(self) -> Array:
        """Calibrated probabilities of the test split at the logged positions, [n, A]."""
        return self.predict(np.arange(self.test.start, self.test.stop))

    @cached_property
    def popularity(self) -> Array:
        """The baseline: the rate of each test row's item before the test, pulled to the base rate, [n, A]."""
        before = slice(0, self.test.start)
        labels = happened(np.asarray(self.dataset.labels[before]))
        items = np.asarray(self.dataset.item_row[before])
        shown = np.asarray(self.dataset.item_row[self.test])
        out = np.zeros((len(shown), labels.shape[1]))
        for head in range(labels.shape[1]):
            known = ~np.isnan(labels[:, head])
            size = len(self.dataset.items)
            rows = np.bincount(items[known], minlength=size)
            positives = np.bincount(items[known], weights=labels[known, head], minlength=size)
            base = (positives.sum() + 0.5) / (rows.sum() + 1.0)
            rate = (positives + PRIOR_IMPRESSIONS * base) / (rows + PRIOR_IMPRESSIONS)
            out[:, head] = rate[shown]
        return out

    @cached_property
    def truth_folder(self) -> Path | None:
        """Where the synthetic world's truth lies; None for real data."""
        return locate_truth(self.con, self.settings)

    @cached_property
    def true(self) -> dict[str, Array]:
        """True probabilities of the test rows by action, nan where not known; empty for real data."""
        if self.truth_folder is None:
            return {}
        return true_probabilities(self.con, self.truth_folder, self.dataset, self.test, self.heads)


def scored(
    dataset: Dataset,
    scorer: Scorer,
    rows: Array,
    score: Callable[[Mapping[str, Array]], Array],
    position: int | None = None,
) -> Array:
    """What `score` says of dataset rows, [n, A], at the logged positions or all at `position`."""
    parts = []
    for start in range(0, len(rows), CHUNK):
        inputs = dataset.batch(rows[start : start + CHUNK], scorer.needs)
        if position is not None:
            inputs["position"] = np.full_like(inputs["position"], position)
        parts.append(score(inputs))
    return np.concatenate(parts) if parts else np.zeros((0, len(scorer.outputs)))
