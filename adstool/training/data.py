"""The examples that models are trained on, and what the trainers need to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adstool.config import Action, Settings
from adstool.errors import DataError
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from adstool.features.dataset import Dataset


class Items(Protocol):
    """The catalogue behind the examples."""

    @property
    def content(self) -> NDArray[Any]:
        """Content vectors, float32 [n, D]; zeros where an item has none."""
        ...


class Examples(Protocol):
    """What the trainers read: logged impressions (features.dataset.Dataset) or the rows of a flat table.

    Columns are memory-mapped and ordered by time; see adstool.features.dataset.Dataset for shapes.
    """

    @property
    def categorical(self) -> NDArray[Any]: ...  # int32 [N, F]
    @property
    def numeric(self) -> NDArray[Any]: ...  # float32 [N, M]
    @property
    def item_row(self) -> NDArray[Any]: ...  # int32 [N], rows of items
    @property
    def items(self) -> Items: ...
    @property
    def user(self) -> NDArray[Any]: ...  # int32 [N], a number a user
    @property
    def labels(self) -> NDArray[Any]: ...  # float32 [N, A], nan where masked
    @property
    def sample_weight(self) -> NDArray[Any]: ...  # float32 [N]
    @property
    def splits(self) -> Mapping[str, slice]: ...  # train, valid, test
    @property
    def actions(self) -> Sequence[Action]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def mapped_bytes(self) -> int: ...  # of all these columns, 0 for those in memory


def load_training_data(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> Dataset:
    """The workspace's examples: vectors and semantic ids of every item, the catalogue and the features of
    each impression.

    Built or taken from the cache. Raises DataError when the log holds nothing to train on.
    """
    from adstool.content.codebooks import load_semantic_ids
    from adstool.content.enrichment.knowledge import feature_knowledge
    from adstool.content.vectors import feature_vectors
    from adstool.features.dataset import build_dataset
    from adstool.features.items import build_items

    items = build_items(
        con, feature_vectors(ws, settings), load_semantic_ids(ws), feature_knowledge(ws, settings)
    )
    dataset = build_dataset(con, ws, settings, items)
    for name in ("train", "valid", "test"):
        part = dataset.splits[name]
        if part.stop <= part.start:
            raise DataError(
                f"The {name} split has no examples: the log holds {len(dataset.labels)} impressions of items "
                "that the catalogue knows.",
                "Ingest more events, or change features.valid_fraction and features.test_fraction.",
            )
    return dataset


def happened(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Labels as 0 and 1, nan kept where masked: a duration or a count counts as happened when above zero."""
    result = (labels > 0).astype(np.float32)
    result[np.isnan(labels)] = np.nan
    return result


def base_rates(examples: Examples, rows: slice) -> NDArray[np.float64]:
    """The share of positives of every head among its known labels, [A], kept inside (0, 1)."""
    labels = happened(np.asarray(examples.labels[rows]))
    known = (~np.isnan(labels)).sum(axis=0)
    positives = np.nansum(labels, axis=0)
    return np.asarray((positives + 0.5) / (known + 1.0), dtype=np.float64)


def engaged_rows(examples: Examples, rows: slice) -> NDArray[np.int64]:
    """The rows on which any positive action happened."""
    columns = [index for index, action in enumerate(examples.actions) if action.positive]
    wanted = np.nan_to_num(np.asarray(examples.labels[rows][:, columns])) > 0
    return np.asarray(np.flatnonzero(wanted.any(axis=1)) + rows.start, dtype=np.int64)
