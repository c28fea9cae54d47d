"""The conversion stage: how true its rates and its money are, on clicks of which all has been reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import DataError
from adstool.evaluation.bootstrap import Estimate, Resampler, estimate
from adstool.evaluation.context import Absent, Evaluation, NotReady, scored
from adstool.evaluation.engagement import head_figures, plain, reliability
from adstool.evaluation.truth import true_probabilities
from adstool.features.conversions import ConversionLabels, build_conversions
from adstool.training.conversion_data import Windows, data_fingerprint, judged_rows, known_outcome, windows_of
from adstool.training.conversion_metrics import CLICK, Outcome, Predicted, split_outputs
from adstool.training.metrics import auc
from adstool.workspace import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from adstool.features.dataset import Dataset

Array = NDArray[Any]
PRIOR_CLICKS = 20.0  # how many clicks at the base rate an advertiser's own rate is mixed with
TOP = 0.1  # of the clicks, by expected value


def evaluate_conversion(evaluation: Evaluation) -> dict[str, Any]:
    """Rates, calibration and money of the conversion model on matured clicks after its cut-off.

    Beside the model stands the advertiser's own rate, of clicks that had matured at the cut-off, and in a
    synthetic world the order of the true rates. Raises Absent when the log has no conversions, NotReady when
    there is no model of the data as they are.
    """
    dataset = evaluation.dataset
    try:
        labels = build_conversions(evaluation.con, evaluation.ws, evaluation.settings, dataset)
    except DataError as lacking:
        raise Absent(lacking.message, lacking.hint) from None
    run = evaluation.require_run("conversion", "train conversion")
    if read_json(run / "run.json").get("data") != data_fingerprint(dataset, labels):
        raise NotReady(
            f"The conversion model {run.name} was trained on other data or settings than those of now.",
            "Train it again: adstool train conversion, or adstool run.",
        )
    about = read_json(run / "config.json")
    task = about["task"]
    windows = windows_of(dataset, labels, task["test_share"], task["wait_hours"])
    rows = judged_rows(dataset, labels, windows)
    found = predict(run, dataset, rows, np.array(about["value_scales"]))
    known = known_outcome(labels, rows, windows.end, windows.horizon)
    popular = advertiser_rates(dataset, labels, windows)[_advertiser(dataset, rows)]
    true = None
    if evaluation.truth_folder is not None:
        part = true_probabilities(
            evaluation.con, evaluation.truth_folder, dataset, windows.test, ("convert",)
        )
        true = part["convert"][rows - windows.test.start] if "convert" in part else None
    users = np.asarray(dataset.user)[rows]
    return {
        "run_id": run.name,
        "delay": task["delay"],
        "loss": task["loss"],
        "horizon_days": windows.days,
        "cut": np.datetime_as_string(np.datetime64(windows.cut, "us"), unit="s") + "Z",
        "attributed": labels.attributed,
        "counted": labels.counted,
        **judge(evaluation, users, found, known, labels.kinds, popular, true),
    }


def predict(run: Path, dataset: Dataset, rows: Array, scales: Array) -> Predicted:
    """What a run says of the dataset's `rows` at their logged positions, calibrated if it was."""
    from adstool.serving.scorer import Scorer

    scorer = Scorer(run)
    return split_outputs(scored(dataset, scorer, rows, scorer.predict), scales)


def _advertiser(dataset: Dataset, rows: Array | slice) -> Array:
    """The number of the advertiser of each row, the last one for none."""
    return np.asarray(dataset.items.advertisers[0][np.asarray(dataset.item_row)[rows]])


def advertiser_rates(dataset: Dataset, labels: ConversionLabels, windows: Windows) -> Array:
    """The baseline: conversions a click by advertiser and kind, [advertisers + 1, K].

    Of the clicks that had matured at the cut-off, pulled to the rate of all.
    """
    part = windows.train
    old = labels.matured(part, np.asarray(dataset.ts), windows.cut, windows.horizon)
    rows = np.flatnonzero(old) + part.start
    known = known_outcome(labels, rows, windows.cut, windows.horizon)
    of = _advertiser(dataset, rows[known.clicked])
    size = len(dataset.items.advertisers[1]) + 1
    clicks = np.bincount(of % size, minlength=size)[:, None]
    found = [
        np.bincount(of % size, weights=column, minlength=size) for column in known.converted[known.clicked].T
    ]
    base = (known.converted.sum(axis=0) + 0.5) / (known.clicked.sum() + 1.0)
    return np.asarray((np.stack(found, axis=1) + PRIOR_CLICKS * base) / (clicks + PRIOR_CLICKS))


def judge(
    evaluation: Evaluation,
    users: Array,
    found: Predicted,
    known: Outcome,
    kinds: tuple[str, ...],
    popular: Array,
    true: Array | None,
) -> dict[str, Any]:
    """The figures of impressions [n], their users [n], the advertisers' rates [n, K] and true rates [n]."""
    inside = known.clicked.astype(bool)
    everybody, clickers = evaluation.resampler(users), evaluation.resampler(users[inside])
    given = known.converted[inside].astype(np.float64)
    heads: dict[str, Any] = {}
    joint: dict[str, Any] = {}
    for column, kind in enumerate(kinds):
        figures, draws = head_figures(clickers, given[:, column], found.conversion[inside, column])
        figures["popularity"], other = head_figures(clickers, given[:, column], popular[inside, column])
        figures["auc_over_popularity"] = plain(estimate(draws - other))
        heads[kind] = figures
        both = (known.converted[:, column] & inside).astype(np.float64)
        joint[kind], _ = head_figures(everybody, both, found.click * found.conversion[:, column])
    click, _ = head_figures(everybody, inside.astype(np.float64), found.click)
    overall = clickers.ratio(found.conversion[inside].sum(axis=1), given.sum(axis=1))
    money = _money(clickers, found.value[inside], known.value[inside].sum(axis=1))
    return {
        "rows": len(users),
        "users": len(np.unique(users)),
        "clicks": int(inside.sum()),
        "conversions": int(given.sum()),
        "calibration": overall.value,
        "intervals": {"calibration": overall.interval},
        CLICK: click,
        "heads": heads,
        "joint": joint,
        "any": _any(clickers, found, popular, given, inside, true),
        "value": money,
    }


def _any(
    users: Resampler, found: Predicted, popular: Array, given: Array, inside: Array, true: Array | None
) -> dict[str, Any]:
    """A conversion of any kind, as if kinds came independently of each other; with the order of the truth."""
    happened = np.asarray(given.any(axis=1)).astype(np.float64)
    predicted = np.asarray(1 - np.prod(1 - found.conversion[inside], axis=1))
    figures, draws = head_figures(users, happened, predicted)
    figures["reliability"] = reliability(happened, predicted)
    rates = np.asarray(1 - np.prod(1 - popular[inside], axis=1))
    figures["popularity"], other = head_figures(users, happened, rates)
    figures["auc_over_popularity"] = plain(estimate(draws - other))
    if true is not None:
        certain = np.isfinite(true[inside])
        found_auc = auc(happened[certain], true[inside][certain])
        figures["truth"] = {"auc": found_auc, "rows": int(certain.sum())}
    return figures


def _money(users: Resampler, expected: Array, observed: Array) -> dict[str, Any]:
    """Expected against observed money of clicks, and the share of it in the tenth that was expected to bring
    most."""
    ratio: Estimate = users.ratio(expected, observed)
    first = np.zeros(len(expected))
    first[np.argsort(-expected, kind="stable")[: int(len(expected) * TOP)]] = 1.0
    top = users.ratio(observed * first, observed)
    return {
        "expected": float(expected.sum()),
        "observed": float(observed.sum()),
        "calibration": ratio.value,
        "top_tenth": top.value,
        "intervals": {"calibration": ratio.interval, "top_tenth": top.interval},
    }
