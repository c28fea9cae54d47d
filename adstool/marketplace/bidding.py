"""Bidders over arrays of campaigns: what they are told, and what they keep from one restart to the next.

A bidder steps through a day in chunks of requests: `bids` for the requests of a chunk, then `observe` with
what they brought, as far as it is reported; `new_day` at midnight. One bidder holds all campaigns of a
market, or the one of a replay. Value and bid speak of the same event, a click or a view; which one is the
caller's affair. The strategies stand in `strategies.py`.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adstool.errors import AdstoolError
from adstool.workspace import write_arrays

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Campaigns:
    """What advertisers ask for. A target cost an action is the target 1 / cost where value counts actions."""

    bid: np.ndarray  # float64 [C], money for a unit of value, to begin with; `fixed` bids it for every event
    budget: np.ndarray  # float64 [C], money a day; inf: no limit
    target: np.ndarray  # float64 [C], the least value a unit of money must bring; 0: no target
    most: np.ndarray | None = None  # float64 [C], money for a unit of value never exceeded; None: any

    def __post_init__(self) -> None:
        if not (self.bid.shape == self.budget.shape == self.target.shape and self.bid.ndim == 1):
            raise AdstoolError(
                f"bid, budget and target have the shapes {self.bid.shape}, {self.budget.shape}, "
                f"{self.target.shape}.",
                "Give arrays of one number a campaign each.",
            )
        if not (np.all(self.bid > 0) and np.all(self.budget > 0) and np.all(self.target >= 0)):
            wrong = ~((self.bid > 0) & (self.budget > 0) & (self.target >= 0))
            raise AdstoolError(
                f"Campaign {int(np.argmax(wrong))} wants a bid and budget above 0, a target from 0.",
                "Leave the campaign out, or give it those.",
            )

    def __len__(self) -> int:
        return len(self.bid)


@dataclass(frozen=True)
class Delivery:
    """What was reported since the last step, for every campaign; reports may come late."""

    traffic: float  # share of the day's requests that was predicted for the step, see pacing.TrafficProfile
    spend: np.ndarray  # float64 [C], money
    value: np.ndarray  # float64 [C], expected by a calibrated model, or reported


class Bidder(ABC):
    """All campaigns' bids by one strategy. `campaigns` may be replaced between days."""

    KEEPS: tuple[str, ...] = ()  # the attributes that are its memory, float64 arrays

    def __init__(self, campaigns: Campaigns) -> None:
        self.campaigns = campaigns

    @abstractmethod
    def bids(self, value: np.ndarray, campaign: np.ndarray) -> np.ndarray:
        """Money to bid for events worth `value` to `campaign` (its number); float64 of their shape."""

    def observe(self, delivery: Delivery) -> None:  # noqa: B027 - a strategy without feedback has none
        """Learn from what a step brought."""

    def new_day(self) -> None:  # noqa: B027 - a strategy without a day has none
        """Budgets are whole again; what was learnt stays."""

    def state(self) -> State:
        """Its memory, for `restore` in another process."""
        return {name: np.array(getattr(self, name), dtype=np.float64) for name in self.KEEPS}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`. Raises AdstoolError when it is of another strategy or other campaigns."""
        for name in self.KEEPS:
            held = np.asarray(getattr(self, name))
            if name not in state or state[name].shape != held.shape:
                raise AdstoolError(
                    f"The state of bidding does not fit: '{name}' should be of shape {held.shape}.",
                    "Use the strategy and the campaigns that it was kept for, or begin without it.",
                )
            setattr(self, name, np.array(state[name], dtype=np.float64))


def save_state(path: Path, parts: Mapping[str, State]) -> None:
    """Keep the memory of named parts (bidder, ledger) in one file, replaced whole."""
    arrays = {f"{part}/{name}": array for part, state in parts.items() for name, array in state.items()}
    write_arrays(path, arrays)


def load_state(path: Path) -> dict[str, State]:
    """The parts that `save_state` kept. Raises AdstoolError when the file is not one of its."""
    parts: dict[str, State] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = arrays[key]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise AdstoolError(
            f"{path} is no state of bidding: {error}.", "Name another, or begin without."
        ) from error
    return parts
