"""A log of ads with clicks and conversions that are reported late, of which the truth is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from training.synthetic import make_examples

from adstool.features.conversions import CREDITS, NEVER, ConversionLabels
from adstool.training.delay import DAY
from adstool.workspace import write_json

KINDS = ("checkout", "lead")
DAYS = 40


def write_labels(
    directory: Path, click_ts: np.ndarray, credits: dict[str, np.ndarray], end_ts: int, horizon: int
) -> ConversionLabels:
    """Labels from columns of CREDITS, as build_conversions would leave them."""
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "click_ts.npy", click_ts)
    order = np.argsort(credits["row"], kind="stable")
    for name, (_, dtype) in CREDITS.items():
        np.save(directory / f"credits_{name}.npy", credits[name][order].astype(dtype))
    about = {"kinds": list(KINDS), "end_ts": int(end_ts), "horizon": horizon, "counted": len(order)}
    write_json(directory / "about.json", about)
    return ConversionLabels(directory)


def make_log(directory: Path, rows: int = 4000, seed: int = 0) -> tuple[Any, ConversionLabels]:
    """A data set of `rows` impressions over 40 days whose first head is the click, and its labels.

    30 % of clicks buy (10 money on average, 2 days later on average), 10 % of clicks are leads at once.
    """
    dataset = make_examples(rows, seed)
    rng = np.random.default_rng(seed + 1)
    ts = np.sort(rng.integers(0, DAYS * DAY, rows))
    clicked = dataset.labels[:, 0] > 0
    click_ts = np.where(clicked, ts + 30_000_000, NEVER)
    buys = np.flatnonzero(clicked & (rng.random(rows) < 0.3))
    leads = np.flatnonzero(clicked & (rng.random(rows) < 0.1))
    late = click_ts[buys] + (rng.exponential(2.0, len(buys)) * DAY).astype(np.int64)
    count = len(buys) + len(leads)
    columns = {
        "row": np.concatenate([buys, leads]),
        "kind": np.repeat([0, 1], [len(buys), len(leads)]),
        "via": np.ones(count),
        "credit": np.ones(count),
        "value": np.concatenate([rng.gamma(2.0, 5.0, len(buys)), np.zeros(len(leads))]),
        "reported_ts": np.concatenate([late, click_ts[leads] + 1]),
        "conversion": np.arange(count),
    }
    known = columns["reported_ts"] <= DAYS * DAY
    columns = {name: column[known] for name, column in columns.items()}
    labels = write_labels(directory, click_ts, columns, DAYS * DAY, 8 * DAY)
    fields = {**vars(dataset), "ts": ts, "request": np.arange(rows) // 5}
    return SimpleNamespace(**fields, spec=dataset.spec), labels
