"""Where users were seen off the site: the advertisers of their conversions, online and in stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adstool.errors import AdstoolError
from adstool.features.log import FOREVER, CodedLog
from adstool.features.mapping import mapped
from adstool.warehouse import load_sql
from adstool.workspace import write_array

_ARRAYS = ("offsets", "ts", "advertiser")


@dataclass(frozen=True)
class OffSite:
    """Conversions by user, then by when they were known.

    offsets: int64 [users + 1], the range of every user. ts: int64 [C], microseconds UTC of the report.
    advertiser: int32 [C], number of ItemTable.advertisers.
    """

    offsets: np.ndarray
    ts: np.ndarray
    advertiser: np.ndarray

    def __len__(self) -> int:
        return len(self.ts)

    @classmethod
    def build(cls, log: CodedLog, until: int = FOREVER) -> OffSite:
        """What was known strictly before `until`, microseconds UTC."""
        found = log.con.execute(load_sql("features_off_site"), {"until": until}).fetchnumpy()
        user = np.asarray(found["user_no"], dtype=np.int64)
        return cls(
            np.searchsorted(user, np.arange(len(log.users) + 1)).astype(np.int64),
            np.asarray(found["ts"], dtype=np.int64),
            np.asarray(found["advertiser_no"], dtype=np.int32),
        )

    def before(self, user: int, ts: int) -> tuple[np.ndarray, np.ndarray]:
        """Advertisers [m] and times [m] of a user's conversions known strictly before `ts`, oldest first;
        nothing for an unknown user (-1)."""
        if user < 0:
            return self.advertiser[:0], self.ts[:0]
        start, stop = int(self.offsets[user]), int(self.offsets[user + 1])
        stop = start + int(np.searchsorted(self.ts[start:stop], ts))
        return self.advertiser[start:stop], self.ts[start:stop]

    def save(self, directory: Path) -> None:
        """Write off_site_<name>.npy into `directory`, each whole or not at all."""
        for name in _ARRAYS:
            write_array(directory / f"off_site_{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, directory: Path) -> OffSite:
        """What `save` wrote, memory-mapped; raises AdstoolError when it is damaged or absent."""
        try:
            return cls(*(mapped(directory / f"off_site_{name}.npy") for name in _ARRAYS))
        except (OSError, ValueError) as error:
            raise AdstoolError(
                f"{directory} holds no conversions of users: {error}", "Run adstool index."
            ) from None
