"""Items as codes of a sequence model, and what a user engaged with as a sequence of such codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adstool.errors import AdstoolError
from adstool.features.engagements import Engagements
from adstool.features.items import ItemTable
from adstool.workspace import write_table

FILE = "items.parquet"


class ItemCodes:
    """Codes 1 .. n of n items; 0 stands for every other. keys: 'ad:<id>' or 'pin:<id>' by code - 1."""

    def __init__(self, keys: pa.Array) -> None:
        self.keys = keys

    def __len__(self) -> int:
        """n + 1, the code 0 included."""
        return len(self.keys) + 1

    @classmethod
    def engaged_with(cls, items: ItemTable, rows: np.ndarray) -> ItemCodes:
        """Codes for the items at these rows, however often each is named, in the order of the table."""
        return cls(items.keys.take(pa.array(np.unique(rows))))

    def of_rows(self, items: ItemTable) -> np.ndarray:
        """The code of every row of `items`, int64 [items]."""
        places = pc.fill_null(pc.index_in(items.keys, value_set=self.keys), -1)
        return np.asarray(places.to_numpy(zero_copy_only=False), dtype=np.int64) + 1

    def save(self, directory: Path) -> None:
        """Write items.parquet into `directory`, whole or not at all."""
        write_table(directory / FILE, pa.table({"item": self.keys}))

    @classmethod
    def load(cls, directory: Path) -> ItemCodes:
        """What `save` wrote; raises AdstoolError when it is damaged or absent."""
        try:
            return cls(pq.read_table(directory / FILE).column("item").combine_chunks())
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise AdstoolError(
                f"{directory / FILE} cannot be read: {error}", "Train it again: adstool train users"
            ) from None


def code_sequence(engagements: Engagements, codes: np.ndarray, start: int, end: int) -> np.ndarray:
    """The codes of the engagements [start, end) of one user, oldest first, int64 [m].

    codes: of every item row. Items without a code are left out, and several actions on an item in a row (a
    click, then a save) are one engagement.
    """
    made = codes[np.asarray(engagements.item[start:end])]
    made = made[made > 0]
    changes = np.ones(len(made), dtype=bool)
    changes[1:] = made[1:] != made[:-1]
    return np.asarray(made[changes])
