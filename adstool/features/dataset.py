"""Training examples: impressions of ranked items with what was known when each was shown, memory-mapped."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np

from adstool.config import Action, Settings
from adstool.features.build import EXAMPLE_ARRAYS, materialise
from adstool.features.cache import built_folder
from adstool.features.corpus import corpus_type
from adstool.features.encoder import FeatureEncoder
from adstool.features.engagements import (
    NOTHING,
    Engagements,
    History,
    SequenceNeeds,
    history_content,
    read_history,
)
from adstool.features.items import ItemTable
from adstool.features.mapping import mapped
from adstool.features.nearest import Likeness, nearest_inputs, nearest_of_examples, stored
from adstool.features.spec import default_spec
from adstool.features.users import UserTable
from adstool.warehouse import load_sql
from adstool.workspace import Workspace, read_json

# The inputs of every model by name: of torch batches, of ONNX graphs and of the serving path alike.
INPUTS = (
    "categorical",
    "numeric",
    "item_content",
    "user_content",
    "history_item",
    "history_category",
    "history_action",
    "history_age",
    "position",
)
Rows = slice | np.ndarray


class UserContent:
    """The summaries of what users engaged with last, float32 [N, D]: read when rows of them are asked for."""

    def __init__(self, summaries: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
        """summaries: [events + 1, D], after every event. start, end: [N], each example's events."""
        self._summaries, self._start, self._end = summaries, start, end

    def __getitem__(self, rows: Rows) -> np.ndarray:
        end = self._end[rows]
        return np.asarray(self._summaries[np.where(end > self._start[rows], end, 0)])


class Dataset:
    """N examples ordered by time.

    categorical int32 [N, F], numeric float32 [N, M], labels float32 [N, A] (nan: masked), sample_weight
    float32 [N], item_row int32 [N] (row of `items`), position int16 [N] (0 unknown, else 1 + logged
    position), surface int16 [N] (into `surfaces`, -1 unknown), ts int64 [N] (microseconds UTC), user int32
    [N] (into `users`), request int64 [N] (dense), propensity float32 [N] (nan: not logged).
    Read on demand: user_content float32 [N, D], history_item and history_category int32 [N, L],
    history_action int8 [N, L], history_age float32 [N, L].
    """

    def __init__(self, directory: Path, items: ItemTable, actions: list[Action]) -> None:
        self.directory = directory
        self.fingerprint = directory.name
        self.items = items
        self.actions = actions
        self.encoder = FeatureEncoder.load(directory)
        self.engagements = Engagements.load(directory)
        self.surfaces: list[str] = read_json(directory / "surfaces.json")
        self.splits = {k: slice(*bounds) for k, bounds in read_json(directory / "splits.json").items()}
        self.mapped_bytes = 0  # of all columns and summaries
        for name in ("categorical", "numeric", "labels", "content_summaries", *EXAMPLE_ARRAYS):
            column = mapped(directory / f"{name}.npy", scattered=True)
            self.mapped_bytes += column.nbytes
            setattr(self, name, column)
        self.user_content = UserContent(self.content_summaries, self.history_start, self.history_end)
        self._nearest: dict[int, np.ndarray] = {}
        self._codes = self.encoder.history_codes(items)[:2]

    categorical: np.ndarray
    numeric: np.ndarray
    labels: np.ndarray
    content_summaries: np.ndarray
    ts: np.ndarray
    user: np.ndarray
    item_row: np.ndarray
    surface: np.ndarray
    position: np.ndarray
    propensity: np.ndarray
    request: np.ndarray
    sample_weight: np.ndarray
    history_start: np.ndarray
    history_end: np.ndarray

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def content_dim(self) -> int:
        """D, the width of the content vectors."""
        return int(self.items.content.shape[1])

    @property
    def history_length(self) -> int:
        """L, how many engagements a history holds."""
        return self.encoder.spec.history_length

    @cached_property
    def users(self) -> UserTable:
        """The users behind the user numbers."""
        return UserTable.load(self.directory)

    def history(self, rows: Rows) -> History:
        """The four history inputs of these examples."""
        places = self.engagements.recent(
            self.history_start[rows], self.history_end[rows], self.history_length
        )
        return read_history(self.engagements, places, np.asarray(self.ts[rows]), *self._codes)

    def history_content(self, rows: Rows, length: int) -> np.ndarray:
        """The content vectors of the `length` newest history entries, float32 [n, length, D]."""
        places = self.engagements.recent(self.history_start[rows], self.history_end[rows], length)
        return history_content(self.engagements, places, self.items.content)

    def nearest(self, rows: Rows, n: int) -> np.ndarray:
        """Places in the log of the n events nearest to each example's item, int32 [rows, n], -1 for none.

        Point-in-time offsets into the one log of events: made when first asked for, then memory-mapped.
        """
        if n not in self._nearest:

            def make() -> np.ndarray:
                user, ends, candidates = self.user[:], self.history_end[:], self.item_row[:]
                return nearest_of_examples(
                    self.engagements, Likeness.of(self.items), user, ends, candidates, n
                )

            self._nearest[n] = stored(self.directory / f"nearest_{n}.npy", make)
        return np.asarray(self._nearest[n][rows])

    def read_nearest(self, rows: Rows, n: int, vectors: bool) -> dict[str, np.ndarray]:
        """NEAREST_INPUTS of these examples, the content vectors only if `vectors`."""
        return nearest_inputs(
            self.engagements,
            self.nearest(rows, n),
            np.asarray(self.ts[rows]),
            self._codes,
            self.items.content if vectors else None,
        )

    def batch(self, rows: Rows, needs: SequenceNeeds = NOTHING) -> dict[str, np.ndarray]:
        """The model inputs (INPUTS, and what `needs` names) of these examples; labels are read beside
        them."""
        history = self.history(rows)
        inputs = {
            "categorical": np.asarray(self.categorical[rows]),
            "numeric": np.asarray(self.numeric[rows]),
            "item_content": np.asarray(self.items.content[self.item_row[rows]]),
            "user_content": self.user_content[rows],
            "history_item": history.item,
            "history_category": history.category,
            "history_action": history.action,
            "history_age": history.age,
            "position": np.asarray(self.position[rows]),
        }
        if needs.content:
            inputs["history_content"] = self.history_content(rows, needs.content)
        if needs.nearest:
            inputs |= self.read_nearest(rows, needs.nearest, needs.vectors)
        return inputs


def build_dataset(
    con: duckdb.DuckDBPyConnection, ws: Workspace, settings: Settings, items: ItemTable
) -> Dataset:
    """The examples of the warehouse, from the cache when nothing they depend on has changed.

    Written to a temporary folder and renamed, so that a killed build leaves nothing half; older ones go away.
    Raises AdstoolError when the log has nothing to train on.
    """
    spec = default_spec(settings, corpus_type(con, settings), *_semantic(settings, items))
    counts = con.execute(load_sql("features_inputs")).fetchall()
    wanted = {
        "warehouse": [[str(value) for value in row] for row in counts],
        "items": items.fingerprint(),
        "features": asdict(settings.features),
        # What an action is worth is no part of the examples: `evaluate utility --write` may change it.
        "actions": [
            {k: v for k, v in asdict(action).items() if k != "weight"} for action in settings.actions
        ],
        "spec": spec.to_json(),
    }
    target = built_folder(
        ws.cache / "examples", wanted, lambda partial: materialise(con, settings, spec, items, partial)
    )
    return Dataset(target, ItemTable.load(target), list(settings.actions))


def _semantic(settings: Settings, items: ItemTable) -> tuple[str, int]:
    """The run behind the columns of semantic ids and how many there are: none unless they are wanted."""
    wanted = max(0, min(settings.semantic_ids.features, items.codes.shape[1]))
    return (items.semantic, wanted) if wanted else ("", 0)
