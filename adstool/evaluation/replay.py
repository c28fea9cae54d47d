"""Requests sent through the funnel as it serves: what every stage leaves, and how long it takes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np

from adstool.evaluation.context import Evaluation
from adstool.evaluation.retrieval import quantiles
from adstool.evaluation.visits import make_ranker, sample_requests
from adstool.funnel.slate import Ranked

WARM_UP = 3  # requests before the clock counts: the first ones fill caches


def replay_requests(evaluation: Evaluation) -> dict[str, Any]:
    """Stage sizes, latencies (ms) and the share of each source, over sampled requests. Nothing is logged.

    Requests are answered with the index in use and at its own moment, as `rank` does.
    """
    ranker = make_ranker(evaluation)
    requests = [dataclasses.replace(request, ts=None) for request in sample_requests(evaluation)]
    for request in requests[:WARM_UP]:
        ranker.stages(request)
    ranked = [ranker.stages(request) for request in requests]
    times: dict[str, list[float]] = defaultdict(list)
    for one in ranked:
        for name, milliseconds in one.latency_ms.items():
            times[name].append(milliseconds)
    return {
        "requests": len(ranked),
        "stages": _stages(ranker.items, ranked),
        "latency_ms": {name: quantiles(values) for name, values in times.items()},
        "sources": _sources(ranked),
    }


def _stages(items: int, ranked: list[Ranked]) -> list[dict[str, Any]]:
    """How many candidates each stage leaves, the mean over requests."""
    if not ranked:
        return []
    sizes = {
        "catalogue": (float(items), "can be ranked"),
        "retrieval": (_mean([len(one.candidates) for one in ranked]), "found by the sources"),
        "lightweight": (_mean([len(one.kept) for one in ranked]), "kept by the lightweight ranker"),
        "slate": (_mean([len(one.chosen) for one in ranked]), "won the auction"),
    }
    return [{"stage": name, "candidates": size, "note": note} for name, (size, note) in sizes.items()]


def _mean(sizes: list[int]) -> float:
    return float(np.mean(sizes))


def _sources(ranked: list[Ranked]) -> dict[str, dict[str, float]]:
    """The share of candidates and of slates that each source found first."""
    candidates: dict[str, int] = defaultdict(int)
    slates: dict[str, int] = defaultdict(int)
    for one in ranked:
        names, source = one.candidates.names, one.candidates.source
        for counts, places in ((candidates, source), (slates, source[one.kept[one.chosen]])):
            for number, count in enumerate(np.bincount(places, minlength=len(names))):
                counts[names[number]] += int(count)
    total, shown = max(sum(candidates.values()), 1), max(sum(slates.values()), 1)
    return {
        name: {"candidates": candidates[name] / total, "slate": slates[name] / shown} for name in candidates
    }
