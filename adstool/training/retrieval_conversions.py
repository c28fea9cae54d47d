"""Retrieval's second head: what users converted on, from labels too sparse for towers of their own.

The towers are shared with engagement; the head is trained on impressions to which conversions were credited,
by a softmax over ads and by one over advertisers, and more on engagement, from which it departs only where
conversions say so (after Pinterest's conversion candidate generation, 2026). Sample world, four seeds:
recall@100 of ads converted on is .670 against .650 by the engagement head in the test split, .681 against
.667 in the one before; with the engaged rows at .3 of the credited ones' weight in place of 3 it is .604.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.errors import DataError
from adstool.features.conversions import ConversionLabels, build_conversions
from adstool.features.dataset import Dataset
from adstool.progress import log
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

HEAD = "convert"
LEAST = 20  # credited impressions of training below which there is no head


@dataclass(frozen=True)
class Converted:
    """Impressions to which conversions were credited, by split: rows of the dataset, rising.

    Those of training as known when it ends; of the others as known at the end of the log. advertiser: int32
    [items], its number by row of the item table.
    """

    rows: dict[str, NDArray[np.int64]]
    advertiser: NDArray[np.int32]
    fingerprint: str = ""  # of the labels

    @classmethod
    def of(cls, labels: ConversionLabels, dataset: Dataset) -> Converted:
        """From the labels of the dataset's examples."""
        cut = int(dataset.ts[dataset.splits["train"].stop])
        rows = {}
        for name, split in dataset.splits.items():
            credit = labels.as_of(cut if name == "train" else labels.end_ts, split).credit
            rows[name] = np.flatnonzero(credit.sum(axis=1) > 0) + split.start
        return cls(rows, dataset.items.advertisers[0], labels.fingerprint)

    def share(self, item_row: NDArray[Any]) -> NDArray[np.float32]:
        """Every item's share of the training rows, [items]. item_row: of all examples."""
        rows = self.rows["train"]
        counts = np.bincount(item_row[rows], minlength=len(self.advertiser))
        return (counts / max(len(rows), 1)).astype(np.float32)


def load_converted(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, dataset: Dataset
) -> Converted | None:
    """What training is told of conversions; None where the log has too few."""
    try:
        converted = Converted.of(build_conversions(con, ws, settings, dataset), dataset)
    except DataError as lacking:
        log.info("retrieval has no conversion head: %s", lacking.message)
        return None
    found = len(converted.rows["train"])
    if found < LEAST:
        log.info(
            "retrieval has no conversion head: conversions are credited to %d impressions of training,"
            " fewer than %d.",
            found,
            LEAST,
        )
        return None
    return converted
