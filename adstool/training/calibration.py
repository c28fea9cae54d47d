"""Calibration of probabilities: a global curve a head, and a line a surface with shrinkage. No torch here.

Everything happens in log odds, z = ln p / (1 - p). The global curve is the identity, Platt's line, or an
isotonic curve, as held-out folds of the validation split justify. Each surface may then get its own line on
top, a * g(z) + b, pulled to (1, 0) by a normal prior, so that one with few positives stays close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import AdstoolError, DataError
from adstool.training.metrics import EPSILON, head_metrics, sigmoid
from adstool.workspace import read_json, write_json

Array = NDArray[np.float64]

NAME = "calibration.json"
PREDICTIONS = "predictions.npz"  # written by training: <split>_logits, <split>_labels, <split>_surface
FOLDS = 5
GLOBAL_PRIOR = (0.5, 2.0)  # standard deviations of Platt's slope and intercept around (1, 0)
SURFACE_PRIOR = (0.1, 0.25)  # of a surface's; 1 / .25^2 = 16: the weight of about 16 positives
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


@dataclass(frozen=True)
class HeadCalibration:
    """The curve of one head, and (slope, intercept) on top of it by surface code."""

    curve: Curve = field(default_factory=Curve)
    surfaces: dict[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """The calibration of a model's heads, in the order of its columns."""

    names: tuple[str, ...]
    heads: tuple[HeadCalibration, ...]
    amounts: tuple[float, ...] = ()  # logged over expected amounts of the actions that have one

    def apply(
        self, probabilities: NDArray[Any], surfaces: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[np.float64]:
        """Calibrated probabilities [n, A]; `surfaces` [n] are the codes of the encoder's surface column."""
        result = np.empty(probabilities.shape, dtype=np.float64)
        for column, head in enumerate(self.heads):
            z = head.curve(logit(probabilities[:, column]))
            if surfaces is not None:
                for code, (slope, intercept) in head.surfaces.items():
                    rows = surfaces == code
                    z[rows] = slope * z[rows] + intercept
            result[:, column] = sigmoid(z)
        return result

    def save(self, path: Path) -> None:
        """Write calibration.json."""
        heads = {
            name: {
                "kind": head.curve.kind,
                "slope": head.curve.slope,
                "intercept": head.curve.intercept,
                "x": list(head.curve.x),
                "y": list(head.curve.y),
                "surfaces": {str(code): list(line) for code, line in head.surfaces.items()},
            }
            for name, head in zip(self.names, self.heads, strict=True)
        }
        write_json(path, {"heads": heads, "amounts": list(self.amounts)})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read calibration.json; raises AdstoolError when it is damaged."""
        document = read_json(path)
        try:
            heads = tuple(
                HeadCalibration(
                    Curve(head["slope"], head["intercept"], tuple(head["x"]), tuple(head["y"])),
                    {int(code): (line[0], line[1]) for code, line in head["surfaces"].items()},
                )
                for head in document["heads"].values()
            )
            return cls(tuple(document["heads"]), heads, tuple(document.get("amounts", ())))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AdstoolError(f"{path} is damaged: {error!r}", "Calibrate the model again.") from None


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
    least = _row_losses(z, labels)
    for fit in (platt, fit_isotonic):
        held_out = np.empty_like(z)
        for held in range(FOLDS):
            inside = fold != held
            held_out[~inside] = fit(z[inside], labels[inside])(z[~inside])
        losses = _row_losses(held_out, labels)
        if _clearly_less(losses, least):
            best, least = fit, losses
    return best(z, labels)


def _identity(z: Array, labels: Array) -> Curve:
    return Curve()


def _row_losses(z: Array, labels: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, z) - labels * z)


def _clearly_less(losses: Array, others: Array) -> bool:
    """Whether the mean of the row losses is lower by more than its standard error."""
    gain = others - losses
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))


def fit_surfaces(
    z: Array, labels: Array, surfaces: NDArray[np.integer[Any]]
) -> dict[int, tuple[float, float]]:
    """A line a surface on top of the global curve's log odds, where held-out folds say that lines help."""
    codes = np.unique(surfaces)
    if len(codes) < 2:
        return {}

    def lines(rows: NDArray[np.bool_]) -> dict[int, tuple[float, float]]:
        chosen = {int(code): rows & (surfaces == code) for code in codes}
        return {code: fit_platt(z[part], labels[part], SURFACE_PRIOR) for code, part in chosen.items()}

    fold = np.arange(len(labels)) % FOLDS
    held_out = z.copy()
    for held in range(FOLDS):
        for code, (slope, intercept) in lines(fold != held).items():
            rows = (fold == held) & (surfaces == code)
            held_out[rows] = slope * z[rows] + intercept
    if not _clearly_less(_row_losses(held_out, labels), _row_losses(z, labels)):
        return {}
    return lines(np.ones(len(labels), dtype=bool))


def fit_calibration(
    names: tuple[str, ...],
    logits: NDArray[Any],
    labels: NDArray[Any],
    surfaces: NDArray[np.integer[Any]] | None,
) -> Calibration:
    """Fit on a held-out split: logits [n, A], labels [n, A] (nan: masked), surface codes [n] or None."""
    heads = []
    for column in range(len(names)):
        known = ~np.isnan(labels[:, column])
        z = logits[known, column].astype(np.float64)
        y = labels[known, column].astype(np.float64)
        curve = fit_curve(z, y)
        lines = fit_surfaces(curve(z), y, surfaces[known]) if surfaces is not None and len(y) else {}
        heads.append(HeadCalibration(curve, lines))
    return Calibration(names, tuple(heads))


def fit_amounts(expected: NDArray[Any] | None, logged: NDArray[Any] | None) -> tuple[float, ...]:
    """Logged over expected amounts of the validation split, a factor an action [V]; nothing without amounts.

    The factor is drawn to 1 as by 16 actions that were expected rightly, so that a rare one stays close.
    """
    if expected is None or logged is None:
        return ()
    factors = []
    for column in range(expected.shape[1]):
        known = ~np.isnan(logged[:, column])
        y, e = logged[known, column].astype(np.float64), expected[known, column].astype(np.float64)
        prior = 16.0 * float(y[y > 0].mean()) if (y > 0).any() else 1.0
        factors.append((float(y.sum()) + prior) / (float(e.sum()) + prior))
    return tuple(factors)


def calibrate_run(run_dir: Path) -> dict[str, Any]:
    """Fit a run's calibration on its validation split, write it, and judge it on its test split.

    It rests on the held-out predictions that training left in the run's folder, so that it costs no pass over
    the data. Returns {before, after, curves}; before and after hold the `head_metrics` of the test split.
    Raises DataError when training left no predictions that this can rest on.
    """
    path = run_dir / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as stored:
            held = {name: stored[name] for name in stored.files}
        valid, test = held["valid_logits"], held["test_logits"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): {run_dir.parent.name} is no model of probabilities, or its "
            "run is damaged.",
            "Calibrate engagement, lightweight, conversion or flat; or train it again.",
        ) from None
    names = tuple(read_json(run_dir / "config.json")["outputs"])
    fitted = fit_calibration(names, valid, held["valid_labels"], held.get("valid_surface"))
    fitted = replace(fitted, amounts=fit_amounts(held.get("valid_amounts"), held.get("valid_amount_labels")))
    fitted.save(run_dir / NAME)
    before = sigmoid(test)
    after = fitted.apply(before, held.get("test_surface"))
    labels = held["test_labels"]
    known = ~np.isnan(labels).all(axis=0)  # the money of a conversion is no probability that could be judged
    judged = tuple(name for name, is_known in zip(names, known, strict=True) if is_known)
    curves = {name: head.curve.kind for name, head in zip(names, fitted.heads, strict=True)}
    return {
        "before": head_metrics(labels[:, known], before[:, known], judged),
        "after": head_metrics(labels[:, known], after[:, known], judged),
        "curves": {name: curves[name] for name in judged},
    }
