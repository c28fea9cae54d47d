"""Calibration of probabilities: a curve a head, lines a surface and a vertical with shrinkage. No torch.

Everything happens in log odds, z = ln p / (1 - p). The global curve is the identity, Platt's line, or an
isotonic curve, as held-out folds of the validation split justify. Each surface, and then each vertical of
advertisers, may get its own line on top, a * g(z) + b, pulled to (1, 0) by a normal prior, so that one with
few positives stays close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import AdstoolError, DataError
from adstool.training.calibration_curves import (
    FOLDS,
    Array,
    Curve,
    clearly_less,
    fit_curve,
    fit_platt,
    logit,
    row_losses,
)
from adstool.training.metrics import calibration_ratio, head_metrics, sigmoid
from adstool.workspace import read_json, write_json

NAME = "calibration.json"
# Written by training: <split>_logits, _labels, and where there are some _surface, _vertical, _request, _bid,
# _amounts, _amount_labels.
PREDICTIONS = "predictions.npz"
GROUPS = ("surface", "vertical")  # columns whose values get lines, in this order
GROUP_PRIOR = (0.1, 0.25)  # deviations of a value's line; 1 / .25^2 = 16: the weight of about 16 positives

Lines = dict[int, tuple[float, float]]  # slope and intercept by code
Codes = Mapping[str, NDArray[np.integer[Any]]]  # codes [n] of the columns of GROUPS that there are


@dataclass(frozen=True)
class HeadCalibration:
    """The curve of one head, and lines on top of it by the values of columns."""

    curve: Curve = field(default_factory=Curve)
    lines: dict[str, Lines] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """The calibration of a model's heads, in the order of its columns."""

    names: tuple[str, ...]
    heads: tuple[HeadCalibration, ...]
    amounts: tuple[float, ...] = ()  # logged over expected amounts of the actions that have one

    def apply(self, probabilities: NDArray[Any], codes: Codes | None = None) -> NDArray[np.float64]:
        """Calibrated probabilities [n, A]; `codes` are the encoder's."""
        result = np.empty(probabilities.shape, dtype=np.float64)
        for column, head in enumerate(self.heads):
            z = head.curve(logit(probabilities[:, column]))
            for group, lines in head.lines.items():
                if codes is not None and group in codes:
                    _apply_lines(z, codes[group], lines)
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
                **{
                    f"{group}s": {str(code): list(line) for code, line in head.lines.get(group, {}).items()}
                    for group in GROUPS
                },
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
                    {
                        group: {int(code): (line[0], line[1]) for code, line in lines.items()}
                        for group in GROUPS
                        if (lines := head.get(f"{group}s"))
                    },
                )
                for head in document["heads"].values()
            )
            return cls(tuple(document["heads"]), heads, tuple(document.get("amounts", ())))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AdstoolError(f"{path} is damaged: {error!r}", "Calibrate the model again.") from None


def _apply_lines(z: Array, codes: NDArray[np.integer[Any]], lines: Lines) -> None:
    """Replace the log odds of the rows of each code by its line's."""
    for code, (slope, intercept) in lines.items():
        rows = codes == code
        z[rows] = slope * z[rows] + intercept


def fit_lines(z: Array, labels: Array, codes: NDArray[np.integer[Any]]) -> Lines:
    """A line a code on top of these log odds, where held-out folds say that lines help."""
    known = np.unique(codes)
    if len(known) < 2:
        return {}

    def lines(rows: NDArray[np.bool_]) -> Lines:
        chosen = {int(code): rows & (codes == code) for code in known}
        return {code: fit_platt(z[part], labels[part], GROUP_PRIOR) for code, part in chosen.items()}

    fold = np.arange(len(labels)) % FOLDS
    held_out = z.copy()
    for held in range(FOLDS):
        part = z[fold == held]
        _apply_lines(part, codes[fold == held], lines(fold != held))
        held_out[fold == held] = part
    if not clearly_less(row_losses(held_out, labels), row_losses(z, labels)):
        return {}
    return lines(np.ones(len(labels), dtype=bool))


def fit_calibration(
    names: tuple[str, ...], logits: NDArray[Any], labels: NDArray[Any], codes: Codes
) -> Calibration:
    """Fit on a held-out split: logits [n, A], labels [n, A] (nan: masked)."""
    heads = []
    for column in range(len(names)):
        known = ~np.isnan(labels[:, column])
        z = logits[known, column].astype(np.float64)
        y = labels[known, column].astype(np.float64)
        curve = fit_curve(z, y)
        z, found = curve(z), {}
        for group in GROUPS:
            if group in codes and len(y) and (lines := fit_lines(z, y, codes[group][known])):
                found[group] = lines
                z = z.copy()
                _apply_lines(z, codes[group][known], lines)
        heads.append(HeadCalibration(curve, found))
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
    the data. Returns {before, after, curves, lines, winners}; before and after hold the `head_metrics` of the
    test split, lines the columns whose values got lines, winners the ratio of predicted to observed among the
    shown items that an auction would have put first, where the log has requests and bids.
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
    fitted = fit_calibration(names, valid, held["valid_labels"], _codes(held, "valid"))
    fitted = replace(fitted, amounts=fit_amounts(held.get("valid_amounts"), held.get("valid_amount_labels")))
    fitted.save(run_dir / NAME)
    before = sigmoid(test)
    after = fitted.apply(before, _codes(held, "test"))
    labels = held["test_labels"]
    known = ~np.isnan(labels).all(axis=0)  # the money of a conversion is no probability that could be judged
    judged = tuple(name for name, is_known in zip(names, known, strict=True) if is_known)
    curves = {name: head.curve.kind for name, head in zip(names, fitted.heads, strict=True)}
    return {
        "before": head_metrics(labels[:, known], before[:, known], judged),
        "after": head_metrics(labels[:, known], after[:, known], judged),
        "curves": {name: curves[name] for name in judged},
        "lines": {
            name: list(head.lines) for name, head in zip(names, fitted.heads, strict=True) if head.lines
        },
        "winners": _winners(held, names, before, after),
    }


def _codes(held: Mapping[str, NDArray[Any]], split: str) -> Codes:
    return {group: held[f"{split}_{group}"] for group in GROUPS if f"{split}_{group}" in held}


def _winners(
    held: Mapping[str, NDArray[Any]], names: tuple[str, ...], before: Array, after: Array
) -> dict[str, dict[str, float]]:
    """Calibration of the best bid times p(first head) of every request of the test split, by head.

    The largest of several noisy scores is too large on average, so these are dearer than they look when all
    shown items together look right.
    """
    if "test_request" not in held or "test_bid" not in held:
        return {}
    worth = np.nan_to_num(held["test_bid"]) * after[:, 0]
    order = np.lexsort((-worth, held["test_request"]))
    request = held["test_request"][order]
    sizes = np.diff(np.r_[np.flatnonzero(np.r_[True, request[1:] != request[:-1]]), len(request)])
    first = order[np.r_[True, request[1:] != request[:-1]]][sizes > 1] if len(request) else order
    found = {}
    for column, name in enumerate(names):
        rows = first[~np.isnan(held["test_labels"][first, column])]
        y = held["test_labels"][rows, column]
        if y.sum() > 0:
            ratios = {"before": calibration_ratio(y, before[rows, column])}
            ratios["after"] = calibration_ratio(y, after[rows, column])
            found[name] = {**ratios, "rows": len(rows), "positives": int(y.sum())}
    return found
