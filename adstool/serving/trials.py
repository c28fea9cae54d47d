"""What a quantized model is tried on: held-out rows, what is known of them, and requests to be timed.

A trial is a class and a row of TRIALS; quantize and its gate know models by these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.serving.light import LightScorer
from adstool.serving.scorer import Scorer, TowerScorer, as_served, graph_file
from adstool.training.conversion_data import data_fingerprint, judged_rows, known_outcome, windows_of
from adstool.training.conversion_metrics import CLICK, split_outputs
from adstool.training.data import happened, load_training_data
from adstool.training.value import Value, bids_of
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    import duckdb

MAX_ROWS = 50_000  # newest held-out rows that are scored
SAMPLES = 2048  # rows of training from which the ranges of static layers are taken

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Said:
    """What a model says of n rows."""

    probability: np.ndarray  # [n, H], calibrated
    amounts: np.ndarray  # [n, V], expected amounts and money
    worth: np.ndarray  # [n], what the funnel ranks by


class Trial:
    """The engagement ranker's, and what all have in common."""

    files: tuple[str, ...] = ("model.onnx",)
    judged_ne = True  # whether it predicts probabilities

    def __init__(self, ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run: Path) -> None:
        """Raises AdstoolError when the data are no longer those that the run was trained on."""
        self.run, self.settings = run, settings
        self.dataset = load_training_data(ws, settings, con)
        self._open(ws, con)
        bids = self.dataset.items.numbers("bid")
        priced = self.dataset.encoder.spec.corpus == "ad"
        self._bids = bids_of(bids, settings.auction.reserve) if priced else None

    def _open(self, ws: Workspace, con: duckdb.DuckDBPyConnection) -> None:
        """Set rows int64 [n], heads (H names), labels float [n, H], nan where unknown, amounts (V names)."""
        self._require(self.dataset.fingerprint)
        full = self.scorer("")
        split = self.dataset.splits["test"]
        self.rows = np.arange(max(split.start, split.stop - MAX_ROWS), split.stop)
        self.heads = full.outputs
        self.labels = happened(np.asarray(self.dataset.labels[self.rows]))
        self.amounts = tuple(getattr(full, "amounts", ()))

    def _require(self, fingerprint: str) -> None:
        name = self.run.parent.name
        if read_json(self.run / "run.json").get("data") != fingerprint:
            raise AdstoolError(
                f"The data or the features have changed since {name} {self.run.name} was trained, so there "
                "are no held-out rows to judge it on.",
                f"Train it again: adstool train {name}",
            )

    def scorer(self, variant: str) -> Any:
        """The run's graphs in the form with this ending, "" in full precision."""
        return Scorer(self.run, quantized=False, variant=variant)

    def size(self, variant: str) -> int:
        """Bytes of the graphs with this ending."""
        return sum((self.run / graph_file(file, variant)).stat().st_size for file in self.files)

    def inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The model's inputs of rows of the dataset."""
        return self.dataset.batch(rows, self.scorer("").needs)

    def samples(self) -> dict[str, np.ndarray]:
        """Inputs of rows that were trained on."""
        train = self.dataset.splits["train"]
        return self.inputs(np.unique(np.linspace(train.start, train.stop - 1, SAMPLES).astype(np.int64)))

    def say(self, scorer: Any, inputs: Inputs, rows: np.ndarray) -> Said:
        """What a scorer of this trial says of rows of the dataset."""
        probability, expected = scorer.predict_worth(inputs)
        columns = [scorer.outputs.index(name) for name in scorer.amounts]
        return Said(probability, expected[:, columns], self._worth(scorer, rows, probability, expected))

    def _worth(self, scorer: Any, rows: np.ndarray, probability: np.ndarray, worth: np.ndarray) -> np.ndarray:
        bids = None if self._bids is None else self._bids[np.asarray(self.dataset.item_row[rows])]
        return Value.of(self.settings, scorer.outputs).score(probability, bids, worth)

    def calls(self, scorer: Any) -> dict[str, Callable[[], Any]]:
        """By part, what serving asks of a scorer: one request with as many candidates as it gets."""
        inputs = as_served(self._candidates())
        return {"request": lambda: scorer.raw(inputs)}

    def _candidates(self) -> dict[str, np.ndarray]:
        count = self.settings.funnel.lightweight
        inputs = self.inputs(self.rows[:count])
        return {name: np.resize(value, (count, *value.shape[1:])) for name, value in inputs.items()}


class TowerTrial(Trial):
    """The lightweight ranker's: its two sides in fewer bits, what is made of pairs in full precision."""

    files = ("user.onnx", "item.onnx")

    def scorer(self, variant: str) -> Any:
        """See Trial."""
        return LightScorer(self.run, quantized=False, variant=variant)

    def say(self, scorer: Any, inputs: Inputs, rows: np.ndarray) -> Said:
        """See Trial."""
        probability = scorer.predict(inputs, np.asarray(self.dataset.request[rows]))
        nothing = np.zeros((len(rows), 0))
        return Said(probability, nothing, self._worth(scorer, rows, probability, probability))

    def calls(self, scorer: Any) -> dict[str, Callable[[], Any]]:
        """See Trial: the user's side once, and the items' as the index makes it."""
        inputs = self._candidates()
        one = {name: value[:1] for name, value in inputs.items()}
        return {"user": lambda: scorer.user(one), "item": lambda: scorer.item(inputs)}


class ConversionTrial(Trial):
    """The conversion model's: clicks on impressions, conversions and their money on matured clicks."""

    def _open(self, ws: Workspace, con: duckdb.DuckDBPyConnection) -> None:
        from adstool.features.conversions import build_conversions

        labels = build_conversions(con, ws, self.settings, self.dataset)
        self._require(data_fingerprint(self.dataset, labels))
        about = read_json(self.run / "config.json")
        self._scales = np.array(about["value_scales"])
        task = about["task"]
        windows = windows_of(self.dataset, labels, task["test_share"], task["wait_hours"])
        self.rows = judged_rows(self.dataset, labels, windows)[-MAX_ROWS:]
        known = known_outcome(labels, self.rows, windows.end, windows.horizon)
        self.heads = (CLICK, *labels.kinds)
        self.amounts = tuple(f"value of {kind}" for kind in labels.kinds)
        # A conversion is judged given a click: on impressions it would be blamed for the click's model.
        given = np.where(known.clicked[:, None], known.converted, np.nan)
        self.labels = np.concatenate([known.clicked[:, None], given], axis=1).astype(np.float32)

    def say(self, scorer: Any, inputs: Inputs, rows: np.ndarray) -> Said:
        """See Trial; worth is the money expected of an impression."""
        found = split_outputs(scorer.predict(inputs), self._scales)
        money = found.click[:, None] * found.conversion * found.money
        probability = np.concatenate([found.click[:, None], found.conversion], axis=1)
        return Said(probability, money, money.sum(axis=1))


class RetrievalTrial(TowerTrial):
    """The retrieval towers': which items are nearest to a user. They predict no probabilities."""

    judged_ne = False

    def scorer(self, variant: str) -> Any:
        """See Trial."""
        return TowerScorer(self.run, quantized=False, variant=variant)


TRIALS: dict[str, type[Trial]] = {
    "engagement": Trial,
    "conversion": ConversionTrial,
    "lightweight": TowerTrial,
    "retrieval": RetrievalTrial,
}
