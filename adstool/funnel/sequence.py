"""Items that go on from what the user engaged with, in order: the `users` model at serving, without torch."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path

import numpy as np

from adstool.errors import AdstoolError
from adstool.features.item_codes import FILE, ItemCodes, code_sequence
from adstool.features.items import ItemTable
from adstool.features.mapping import mapped
from adstool.features.state import RequestContext, ServingState
from adstool.funnel.ann import ExactIndex, VectorIndex
from adstool.serving.scorer import GraphSession
from adstool.workspace import read_json

KEPT = ("user.onnx", "config.json", FILE)  # of a run, what answering a request takes
VECTORS = "vectors.npy"
_AGAIN = "Train it again and index: adstool train users, adstool index"


class SequenceIndex:
    """The user's side of a run of `users`, and the corpus by its vectors."""

    def __init__(
        self, folder: Path, items: ItemTable, first_row: int, vectors: np.ndarray, index: VectorIndex
    ) -> None:
        """folder: as `write` left it. first_row: of the items, at position 0. vectors: float32 [n, d + 1] by
        position, which `index` searches."""
        self._folder, self._items, self._first_row = folder, items, first_row
        self._vectors, self._index = vectors, index
        run = read_json(folder / "config.json")
        try:
            self._length, self._repeats = int(run["config"]["length"]), bool(run["repeats"])
        except (KeyError, TypeError, ValueError) as error:
            raise AdstoolError(f"{folder} holds no whole model: {error}", _AGAIN) from None
        self._codes = ItemCodes.load(folder).of_rows(items)
        self._corpus = self._codes[first_row : first_row + len(vectors)]  # 0: no vector

    @staticmethod
    def write(run_dir: Path, folder: Path, items: ItemTable, rows: np.ndarray) -> np.ndarray:
        """Write into `folder` what answering takes from a run of `users`, so that the run itself may go.

        Returns the vectors of the items at these rows: embedding and bias, zeros for an item that training
        has not seen.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(run_dir / name, folder / name)
        codes = ItemCodes.load(run_dir).of_rows(items)[rows]
        vectors = GraphSession(run_dir / "item.onnx").run({"code": codes})
        vectors[codes == 0] = 0.0
        np.save(folder / VECTORS, vectors)
        return vectors

    @staticmethod
    def load_vectors(folder: Path) -> np.ndarray:
        """The vectors that `write` wrote, memory-mapped; raises AdstoolError when damaged or absent."""
        try:
            return mapped(folder / VECTORS)
        except (OSError, ValueError, EOFError) as error:
            raise AdstoolError(f"{folder} holds no whole index: {error}", "Run adstool index.") from None

    def exact(self) -> SequenceIndex:
        """The same, every vector compared."""
        return SequenceIndex(
            self._folder, self._items, self._first_row, self._vectors, ExactIndex(self._vectors)
        )

    @cached_property
    def _session(self) -> GraphSession:
        return GraphSession(self._folder / "user.onnx")

    def history(self, state: ServingState, ctx: RequestContext) -> np.ndarray:
        """What the user engaged with before the request, codes oldest first, int64 [m]."""
        return code_sequence(state.engagements, self._codes, ctx.start, ctx.end)

    def user(self, history: np.ndarray) -> np.ndarray:
        """The vector of a user with this history, float32 [d + 1]."""
        newest = history[-self._length :]
        padded = np.zeros((1, self._length), dtype=np.int64)
        padded[0, : len(newest)] = newest
        return np.asarray(self._session.run({"sequence": padded})[0])

    def search(
        self, state: ServingState, ctx: RequestContext, k: int, eligible: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The at most k eligible positions with the largest logits, and those: see VectorIndex.search.

        Nothing for a user who engaged with nothing that is known. What he engaged with is left out where the
        model was trained on a log in which nothing repeats.
        """
        history = self.history(state, ctx)
        if not len(history):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        allowed = eligible & (self._corpus > 0)
        if not self._repeats:
            allowed &= ~np.isin(self._corpus, history)
        return self._index.search(self.user(history), k, allowed)
