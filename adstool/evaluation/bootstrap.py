"""Intervals of metrics by resampling users.

The rows of one user resemble each other, so resampling rows would give intervals that are too narrow. Whole
users are drawn instead, with replacement (cluster bootstrap, Davison & Hinkley 1997, section 3.8). A draw is
how often each user was taken: a metric that is a function of sums needs only those numbers times the sums by
user, and the AUC only one sort of the scores for all draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LEVEL = 0.95
BLOCK = 16  # draws summed at once


class Estimate(NamedTuple):
    """A figure with its percentile interval over resamples of users."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        """[low, high]."""
        return [self.low, self.high]


def estimate(draws: Array) -> Estimate:
    """The estimate of draws [1 + R] whose first is the figure of the data itself; nan draws are left out."""
    value = float(draws[0])
    drawn = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(value) or len(drawn) < 2:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


class Resampler:
    """Draws of users behind rows. Draw 0 takes every user once: it is the data itself.

    users: int [n], the user of each row, any numbers. Two metrics of one Resampler are drawn alike, so the
    differences of their draws are paired.
    """

    def __init__(self, users: Array, resamples: int, seed: int = 0) -> None:
        self.names, self.user = np.unique(users, return_inverse=True)
        self.resamples = resamples
        self.seed = seed

    @cached_property
    def counts(self) -> Array:
        """How often each user is taken, uint8 [1 + R, users]: nobody is drawn 256 times of so many draws."""
        size = len(self.names)
        drawn = np.ones((1 + self.resamples, size), dtype=np.uint8)
        random = np.random.default_rng(self.seed)
        for row in range(1, 1 + self.resamples):
            drawn[row] = np.bincount(random.integers(size, size=size), minlength=size)
        return drawn

    def sums(self, *columns: Array) -> list[Array]:
        """The sum of each column [n] in every draw: float64 arrays [1 + R]."""
        size = len(self.names)
        by_user = np.stack([np.bincount(self.user, weights=c, minlength=size) for c in columns], axis=1)
        # A few draws at a time: all of them as float64 would be gigabytes for a million users.
        blocks = range(0, len(self.counts), BLOCK)
        drawn = [self.counts[start : start + BLOCK].astype(np.float64) @ by_user for start in blocks]
        return list(np.concatenate(drawn).T)

    def of_sums(self, function: Callable[..., Array], *columns: Array) -> Estimate:
        """The estimate of a vectorised function of the columns' sums."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return estimate(function(*self.sums(*columns)))

    def ratio(self, numerator: Array, denominator: Array) -> Estimate:
        """Σ numerator ÷ Σ denominator, both [n]."""
        return self.of_sums(np.divide, numerator, denominator)

    def mean(self, values: Array) -> Estimate:
        """The mean of values [n], nan left out."""
        known = np.isfinite(values)
        return self.ratio(np.where(known, values, 0.0), known.astype(np.float64))

    def auc(self, labels: Array, scores: Array) -> Array:
        """The AUC in every draw, float64 [1 + R]; labels [n] in {0, 1}. nan in a draw with one class only.

        A positive beats the weight below it, W, of which positives beat each other in P²/2 pairs, ties
        counting half: AUC = (Σ_positives w·W − P²/2) ÷ (P·N). So a draw costs a gather and a running sum.
        """
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        ends = np.r_[starts[1:], len(order)]
        positive = np.flatnonzero(labels[order] > 0.5)
        block = np.searchsorted(starts, positive, side="right") - 1
        user = self.user[order]
        first, last = starts[block], ends[block]
        out = np.full(len(self.counts), np.nan)
        below = np.zeros(len(order) + 1)
        for draw, counts in enumerate(self.counts):
            np.cumsum(counts[user], dtype=np.float64, out=below[1:])
            weight = counts[user[positive]].astype(np.float64)
            total = weight.sum()
            pairs = total * (below[-1] - total)
            if pairs > 0:
                middle = (below[first] + below[last]) / 2.0
                out[draw] = (np.dot(weight, middle) - total * total / 2.0) / pairs
        return out
