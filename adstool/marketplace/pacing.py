"""Budgets that hold while reports are late, and how a day's traffic is spread over its hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adstool.errors import AdstoolError

HOURS = 24


@dataclass(frozen=True)
class TrafficProfile:
    """The share of a day's requests that comes in each hour; a bidder paces by it, not by the clock."""

    hours: np.ndarray  # float64 [24], sums to 1

    @staticmethod
    def of_counts(counts: np.ndarray, prior: float = 1.0) -> TrafficProfile:
        """From requests an hour of day, [24] or days [D, 24]; `prior`: requests that every hour has besides.

        Raises AdstoolError when there are not 24 hours.
        """
        total = np.atleast_2d(np.asarray(counts, dtype=np.float64)).sum(axis=0)
        if total.shape != (HOURS,) or np.any(total < 0):
            raise AdstoolError(
                f"Counts of traffic have the shape {total.shape}, not (24,), or are below 0.",
                "Give one an hour of day.",
            )
        return TrafficProfile((total + prior) / (total + prior).sum())

    @staticmethod
    def flat() -> TrafficProfile:
        """Every hour alike."""
        return TrafficProfile(np.full(HOURS, 1 / HOURS))

    def share(self, start: float, end: float) -> float:
        """The share of a day between two hours of it, 0 <= start <= end <= 24, fractions of hours too."""
        passed = np.concatenate([[0.0], np.cumsum(self.hours)])
        low, high = np.interp([start, end], np.arange(HOURS + 1), passed)
        return float(high - low)


class Ledger:
    """What every campaign has spent today and what is still outstanding.

    A view or click sold and not yet reported holds its amount back: `reserve` before it is sold, `settle`
    when the report comes. With the whole price reserved a day never costs more than its budget, however late
    the reports and however many sell at once; with the expected price (price times click rate), it exceeds
    the budget only by the clicks of outstanding views beyond their expectation.
    """

    def __init__(self, budget: np.ndarray) -> None:
        """budget: money a day, float64 [C]; inf: no limit."""
        self.budget = np.asarray(budget, dtype=np.float64)
        self.spent = np.zeros(len(budget))
        self.reserved = np.zeros(len(budget))

    def left(self) -> np.ndarray:
        """Money that is neither spent nor outstanding, float64 [C], not below 0."""
        return np.asarray(np.maximum(self.budget - self.spent - self.reserved, 0.0))

    def reserve(self, campaign: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Hold `amount` back for each of a chunk of sales, in their order; bool, which the budget allows.

        campaign: int [n], amount: float [n]. A sale that is refused takes nothing, and so do the later ones
        of its campaign in the same chunk, so that the outcome is that of one after the other stopping there.
        """
        order = np.argsort(campaign, kind="stable")
        sold, money = campaign[order], np.asarray(amount, dtype=np.float64)[order]
        total = np.cumsum(money)
        first = np.flatnonzero(np.diff(sold, prepend=-1))
        before = np.repeat((total - money)[first], np.diff(first, append=len(sold)))
        # A hair of rounding must not refuse a budget that is used to the cent.
        fits = total - before <= self.left()[sold] * (1 + 1e-12) + 1e-12
        granted = np.empty(len(order), dtype=bool)
        granted[order] = fits
        self.reserved += np.bincount(sold[fits], money[fits], minlength=len(self.budget))
        return granted

    def settle(self, campaign: np.ndarray, amount: np.ndarray, spend: np.ndarray) -> None:
        """Reports of sales: what was reserved for each, and what it cost in the end; [n] each."""
        size = len(self.budget)
        self.reserved = np.maximum(self.reserved - np.bincount(campaign, amount, minlength=size), 0.0)
        self.spent += np.bincount(campaign, spend, minlength=size)

    def new_day(self) -> None:
        """Budgets are whole again; what is outstanding stays so and counts towards the day of its report."""
        self.spent[:] = 0.0

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs in another process."""
        return {"spent": self.spent.copy(), "reserved": self.reserved.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`. Raises AdstoolError when it is of other campaigns."""
        for name in ("spent", "reserved"):
            if name not in state or state[name].shape != self.budget.shape:
                raise AdstoolError(
                    f"The kept ledger does not fit {len(self.budget)} campaigns.", "Begin without it."
                )
        self.spent, self.reserved = state["spent"].copy(), state["reserved"].copy()
