"""`index --tune`: which way of searching is the fastest that finds enough, measured on the data at hand.

Every way answers the same real queries; recall@100 is against the exact product, time is the median of whole
searches as the funnel makes them. Those that find enough then answer a few queries each in turn, so that a
drift of the machine's speed meets all alike, and the quickest is chosen. The choice and its table go into the
index, and hold until the data's size has changed by more than a factor of two.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adstool.funnel.ann import (
    ROUGH,
    AnnChoice,
    ExactIndex,
    VectorIndex,
    build_ann,
    open_ann,
    store_vectors,
)
from adstool.progress import log
from adstool.serving.rows import Rows

RECALL_AT = 100
QUERIES = 48
HOLDS_WITHIN = 2.0  # a choice stands while the number of vectors is within this factor of that measured
NOTHING = 0.2  # ms of an exact product up to which an index is not looked for
WORTH = 0.9  # an index must take less than this share of the exact product's time
BLOCK = 8  # queries in a row of each finalist, of which the first
WARM = 2  # are not timed: another index has just filled the caches
HOPELESS = 1.5  # times the time of the best so far, from which more probes are not tried
BUDGET_SECONDS = 120.0  # of the sweep; what was not begun by then is left out
MAX_HNSW = 50_000  # vectors; building the graph takes 80 s at 200,000, and IVF answers faster there
PER_PARTITION = 39  # vectors that clustering wants for each partition at least
EQUAL = 1e-5  # products this close are equal: of two items alike, either may be found


@dataclass(frozen=True)
class Trial:
    """One way of searching, measured."""

    choice: AnnChoice
    recall: float  # recall@100, mean of the queries
    p50_ms: float
    p90_ms: float
    build_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The trial as a row of the table."""
        measured = {"recall": self.recall, "p50_ms": self.p50_ms, "p90_ms": self.p90_ms}
        return {**asdict(self.choice), **measured, "build_seconds": self.build_seconds}


@dataclass(frozen=True)
class Tuning:
    """What was measured of one source's vectors, and what was chosen."""

    rows: int
    dim: int
    depth: int  # items asked for in a search
    queries: int
    min_recall: float
    chosen: AnnChoice
    reason: str
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """The tuning as index.json keeps it."""
        document = {name: value for name, value in vars(self).items() if name not in ("chosen", "trials")}
        table = [{**trial.to_json(), "chosen": trial.choice == self.chosen} for trial in self.trials]
        return {**document, "chosen": asdict(self.chosen), "table": table}


def chosen_before(tuning: Mapping[str, Any] | None, rows: int, dim: int) -> AnnChoice | None:
    """The choice of an earlier tuning (its JSON), where it still holds for so many vectors."""
    if not tuning or tuning["dim"] != dim:
        return None
    if not 1 / HOLDS_WITHIN <= rows / max(tuning["rows"], 1) <= HOLDS_WITHIN:
        return None
    return AnnChoice(**tuning["chosen"])


def tune(vectors: Rows, queries: np.ndarray, depth: int, folder: Path, min_recall: float) -> Tuning:
    """Measure the ways of searching `vectors` [n, d] for the `depth` best of each query [m, d].

    `folder` is scratch and is deleted at the end. The fastest way with recall@100 of `min_recall` is chosen;
    the exact product, where no index takes less than nine tenths of its time.
    """
    n, dim = vectors.shape
    depth = min(depth, n)
    queries = queries[:QUERIES]
    truth = [vectors @ query for query in queries]
    exact = _measure(AnnChoice(), ExactIndex(vectors), truth, queries, depth, 0.0)
    trials = [exact]
    try:
        if exact.p50_ms > NOTHING:
            # LanceDB takes milliseconds to answer at all, whatever there is to search.
            lance = exact.p50_ms > _least_time(vectors, queries, depth, folder)
            tried = [layout for layout in layouts(n) if lance or layout[0] == "ivf"]
            trials += _sweep(tried, vectors, truth, queries, depth, folder, min_recall)
            trials = _final(trials, vectors, queries, depth, folder, min_recall)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    exact = trials[0]
    enough = [trial for trial in trials if trial.recall >= min_recall]
    best = min(enough, key=lambda trial: trial.p50_ms)
    if best.p50_ms >= WORTH * exact.p50_ms:
        best = exact
    reason = _reason(best, exact, len(trials), n)
    return Tuning(n, dim, depth, len(queries), min_recall, best.choice, reason, tuple(trials))


def _reason(best: Trial, exact: Trial, tried: int, rows: int) -> str:
    if best is not exact:
        return (
            f"{exact.p50_ms / best.p50_ms:.1f} times as fast as the exact product,"
            f" at recall@{RECALL_AT} {best.recall:.3f}"
        )
    if tried == 1:
        return f"at {rows:,} items the exact product takes {exact.p50_ms:.2f} ms: there is nothing to gain"
    return f"no index that finds enough takes less than {WORTH:.0%} of the exact product's time"


def _least_time(vectors: Rows, queries: np.ndarray, depth: int, folder: Path) -> float:
    """What LanceDB takes to return so many rows where there is nothing to search, in ms."""
    few, choice = np.asarray(vectors[:depth]), AnnChoice("ivf_flat")
    store_vectors(few, folder, "least")
    index = open_ann(choice, few, folder, "least")
    return _measure(choice, index, [few @ query for query in queries], queries, depth, 0.0).p50_ms


def _sweep(
    tried: list[tuple[str, int]],
    vectors: Rows,
    truth: list[np.ndarray],
    queries: np.ndarray,
    depth: int,
    folder: Path,
    min_recall: float,
) -> Iterator[Trial]:
    """Trials of these kinds and numbers of partitions: for each, probes go up until enough is found."""
    started = time.perf_counter()
    best = float("inf")
    for kind, partitions in tried:
        begun = time.perf_counter()
        if begun - started > BUDGET_SECONDS:
            log.info("tuning: %s with %d partitions is not tried, time is up", kind, partitions)
            continue
        name = _table(AnnChoice(kind, partitions))
        build_ann(vectors, folder, name, AnnChoice(kind, partitions))
        built = time.perf_counter() - begun
        log.info("tuning: %s with %d partitions, built in %.1f s", kind, partitions, built)
        for choice in _probings(kind, partitions):
            index = open_ann(choice, vectors, folder, name)
            trial = _measure(choice, index, truth, queries, depth, built)
            yield trial
            if trial.recall >= min_recall:
                best = min(best, trial.p50_ms)
                break  # more probes only take longer
            if trial.p50_ms > HOPELESS * best:
                break


def _table(choice: AnnChoice) -> str:
    return f"{choice.kind}_{choice.partitions}"


def _probings(kind: str, partitions: int) -> Iterator[AnnChoice]:
    """Ways of asking one index, each finding more than the one before."""
    for refine in (1.0, 2.0) if kind in ROUGH else (1.0,):
        counts = probe_counts(kind, partitions)
        for probes in counts if refine == 1.0 else counts[-1:]:
            yield AnnChoice(kind, partitions, probes, refine)


def _final(
    trials: list[Trial],
    vectors: Rows,
    queries: np.ndarray,
    depth: int,
    folder: Path,
    min_recall: float,
) -> list[Trial]:
    """The trials, with the times of those that found enough measured again, a few queries each in turn."""
    able = [place for place, trial in enumerate(trials) if trial.recall >= min_recall]
    indexes = {
        place: open_ann(trials[place].choice, vectors, folder, _table(trials[place].choice)) for place in able
    }
    allowed = np.ones(len(vectors), dtype=bool)
    times: dict[int, list[float]] = {place: [] for place in able}
    for start in range(0, 2 * len(queries), BLOCK - WARM):
        block = queries[np.arange(start, start + BLOCK) % len(queries)]
        for place, index in indexes.items():
            for turn, query in enumerate(block):
                begun = time.perf_counter()
                index.search(query, depth, allowed)
                if turn >= WARM:
                    times[place].append(1e3 * (time.perf_counter() - begun))
    again = list(trials)
    for place, taken in times.items():
        p50, p90 = np.quantile(taken, [0.5, 0.9])
        again[place] = replace(trials[place], p50_ms=float(p50), p90_ms=float(p90))
    return again


def layouts(rows: int) -> list[tuple[str, int]]:
    """Kinds and numbers of partitions that are tried for so many vectors, the likeliest first."""
    root = rows**0.5
    middle, fewer, more = (max(1, min(int(root * part), rows // PER_PARTITION)) for part in (1.0, 0.5, 2.0))
    kinds = ("ivf", "ivf_flat", "ivf_sq")
    tried = [(kind, count) for count in (middle, fewer, more) for kind in kinds]
    tried.append(("ivf_pq", middle))
    return list(dict.fromkeys(tried)) + ([("hnsw_sq", 1)] if rows <= MAX_HNSW else [])


def probe_counts(kind: str, partitions: int) -> list[int]:
    """Numbers of partitions to look into, rising by half from a fiftieth of them, or from fewer where asking
    costs nothing."""
    least = {"hnsw_sq": 1, "ivf": max(2, partitions // 500)}.get(kind, max(2, partitions // 50))
    counts = [min(partitions, least)]
    while counts[-1] < partitions:
        counts.append(min(partitions, max(counts[-1] + 1, int(counts[-1] * 1.5))))
    return counts


def _measure(
    choice: AnnChoice,
    index: VectorIndex,
    truth: list[np.ndarray],
    queries: np.ndarray,
    depth: int,
    build_seconds: float,
) -> Trial:
    allowed = np.ones(len(truth[0]), dtype=bool)
    for query in queries[:3]:  # caches filled
        index.search(query, depth, allowed)
    recalls, times = [], []
    for query, products in zip(queries, truth, strict=True):
        begun = time.perf_counter()
        positions, _ = index.search(query, depth, allowed)
        times.append(1e3 * (time.perf_counter() - begun))
        recalls.append(_recall(positions, products, depth))
    p50, p90 = np.quantile(times, [0.5, 0.9])
    return Trial(choice, float(np.mean(recalls)), float(p50), float(p90), round(build_seconds, 2))


def _recall(positions: np.ndarray, products: np.ndarray, depth: int) -> float:
    """The share of the 100 best (fewer, where fewer are asked for) that is among as many first found."""
    k = min(RECALL_AT, depth)
    last = np.partition(products, len(products) - k)[len(products) - k]
    return float((products[positions[:k]] >= last - EQUAL).sum() / k)


def build_chosen(
    vectors: Rows,
    folder: Path,
    name: str,
    choice: AnnChoice | None,
    queries: np.ndarray,
    min_recall: float,
) -> AnnChoice:
    """Build the index chosen, or the usual one where nothing was measured that holds; returns which.

    The usual one looks into as few clusters as find enough of the 100 nearest to these queries [m, d].
    """
    if choice is not None:
        build_ann(vectors, folder, name, choice)
        return choice
    choice = AnnChoice.usual(len(vectors))
    build_ann(vectors, folder, name, choice)
    return fewest_probes(choice, vectors, folder, name, queries, min_recall)


def fewest_probes(
    choice: AnnChoice, vectors: Rows, folder: Path, name: str, queries: np.ndarray, min_recall: float
) -> AnnChoice:
    """The same index with as few clusters looked into as find enough of the 100 nearest to these queries
    [m, d]; as it is where it is exact or nothing is asked."""
    if choice.kind == "exact" or not len(queries):
        return choice
    allowed = np.ones(len(vectors), dtype=bool)
    truth = [vectors @ query for query in queries]
    for probes in probe_counts(choice.kind, choice.partitions):
        fewer = replace(choice, probes=probes)
        index = open_ann(fewer, vectors, folder, name)
        found = [index.search(query, RECALL_AT, allowed)[0] for query in queries]
        recalls = [_recall(one, all_, RECALL_AT) for one, all_ in zip(found, truth, strict=True)]
        if np.mean(recalls) >= min_recall:
            return fewer
    return choice
