"""What is known of conversions at the training cut-off, and how each method samples it.

A conversion reported later than the cut-off is not known, so recent clicks look worse than they are. Times
are int64 microseconds UTC; a delay runs from the click to the report.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adstool.errors import UsageError, choose

DAY = 86_400_000_000
MOST = 10.0  # conversions that one taken in again stands for, at most
METHODS = ("elapsed", "es-dfm", "fnw", "dfm", "none", "oracle")


@dataclass(frozen=True)
class Clicks:
    """The clicks of a split: `row` [n] of the examples, `ts` [n], `reported` [n, K] (max int64: never)."""

    row: NDArray[np.int64]
    ts: NDArray[np.int64]
    reported: NDArray[np.int64]

    def converted(self, horizon: int) -> NDArray[np.bool_]:
        """[n, K]: whether a conversion is reported within `horizon` of the click, however late that is."""
        return self.reported - self.ts[:, None] <= horizon

    def part(self, chosen: NDArray[np.bool_]) -> Clicks:
        """These clicks only."""
        return Clicks(self.row[chosen], self.ts[chosen], self.reported[chosen])


@dataclass(frozen=True)
class Stream:
    """Observations of clicks, a row each; a click may have several."""

    row: NDArray[np.int64]  # [R], of the examples
    first: NDArray[np.bool_]  # [R], false where a conversion is taken in again
    label: NDArray[np.float32]  # [R, K], nan where the observation says nothing of the kind
    corrected: NDArray[np.bool_]  # [R], whether weights of the method apply
    days: NDArray[np.float32]  # [R, K], to the report or since the click; inf where all is known
    repeat: NDArray[np.float32]  # [R], of one taken in again: traffic then by traffic at its click

    @property
    def late(self) -> NDArray[np.float32]:
        """[R, K]: 1 for a conversion that is taken in again, 0 for one within the wait of a click of the same
        span, else nan: with `repeat`, what the auxiliary model of es-dfm learns p(late | converts) from.

        Matured clicks alone would say the same of older delays.
        """
        known = (self.label == 1) & self.corrected[:, None]
        return np.where(known, ~self.first[:, None], np.nan).astype(np.float32)


def observe(clicks: Clicks, cut: int, method: str, wait: int, horizon: int) -> Stream:
    """The observations of `clicks` that `method` trains on at `cut`. Raises UsageError for an unknown method.

    none, dfm and elapsed: each click once with what is known of it. oracle: with what becomes known, for
    reference.
    es-dfm and fnw: each click that is older than horizon + wait once, since all is known of it; beside these
    a stream over the last `horizon` before the cut, ordered as the papers have it: a click is taken in `wait`
    after it happened (fnw: at once, as a negative), and a conversion reported later is taken in again, as a
    positive, whenever its click was. Both run over one span of time, so that as many late positives come in
    from clicks before the span as are still to come from clicks in it; sampling only the clicks of the span
    would miss those and leave recent clicks too low. That balance holds where traffic is steady: `repeat`
    restores it where traffic grows or shrinks.
    """
    if method not in METHODS:
        raise UsageError(f"--delay {method} is not known.", choose(method, METHODS))
    delay = clicks.reported - clicks.ts[:, None]
    final = clicks.converted(horizon)
    n, kinds = clicks.reported.shape
    if method == "oracle":
        known = np.full((n, kinds), np.inf, dtype=np.float32)
        return _once(clicks, final.astype(np.float32), np.zeros(n, dtype=bool), known)
    if method in ("none", "dfm", "elapsed"):
        told = final & (clicks.reported <= cut)
        age = np.repeat((cut - clicks.ts)[:, None], kinds, axis=1)
        days = np.where(told, delay, age).clip(0) / DAY
        days[~told & (age >= horizon)] = np.inf
        return _once(clicks, told.astype(np.float32), np.zeros(n, dtype=bool), days.astype(np.float32))
    return _stream(clicks, delay, final, cut, 0 if method == "fnw" else wait, horizon)


def matured(clicks: Clicks, cut: int, wait: int, horizon: int) -> NDArray[np.bool_]:
    """[n]: the clicks of which all is known a wait before the cut; what auxiliary models learn from."""
    return np.asarray(clicks.ts <= cut - horizon - wait)


def _stream(
    clicks: Clicks,
    delay: NDArray[np.int64],
    final: NDArray[np.bool_],
    cut: int,
    wait: int,
    horizon: int,
) -> Stream:
    old = matured(clicks, cut, wait, horizon)
    soon = delay <= wait
    label = np.where(old[:, None], final, soon).astype(np.float32)
    label[clicks.ts > cut - wait] = np.nan  # not yet taken in
    again, kind = np.nonzero(final & ~soon & (clicks.reported <= cut) & (clicks.reported > cut - horizon))
    late = np.full((len(again), label.shape[1]), np.nan, dtype=np.float32)
    late[np.arange(len(again)), kind] = 1.0
    label = np.concatenate([label, late])
    return Stream(
        row=np.concatenate([clicks.row, clicks.row[again]]),
        first=np.r_[np.ones(len(clicks.row), dtype=bool), np.zeros(len(again), dtype=bool)],
        label=label,
        corrected=np.r_[~old, np.ones(len(again), dtype=bool)],
        days=np.full(label.shape, np.inf, dtype=np.float32),
        repeat=np.r_[np.ones(len(clicks.row)), _growth(clicks, again, kind, wait)].astype(np.float32),
    )


def _growth(
    clicks: Clicks, again: NDArray[np.int64], kind: NDArray[np.int64], wait: int
) -> NDArray[np.float64]:
    """Clicks of the day around the one that was taken in when a conversion was reported, by clicks of the day
    around its own click.

    A late positive stands for those still to come from the clicks taken in at its time: there are
    n(report - wait) of these for every n(click) that it came from.
    """
    ts = np.sort(clicks.ts)

    def traffic(moment: NDArray[np.int64]) -> NDArray[np.float64]:
        low, high = (
            np.searchsorted(ts, moment - DAY // 2),
            np.searchsorted(ts, moment + DAY // 2, side="right"),
        )
        # At an end of the log, part of the day is missing.
        seen = np.minimum(moment + DAY // 2, ts[-1]) - np.maximum(moment - DAY // 2, ts[0])
        return np.asarray((high - low) / np.maximum(seen, DAY // 8))

    if not len(again):
        return np.ones(0)
    now = traffic(clicks.reported[again, kind] - wait)
    return np.asarray((now / np.maximum(traffic(clicks.ts[again]), 1e-12)).clip(1 / MOST, MOST))


def _once(
    clicks: Clicks, label: NDArray[np.float32], corrected: NDArray[np.bool_], days: NDArray[np.float32]
) -> Stream:
    n = len(clicks.row)
    return Stream(clicks.row, np.ones(n, dtype=bool), label, corrected, days, np.ones(n, dtype=np.float32))
