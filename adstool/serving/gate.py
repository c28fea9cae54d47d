"""The gate of a quantized model: what it loses on held-out requests against full precision, what it gains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import QuantizationSettings, Settings
from adstool.errors import AdstoolError
from adstool.features.engagements import NOTHING, SequenceNeeds
from adstool.serving.light import LightScorer, Tower
from adstool.serving.scorer import Scorer, TowerScorer, as_served
from adstool.training.metrics import normalized_entropy
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    import duckdb

    from adstool.features.dataset import Dataset

MAX_ROWS = 50_000  # newest held-out rows that are scored
MIN_POSITIVES = 20  # a head with fewer does not decide
MIN_GROUPS = 10  # requests with enough candidates below which users stand in for requests
MIN_GROUP = 4  # candidates in a request
TIMED_RUNS = 60
DEPTH = 100  # k of the retrieval overlap
JUDGED_USERS = 512

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What a quantized model may lose."""

    max_ne_loss: float
    max_calibration_shift: float
    min_topk_overlap: float

    @classmethod
    def of(cls, settings: QuantizationSettings, max_ne_loss: float | None) -> Limits:
        """The limits of the settings, one of them perhaps given on the command line."""
        ne = settings.max_ne_loss if max_ne_loss is None else max_ne_loss
        return cls(ne, settings.max_calibration_shift, settings.min_topk_overlap)


def judge(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    run: Path,
    name: str,
    variant: str,
    limits: Limits,
) -> dict[str, Any]:
    """Compare the run's graphs of form `variant` with its full-precision ones on the test split.

    Returns {accepted, reasons, limits, delta_ne, delta_calibration, topk_overlap, speedup, latency_ms, rows,
    ...}. Raises AdstoolError when the data are no longer those the run was trained on.
    """
    dataset = _held_out(ws, settings, con, run)
    split = dataset.splits["test"]
    rows = np.arange(max(split.start, split.stop - MAX_ROWS), split.stop)
    if name == "engagement":
        scorers = Scorer(run, quantized=False), Scorer(run, variant=variant)
        measured = _judge_probabilities(
            dataset, rows, settings, [s.predict for s in scorers], scorers[0].outputs, scorers[0].needs
        )
        served = [s.raw for s in scorers]
        few = settings.funnel.lightweight
        sizes = {"served": as_served(_repeat(dataset.batch(rows[:few], scorers[0].needs), few))}
        measured |= _timed({"served": (served[0], served[1])}, sizes)
    else:
        towers: tuple[Tower, Tower]
        if name == "lightweight":
            light = LightScorer(run, quantized=False), LightScorer(run, variant=variant)
            predict = [scorer.predict for scorer in light]
            measured = _judge_probabilities(dataset, rows, settings, predict, light[0].outputs)
            towers = light
        else:
            retrieval = TowerScorer(run, quantized=False), TowerScorer(run, variant=variant)
            measured = {
                "delta_ne": None,
                "delta_calibration": None,
                **_judge_retrieval(dataset, rows, retrieval),
            }
            towers = retrieval
        items = _repeat(dataset.batch(rows[: settings.funnel.lightweight]), settings.funnel.lightweight)
        measured |= _timed(
            {"user": (towers[0].user, towers[1].user), "item": (towers[0].item, towers[1].item)},
            {"user": {k: v[:1] for k, v in items.items()}, "item": items},
        )
    reasons = _broken(measured, limits, judged_ne=name != "retrieval")
    return {
        "accepted": not reasons,
        "reasons": reasons,
        "limits": vars(limits),
        "rows": len(rows),
        **measured,
    }


def _held_out(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run: Path) -> Dataset:
    from adstool.training.data import load_training_data

    dataset = load_training_data(ws, settings, con)
    trained_on = read_json(run / "run.json").get("data")
    if trained_on != dataset.fingerprint:
        raise AdstoolError(
            f"The data or the features have changed since {run.parent.name} {run.name} was trained, so there "
            "are no held-out rows to judge it on.",
            f"Train it again: adstool train {run.parent.name}",
        )
    return dataset


def _judge_probabilities(
    dataset: Dataset,
    rows: np.ndarray,
    settings: Settings,
    predict: Sequence[Callable[[Inputs], np.ndarray]],
    names: tuple[str, ...],
    needs: SequenceNeeds = NOTHING,
) -> dict[str, Any]:
    """ΔNE (relative), Δcalibration (of the predicted sums) and the overlap of the better half by request."""
    scored: list[list[np.ndarray]] = [[], []]
    for part in np.array_split(rows, max(len(rows) // 4096, 1)):
        inputs = dataset.batch(part, needs)
        for which, call in enumerate(predict):
            scored[which].append(call(inputs))
    full, small = (np.concatenate(parts) for parts in scored)
    labels = np.asarray(dataset.labels[rows])
    heads: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(names):
        known = ~np.isnan(labels[:, column])
        happened = (labels[known, column] > 0).astype(np.float64)
        ne = [normalized_entropy(happened, p[known, column]) for p in (full, small)]
        sums = [float(p[known, column].sum()) for p in (full, small)]
        heads[name] = {
            "positives": int(happened.sum()),
            "ne": ne[0],
            "ne_int8": ne[1],
            "delta_ne": ne[1] / ne[0] - 1.0 if ne[0] > 0 else float("nan"),
            "delta_calibration": sums[1] / sums[0] - 1.0 if sums[0] > 0 else float("nan"),
        }
    judged = [h for h in heads.values() if h["positives"] >= MIN_POSITIVES]
    judged = judged or [h for h in heads.values() if h["positives"] > 0]
    weights = {action.name: action.weight for action in settings.actions}
    weight = np.array([weights.get(name, 0.0) for name in names])
    groups = candidate_groups(np.asarray(dataset.request[rows]), np.asarray(dataset.user[rows]))
    return {
        # The worst head decides.
        "delta_ne": max((h["delta_ne"] for h in judged), default=None),
        "delta_calibration": max((abs(h["delta_calibration"]) for h in judged), default=None),
        "topk_overlap": top_half_overlap(full @ weight, small @ weight, groups),
        "heads": heads,
    }


def candidate_groups(request: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Which rows competed with each other: those of a request, or of a user when requests are too small."""
    _, sizes = np.unique(request, return_counts=True)
    return request if (sizes >= MIN_GROUP).sum() >= MIN_GROUPS else user


def top_half_overlap(full: np.ndarray, small: np.ndarray, groups: np.ndarray) -> float:
    """The share of a group's better half by `full` that is in its better half by `small`, mean over groups.

    Groups of fewer than 4 rows are left out; 1 when none is left.
    """
    number, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    half = sizes // 2
    starts = np.cumsum(sizes) - sizes

    def top(score: np.ndarray) -> np.ndarray:
        order = np.lexsort((-score, inverse))
        rank = np.empty(len(score), dtype=np.int64)
        rank[order] = np.arange(len(score)) - starts[inverse[order]]
        return np.asarray(rank < half[inverse])

    both = np.bincount(inverse, weights=top(full) & top(small), minlength=len(number))
    counted = sizes >= MIN_GROUP
    return float((both[counted] / half[counted]).mean()) if counted.any() else 1.0


def _judge_retrieval(
    dataset: Dataset, rows: np.ndarray, towers: tuple[TowerScorer, TowerScorer]
) -> dict[str, Any]:
    """How much of the items nearest to a user in full precision is nearest after quantization too."""
    _, first = np.unique(np.asarray(dataset.item_row[rows]), return_index=True)
    asked = dataset.batch(rows[np.linspace(0, len(rows) - 1, min(len(rows), JUDGED_USERS)).astype(np.int64)])
    items = dataset.batch(rows[first])
    depth = min(DEPTH, max(len(first) // 4, 1))
    found = []
    for tower in towers:
        scores = tower.user(asked)[:, 0] @ tower.item(items)[:, 0].T
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        mask = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(mask, top, True, axis=1)
        found.append(mask)
    overlap = float((found[0] & found[1]).sum() / found[0].sum())
    return {"topk_overlap": overlap, "topk": depth, "items": len(first)}


def _repeat(inputs: Inputs, rows: int) -> dict[str, np.ndarray]:
    return {name: np.resize(value, (rows, *value.shape[1:])) for name, value in inputs.items()}


def _timed(
    runs: Mapping[str, tuple[Callable[[Inputs], Any], Callable[[Inputs], Any]]], inputs: Mapping[str, Inputs]
) -> dict[str, Any]:
    """Median and 99th percentile of full precision and int8, run in turns so that noise hits both alike."""
    latency: dict[str, Any] = {}
    totals = [0.0, 0.0]
    for part, pair in runs.items():
        seconds: list[list[float]] = [[], []]
        for attempt in range(TIMED_RUNS + 5):
            for which, call in enumerate(pair):
                started = time.perf_counter()
                call(inputs[part])
                if attempt >= 5:
                    seconds[which].append(time.perf_counter() - started)
        latency[part] = {
            label: {"p50": float(np.percentile(s, 50)) * 1e3, "p99": float(np.percentile(s, 99)) * 1e3}
            for label, s in zip(("fp32", "int8"), seconds, strict=True)
        }
        totals = [total + float(np.median(s)) for total, s in zip(totals, seconds, strict=True)]
    return {"speedup": totals[0] / totals[1], "latency_ms": latency}


def _broken(measured: Mapping[str, Any], limits: Limits, judged_ne: bool) -> list[str]:
    """The limits that do not hold, in words."""
    reasons = []
    ne, shift, overlap = (measured[key] for key in ("delta_ne", "delta_calibration", "topk_overlap"))
    if judged_ne and ne is None:
        reasons.append("no head has a held-out positive to judge it on")
    elif judged_ne:
        if not ne <= limits.max_ne_loss:
            reasons.append(f"NE rises by {ne:.3%}, limit {limits.max_ne_loss:.3%}")
        if not shift <= limits.max_calibration_shift:
            reasons.append(f"calibration moves by {shift:.2%}, limit {limits.max_calibration_shift:.2%}")
    if not overlap >= limits.min_topk_overlap:
        reasons.append(f"only {overlap:.1%} of the best stay the best, limit {limits.min_topk_overlap:.1%}")
    return reasons
