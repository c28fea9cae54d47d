"""Monotone curves of log odds: the identity, Platt's line and an isotonic curve, chosen on held-out folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.training.metrics import EPSILON, sigmoid

Array = NDArray[np.float64]

FOLDS = 5
GLOBAL_PRIOR = (0.5, 2.0)  # standard deviations of Platt's slope and intercept around (1, 0)
MIN_BLOCK = 20  # rows behind the least knot of an isotonic curve


def logit(probability: NDArray[Any]) -> Array:
    """ln p / (1 - p), with p kept inside (0, 1)."""
    p = np.clip(probability.astype(np.float64), EPSILON, 1.0 - EPSILON)
    return np.asarray(np.log(p) - np.log1p(-p))


@dataclass(frozen=True)
class Curve:
    """A monotone map of log odds: a line, or straight pieces between knots with slope 1 beyond them."""

    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()  # knots; with any, slope and intercept are not used
    y: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        """identity, platt or isotonic."""
        if self.x:
            return "isotonic"
        return "identity" if (self.slope, self.intercept) == (1.0, 0.0) else "platt"

    def __call__(self, z: Array) -> Array:
        """The calibrated log odds of z [n]."""
        if not self.x:
            return self.slope * z + self.intercept
        inside = np.interp(z, self.x, self.y)
        return np.asarray(inside + np.minimum(z - self.x[0], 0.0) + np.maximum(z - self.x[-1], 0.0))


def fit_platt(z: Array, labels: Array, prior: tuple[float, float]) -> tuple[float, float]:
    """Slope and intercept of the most probable line under normal priors around (1, 0), by Newton's method.

    Platt (1999) with a prior in place of smoothed targets; `prior` holds the two standard deviations.
    """
    precision = np.array([prior[0] ** -2, prior[1] ** -2])
    line = np.array([1.0, 0.0])
    for _ in range(50):
        p = sigmoid(line[0] * z + line[1])
        weight = p * (1.0 - p)
        gradient = np.array([np.sum((p - labels) * z), np.sum(p - labels)])
        gradient += precision * (line - (1.0, 0.0))
        cross = float(np.sum(weight * z))
        hessian = np.array([[np.sum(weight * z * z), cross], [cross, np.sum(weight)]]) + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        # A full step can overshoot where the curve is flat: no step may leave the reach of the data.
        line = line - np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    return max(float(line[0]), 1e-3), float(line[1])


def fit_isotonic(z: Array, labels: Array) -> Curve:
    """The isotonic curve through the centres of its blocks, so that it rises strictly and keeps the ranking.

    Pool-adjacent-violators, then straight lines between block centres (centred isotonic regression, Oron and
    Flournoy 2017); the rate of a block is (positives + .5) / (rows + 1), finite in log odds.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(z, kind="stable")
    ordered, y = z[order], labels[order]
    bounds = isotonic_regression(y).blocks
    starts, ends = _join_small(bounds[:-1], bounds[1:])
    rows = (ends - starts).astype(np.float64)
    sums = np.add.reduceat(y, starts)
    centres = np.add.reduceat(ordered, starts) / rows
    rates = logit((sums + 0.5) / (rows + 1.0))
    rising = np.maximum.accumulate(rates) + 1e-6 * np.arange(len(rates))
    keep = np.r_[True, np.diff(centres) > 1e-9]
    return Curve(x=tuple(centres[keep].tolist()), y=tuple(rising[keep].tolist()))


def _join_small(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbouring blocks joined until each has MIN_BLOCK rows; the last one joins the one before it."""
    kept: list[int] = []
    covered = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if not kept or start - kept[-1] >= MIN_BLOCK:
            kept.append(start)
        covered = end
    if len(kept) > 1 and covered - kept[-1] < MIN_BLOCK:
        kept.pop()
    return np.array(kept, dtype=np.int64), np.array([*kept[1:], covered], dtype=np.int64)


def fit_curve(z: Array, labels: Array) -> Curve:
    """The plainest curve that no other clearly beats on held-out folds, fitted on all rows.

    From the identity to Platt's line to an isotonic curve: each must lower the loss by more than its standard
    error, since a curve that fits chance in the validation split makes the test split worse.
    """
    if len(labels) < 2 * FOLDS or labels.sum() < 2 * FOLDS or labels.sum() > len(labels) - 2 * FOLDS:
        return Curve()

    def platt(zs: Array, ys: Array) -> Curve:
        return Curve(*fit_platt(zs, ys, GLOBAL_PRIOR))

    fold = np.arange(len(labels)) % FOLDS
    best: Callable[[Array, Array], Curve] = _identity
    least = row_losses(z, labels)
    for fit in (platt, fit_isotonic):
        held_out = np.empty_like(z)
        for held in range(FOLDS):
            inside = fold != held
            held_out[~inside] = fit(z[inside], labels[inside])(z[~inside])
        losses = row_losses(held_out, labels)
        if clearly_less(losses, least):
            best, least = fit, losses
    return best(z, labels)


def _identity(z: Array, labels: Array) -> Curve:
    return Curve()


def row_losses(z: Array, labels: Array) -> Array:
    """The cross entropy of every row, [n], of log odds z [n] and labels [n] in {0, 1}."""
    return np.asarray(np.logaddexp(0.0, z) - labels * z)


def clearly_less(losses: Array, others: Array) -> bool:
    """Whether the mean of the row losses is lower by more than its standard error."""
    gain = others - losses
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))
