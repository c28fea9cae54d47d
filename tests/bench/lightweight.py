"""Lightweight rankers on one workspace: how well each orders, what the funnel loses by it, and its time.

    adstool sample world --users 3000 --ads 6000 --pins 600 --days 14 --seed 7
    adstool init big && cd big && adstool ingest ../world && adstool run
    python tests/bench/lightweight.py big [--seeds 3] [--variants two-tower cold+distilled]

Run by hand. Every variant is trained anew on the workspace's log, and judged as by `evaluate lightweight`:
sampled requests of the test split, known as of its start, their candidates scored by the engagement ranker in
use. Prints a row a variant, mean and standard deviation over seeds: test AUC of clicks, recall of the heavy
ranker's ten best in the kept set, Kendall's tau, utility regret with its interval over users (mean over
seeds), predicted over observed clicks, the share by which regret is below that of the first variant with its
interval; then milliseconds for a request's candidates on one thread, the variants taking turns: the user's
row, cross features, pairs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adstool.config import Settings, load_settings
from adstool.evaluation.context import Evaluation
from adstool.evaluation.lightweight import SLATE, judge, kept_of
from adstool.evaluation.metrics import cut as judge_cut
from adstool.evaluation.visits import cut, make_ranker, sample_requests
from adstool.features.state import RequestContext, ServingState
from adstool.funnel.index import CHUNK
from adstool.funnel.teaching import Teacher
from adstool.serving.export import export_run
from adstool.serving.light import LightScorer
from adstool.training.lightweight import train_lightweight
from adstool.training.options import TrainOptions
from adstool.training.value import Value
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

# Name -> (preset, --set overrides).
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "two-tower": ("small", {}),
    "two-tower distilled": ("small", {"distill": "1"}),
    "inttower": ("inttower", {}),
    "inttower distilled": ("inttower", {"distill": "1"}),
    "cold": ("cold", {}),
    "cold distilled": ("cold", {"distill": "1"}),
    "cold aligned": ("cold", {"distill": "1", "align": "true"}),
}
TIMED = 60  # requests


@dataclass(frozen=True)
class Asked:
    """One request: its candidates (rows of items), their bids, and the heavy ranker's score of each."""

    ctx: RequestContext
    rows: np.ndarray
    bids: np.ndarray | None
    heavy: np.ndarray


@dataclass(frozen=True)
class Figures:
    """What one training of a variant came to."""

    auc: float  # of clicks in the test split
    calibration: float  # predicted over observed clicks there
    stage: dict[str, Any]
    kept: np.ndarray  # utility kept and of the best set, a row a request


class Bench:
    """A workspace, with the requests that variants are judged by."""

    def __init__(
        self, ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, requests: int
    ) -> None:
        self.ws, self.settings, self.con = ws, settings, con
        self.evaluation = Evaluation(ws, settings, con)
        ranker = make_ranker(self.evaluation, lightweight=settings.funnel.retrieve)
        self.asked = []
        at = cut(self.evaluation)
        for request in sample_requests(self.evaluation)[:requests]:
            ranked = ranker.stages(request, at)
            rows = ranked.rows(ranker.index)[ranked.kept]
            self.asked.append(Asked(ranked.ctx, rows, ranked.bids, ranked.score))
        self.state: ServingState = ranker.index_at(at).state
        first, items = ranker.index.corpus.first_row, len(ranker.index.corpus)
        self.corpus = np.arange(first, first + items)
        self.teacher = cache(Teacher(ws, settings, con))

    def run(self, preset: str, overrides: dict[str, str], seed: int, folder: Path) -> Figures:
        """Train and export one variant into `folder`, and judge it."""
        folder.mkdir()
        options = TrainOptions(preset=preset, overrides=overrides, seed=seed, teach=self.teacher)
        trained = train_lightweight(self.ws, self.settings, self.con, folder, options)
        export_run(folder)
        scored = self.scored(folder)
        funnel = self.settings.funnel
        share = min(1.0, funnel.lightweight / funnel.retrieve)
        stage = judge(scored, funnel.lightweight, share, self.evaluation)
        cuts = [judge_cut(s, w, kept_of(len(s), funnel.lightweight, share), SLATE) for s, w in scored]
        click = trained.metrics["test"]["click"]
        return Figures(
            click["auc"], click["calibration"], stage, np.array([(one.kept, one.best) for one in cuts])
        )

    def scored(self, run: Path) -> list[tuple[np.ndarray, np.ndarray]]:
        """(lightweight scores, heavy scores) of every request."""
        scorer = LightScorer(run)
        value, items = Value.of(self.settings, scorer.outputs), self.items(scorer)
        found = []
        for asked in self.asked:
            user = scorer.user(self.state.inputs(scorer.encoder, asked.ctx, self.corpus[:1]))
            rows = items[asked.rows - self.corpus[0]]
            probability = scorer.score(self.state, asked.ctx, user, rows, asked.rows)
            found.append((value.score(probability, asked.bids), asked.heavy))
        return found

    def items(self, scorer: LightScorer) -> np.ndarray:
        """The rows of all items."""
        nobody, starts = self.state.request(""), range(0, len(self.corpus), CHUNK)
        chunks = [self.corpus[start : start + CHUNK] for start in starts]
        return np.concatenate([scorer.item(self.state.inputs(scorer.encoder, nobody, c)) for c in chunks])

    def times(self, runs: dict[str, Path]) -> dict[str, np.ndarray]:
        """Median ms of user, cross, pairs and all by variant; the variants take turns at every request."""
        scorers = {name: LightScorer(run) for name, run in runs.items()}
        items = {name: self.items(scorer) for name, scorer in scorers.items()}
        laps: dict[str, list[tuple[float, ...]]] = {name: [] for name in runs}
        for asked in self.asked[:TIMED]:
            for name, scorer in scorers.items():
                read = self.state.inputs(scorer.encoder, asked.ctx, self.corpus[:1])
                for _ in range(2):  # the first fills the caches that the other variants emptied
                    started = time.perf_counter()
                    user = scorer.user(read)
                    encoded = time.perf_counter()
                    cross = scorer.cross.of(self.state, asked.ctx, asked.rows) if scorer.cross.width else None
                    crossed = time.perf_counter()
                    scorer.probability(user, items[name][asked.rows - self.corpus[0]], cross)
                    ended = time.perf_counter()
                laps[name].append((encoded - started, crossed - encoded, ended - crossed, ended - started))
        return {name: 1000 * np.median(found, axis=0) for name, found in laps.items()}


def below(bench: Bench, ours: list[Figures], theirs: list[Figures]) -> tuple[float, float, float]:
    """1 - regret / regret of the other, with its interval over users; utilities are summed over seeds."""
    a, b = (sum(one.kept for one in runs) for runs in (ours, theirs))
    users = bench.evaluation.resampler(np.arange(len(a)))
    lost, other = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    return users.of_sums(lambda x, y: 1.0 - x / y, lost, other)


def line(bench: Bench, name: str, runs: list[Figures], first: list[Figures]) -> str:
    """One row of the table."""

    def over(values: list[float]) -> str:
        return f"{np.mean(values):.4f} ±{np.std(values):.4f}"

    stages = [run.stage for run in runs]
    low, high = np.mean([stage["intervals"]["utility_regret"] for stage in stages], axis=0)
    cells = [over([run.auc for run in runs])]
    cells += [over([stage[key] for stage in stages]) for key in ("recall", "kendall_tau", "utility_regret")]
    cells.append(over([run.calibration for run in runs]))
    less = below(bench, runs, first)
    return (
        f"{name:<24}" + "".join(f"{cell:>16}" for cell in cells) + f"  {low:.3f}-{high:.3f}"
        f"  {less[0]:>5.0%} ({less[1]:.0%} to {less[2]:.0%})"
    )


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(VARIANTS),
        help="names, or new ones: name:preset:key=value:...",
    )
    given = parser.parse_args()
    ws = Workspace(given.workspace)
    settings = load_settings(ws.config, environment={})
    with open_warehouse(ws, settings, read_only=True) as con:
        bench = Bench(ws, settings, con, given.requests)
        sizes = [len(asked.rows) for asked in bench.asked]
        print(f"{len(sizes)} requests, {np.mean(sizes):,.0f} candidates, {settings.funnel.lightweight} kept")
        heads = ("click AUC", "recall", "tau", "regret", "calibration")
        print(
            f"{'':<24}" + "".join(f"{h:>16}" for h in heads) + "  regret (95 %)  below the first", flush=True
        )
        first: list[Figures] = []
        with tempfile.TemporaryDirectory() as folder:
            for wanted in given.variants:
                name, *rest = wanted.split(":")
                if rest:
                    VARIANTS[name] = rest[0], dict(pair.split("=") for pair in rest[1:])
                made = [Path(folder) / f"{name}-{seed}" for seed in range(given.seeds)]
                runs = [bench.run(*VARIANTS[name], seed, run) for seed, run in enumerate(made)]
                first = first or runs
                print(line(bench, name, runs, first), flush=True)
            firsts = {name: Path(folder) / f"{name}-0" for name in (w.split(":")[0] for w in given.variants)}
            for name, (user, cross, pairs, total) in bench.times(firsts).items():
                print(f"{name:<24}{total:.3f} ms = user {user:.3f} + cross {cross:.3f} + pairs {pairs:.3f}")


if __name__ == "__main__":
    main()
