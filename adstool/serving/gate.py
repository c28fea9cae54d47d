"""The gate of quantized models: what a form loses on held-out rows against full precision, what it gains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adstool.config import QuantizationSettings
from adstool.serving.trials import RetrievalTrial, Said, Trial
from adstool.training.metrics import normalized_entropy

MIN_POSITIVES = 20  # a head with fewer does not decide
MIN_GROUPS = 10  # requests with enough candidates below which users stand in for requests
MIN_GROUP = 4  # candidates in a request
ROUNDS, TIMED_RUNS = 3, 40  # the best of so many rounds counts, so that a busy moment does not
DEPTH = 100  # k of the retrieval overlap
JUDGED_USERS = 512
CHUNK = 4096  # rows scored at once


@dataclass(frozen=True)
class Limits:
    """What a quantized model may lose, and must gain."""

    max_ne_loss: float
    max_calibration_shift: float
    min_topk_overlap: float
    max_size_ratio: float
    max_p50_ratio: float
    max_p99_ratio: float

    @classmethod
    def of(cls, settings: QuantizationSettings, max_ne_loss: float | None) -> Limits:
        """The limits of the settings, one of them perhaps given on the command line."""
        given = vars(settings) if max_ne_loss is None else {**vars(settings), "max_ne_loss": max_ne_loss}
        return cls(**given)

    def broken(self, measured: Mapping[str, Any], judged_ne: bool) -> list[str]:
        """The limits that do not hold, in words."""
        reasons = []
        if judged_ne and measured["delta_ne"] is None:
            reasons.append("no head has a held-out positive to judge it on")
        elif judged_ne:
            ne, shift = measured["delta_ne"], measured["delta_calibration"]
            if not ne <= self.max_ne_loss:
                reasons.append(f"NE rises by {ne:.3%}, limit {self.max_ne_loss:.3%}")
            if not shift <= self.max_calibration_shift:
                reasons.append(f"calibration moves by {shift:.2%}, limit {self.max_calibration_shift:.2%}")
        overlap = measured["topk_overlap"]
        if not overlap >= self.min_topk_overlap:
            reasons.append(f"only {overlap:.1%} of the best stay the best, limit {self.min_topk_overlap:.1%}")
        if not measured["size_ratio"] <= self.max_size_ratio:
            reasons.append(f"{measured['size_ratio']:.0%} of the size, limit {self.max_size_ratio:.0%}")
        for key, limit in (("p50_ratio", self.max_p50_ratio), ("p99_ratio", self.max_p99_ratio)):
            if not measured[key] <= limit:
                reasons.append(f"{key[:3]} is {measured[key]:.2f} of that before, limit {limit:.2f}")
        return reasons


def judge(trial: Trial, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By variant, full precision "" among them: what it costs and gains against full precision.

    {ne, delta_ne, delta_calibration, topk_overlap, heads, size_ratio, bytes, speedup, p50_ratio, p99_ratio,
    latency_ms}; ratios are of the whole model, latency_ms by part.
    """
    scorers = {variant: trial.scorer(variant) for variant in ("", *variants)}
    found = _judged_nearest(trial, scorers) if isinstance(trial, RetrievalTrial) else _judged(trial, scorers)
    latency = _timed({variant: trial.calls(scorer) for variant, scorer in scorers.items()})
    sizes = {variant: trial.size(variant) for variant in scorers}
    full = {key: sum(part[key] for part in latency[""].values()) for key in ("p50", "p99")}
    for variant, measured in found.items():
        own = {key: sum(part[key] for part in latency[variant].values()) for key in full}
        measured |= {
            "bytes": sizes[variant],
            "size_ratio": sizes[variant] / sizes[""],
            "speedup": full["p50"] / own["p50"],
            "p50_ratio": own["p50"] / full["p50"],
            "p99_ratio": own["p99"] / full["p99"],
            "latency_ms": latency[variant],
        }
    return found


def _judged(trial: Trial, scorers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[Said]] = {variant: [] for variant in scorers}
    for rows in np.array_split(trial.rows, max(len(trial.rows) // CHUNK, 1)):
        inputs = trial.inputs(rows)
        for variant, scorer in scorers.items():
            parts[variant].append(trial.say(scorer, inputs, rows))
    said = {
        variant: Said(*(np.concatenate([getattr(p, name) for p in some]) for name in vars(some[0])))
        for variant, some in parts.items()
    }
    dataset, full = trial.dataset, said[""]
    groups = candidate_groups(np.asarray(dataset.request[trial.rows]), np.asarray(dataset.user[trial.rows]))
    return {variant: _compared(trial, full, small, groups) for variant, small in said.items()}


def _compared(trial: Trial, full: Said, small: Said, groups: np.ndarray) -> dict[str, Any]:
    """ΔNE (relative), Δcalibration (of the predicted sums) and the overlap of the better half by request."""
    heads: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(trial.heads):
        known = ~np.isnan(trial.labels[:, column])
        labels = trial.labels[known, column].astype(np.float64)
        before, after = (said.probability[known, column] for said in (full, small))
        ne = [normalized_entropy(labels, p) for p in (before, after)]
        heads[name] = {
            "positives": int(labels.sum()),
            "ne": ne[0],
            "ne_quantized": ne[1],
            "delta_ne": ne[1] / ne[0] - 1.0 if ne[0] > 0 else float("nan"),
            "delta_calibration": _shift(before, after),
        }
    judged = [h for h in heads.values() if h["positives"] >= MIN_POSITIVES]
    judged = judged or [h for h in heads.values() if h["positives"] > 0]
    amounts = {
        name: _shift(full.amounts[:, column], small.amounts[:, column])
        for column, name in enumerate(trial.amounts)
    }
    shifts = [abs(h["delta_calibration"]) for h in judged] + [abs(shift) for shift in amounts.values()]
    return {
        # The worst head decides.
        "delta_ne": max((h["delta_ne"] for h in judged), default=None),
        "delta_calibration": max(shifts) if judged else None,
        "topk_overlap": top_half_overlap(full.worth, small.worth, groups),
        "heads": heads,
        "amounts": amounts,
    }


def _shift(before: np.ndarray, after: np.ndarray) -> float:
    total = float(before.sum())
    return float(after.sum()) / total - 1.0 if total > 0 else float("nan")


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


def _judged_nearest(trial: Trial, scorers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How much of the items nearest to a user in full precision is nearest after quantization too."""
    rows = trial.rows
    _, first = np.unique(np.asarray(trial.dataset.item_row[rows]), return_index=True)
    some = np.linspace(0, len(rows) - 1, min(len(rows), JUDGED_USERS)).astype(np.int64)
    asked, items = trial.inputs(rows[some]), trial.inputs(rows[first])
    depth = min(DEPTH, max(len(first) // 4, 1))
    nearest = {}
    for variant, tower in scorers.items():
        scores = np.einsum("uhd,ihd->uhi", tower.user(asked), tower.item(items), optimize=True)
        top = np.argpartition(-scores, depth - 1, axis=2)[:, :, :depth]
        nearest[variant] = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(nearest[variant], top, True, axis=2)
    facts: dict[str, Any] = {"topk": depth, "items": len(first), "heads": {}}
    facts |= {"delta_ne": None, "delta_calibration": None}
    return {
        variant: {**facts, "topk_overlap": float((nearest[""] & mask).sum() / nearest[""].sum())}
        for variant, mask in nearest.items()
    }


def _timed(calls: Mapping[str, Mapping[str, Callable[[], Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """By variant and part, {p50, p99} in ms of the thread's own time, all run in turns.

    One thread computes; its own time leaves out what others do on a shared machine, which else decides a p99.
    """
    best: dict[str, dict[str, dict[str, float]]] = {variant: {} for variant in calls}
    for part in next(iter(calls.values())):
        for _ in range(ROUNDS):
            seconds: dict[str, list[float]] = {variant: [] for variant in calls}
            for attempt in range(TIMED_RUNS + 3):
                for variant, parts in calls.items():
                    started = time.thread_time()
                    parts[part]()
                    if attempt >= 3:
                        seconds[variant].append(time.thread_time() - started)
            for variant, measured in seconds.items():
                kept = best[variant].setdefault(part, {"p50": float("inf"), "p99": float("inf")})
                for key, percentile in (("p50", 50), ("p99", 99)):
                    kept[key] = min(kept[key], float(np.percentile(measured, percentile)) * 1e3)
    return best
