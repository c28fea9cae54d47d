"""Every user known to the catalogue or the log, at one dense number."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adstool.errors import AdstoolError
from adstool.features.items import NO_TIME
from adstool.workspace import write_table


class UserTable:
    """Users by id. table: number, user_id, signup_at (microseconds UTC), country, language, age_bucket,
    gender."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """A raw column; raises KeyError for an unknown name."""
        return self.table.column(name)

    def number(self, user_id: str) -> int:
        """The user's number, -1 for an unknown one: a binary search, the ids being sorted."""
        ids = self.column("user_id")
        place = bisect_left(range(len(self)), user_id, key=lambda row: str(ids[row].as_py()))
        return place if place < len(self) and ids[place].as_py() == user_id else -1

    def profile(self, number: int) -> dict[str, Any]:
        """The raw columns of one user; all None for the number -1."""
        names = [name for name in self.table.column_names if name != "number"]
        return {name: self.column(name)[number].as_py() if number >= 0 else None for name in names}

    @cached_property
    def signup(self) -> np.ndarray:
        """Microseconds UTC of signing up, int64 [n]; NO_TIME where it is not known."""
        values = pc.fill_null(self.column("signup_at"), NO_TIME)
        return np.asarray(values.to_numpy(), dtype=np.int64)

    def save(self, directory: Path) -> None:
        """Write users.parquet into `directory`, whole or not at all."""
        write_table(directory / "users.parquet", self.table)

    @classmethod
    def load(cls, directory: Path) -> UserTable:
        """What `save` wrote; raises AdstoolError when it is damaged or absent."""
        try:
            return cls(pq.read_table(directory / "users.parquet"))
        except (OSError, pa.ArrowInvalid) as error:
            raise AdstoolError(f"{directory} holds no users: {error}", "Build it again.") from None
