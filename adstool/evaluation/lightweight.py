"""The lightweight stage: whether the cheap ranker keeps what the heavy one wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.bootstrap import Estimate, Resampler
from adstool.evaluation.context import Evaluation
from adstool.evaluation.engagement import DAY, TOP_VALUES
from adstool.evaluation.metrics import Kept, kendall_tau
from adstool.evaluation.metrics import cut as judge_cut
from adstool.evaluation.visits import cut, make_ranker, sample_requests
from adstool.features.state import ServingState
from adstool.funnel.slate import Ranked

Array = NDArray[Any]
SLATE = 10  # the heavy ranker's first ten
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of the candidates, for the curve
LEAST_REQUESTS = 10  # a smaller slice says nothing
LEAST_BEST = 50  # candidates that were worth keeping, of all requests, in a slice of candidates


@dataclass(frozen=True)
class Judged:
    """One request's candidates: what both rankers say of each [n], and the groups that it and they are in."""

    light: Array
    worth: Array
    groups: tuple[str, ...] = ()  # of the request
    sources: Array | None = None  # number of the source that found each, [n]
    members: dict[str, Array] | None = None  # group -> bool [n]

    def cut(self, keep: int) -> Kept:
        """The cut to `keep` candidates."""
        return judge_cut(self.light, self.worth, keep, SLATE)

    @cached_property
    def tau(self) -> float:
        """Kendall's τ of the two rankers."""
        return kendall_tau(self.light, self.worth)


def evaluate_lightweight(evaluation: Evaluation) -> dict[str, Any]:
    """Recall of the heavy ranker's ten best in the kept set, Kendall's τ and utility regret, with intervals;
    whole, by source, and by slice of requests and of candidates.

    Sampled requests of the test split are answered with what was known before it; all candidates are scored
    by both rankers. Utility is what the funnel ranks by. The cut keeps as many as the settings say, or where
    the sources bring fewer candidates than they may, the same share of them: otherwise a small catalogue
    would make any ranker look perfect. utility_regret = 1 − Σ utility kept ÷ Σ utility of the best set of
    that size. Of candidates of one source or slice it is the share of the best set's utility that they had
    and that was not kept.
    """
    funnel = evaluation.settings.funnel
    ranker = make_ranker(evaluation, lightweight=funnel.retrieve)
    at = cut(evaluation)
    known = _known_users(evaluation)
    judged: list[Judged] = []
    names: tuple[str, ...] = ()
    slices: _Slices | None = None
    for request in sample_requests(evaluation):
        ranked = ranker.stages(request, at)
        if len(ranked.kept) > 1:
            index = ranker.index_at(at)
            slices = slices or _Slices.of(index.state)
            judged.append(slices.judged(ranked, ranked.rows(index), known))
            names = ranked.candidates.names
    share = min(1.0, funnel.lightweight / funnel.retrieve)
    found = judge([(one.light, one.worth) for one in judged], funnel.lightweight, share, evaluation)
    parts = by_part(judged, names, funnel.lightweight, share, evaluation) if judged else {}
    return {"requests": len(judged), **found, **parts}


def judge(
    scored: list[tuple[Array, Array]], most: int, share: float, evaluation: Evaluation
) -> dict[str, Any]:
    """The figures from (lightweight scores [n], utilities [n]) of each request."""
    if not scored:
        nothing = dict.fromkeys(("recall", "kendall_tau", "utility_regret", "slate_regret"), math.nan)
        return {"candidates": 0.0, "kept": 0.0, "slate": SLATE, **nothing, "intervals": {}, "curve": []}
    judged = [Judged(light, worth) for light, worth in scored]
    sizes = np.array([len(light) for light, _ in scored])
    keeps = [kept_of(int(size), most, share) for size in sizes]
    return {
        "candidates": float(sizes.mean()),
        "kept": float(np.mean(keeps)),
        "slate": SLATE,
        **_figures(judged, keeps, evaluation),
        "curve": [_at(scored, part) for part in SHARES],
    }


def _figures(judged: Sequence[Judged], keeps: Sequence[int], evaluation: Evaluation) -> dict[str, Any]:
    """Recall, τ and regrets of whole requests, and their intervals over them."""
    users = evaluation.resampler(np.arange(len(judged)))
    cuts = _columns([one.cut(keep) for one, keep in zip(judged, keeps, strict=True)])
    return _plain(
        {
            "recall": users.mean(cuts["recall"]),
            "kendall_tau": users.mean(np.array([one.tau for one in judged])),
            "utility_regret": users.of_sums(_regret, cuts["kept"], cuts["best"]),
            "slate_regret": users.of_sums(_regret, cuts["slate_kept"], cuts["slate_best"]),
        }
    )


def by_part(
    judged: Sequence[Judged], names: Sequence[str], most: int, share: float, evaluation: Evaluation
) -> dict[str, Any]:
    """{sources: {name: figures}, slices: {name: figures}}: see evaluate_lightweight."""
    keeps = [kept_of(len(one.light), most, share) for one in judged]
    marks = [_marks(one, keep) for one, keep in zip(judged, keeps, strict=True)]
    users = evaluation.resampler(np.arange(len(judged)))
    sources = {}
    for number, name in enumerate(names):
        inside = [np.asarray(one.sources == number) for one in judged]
        sources[name] = _of_candidates(users, judged, marks, inside)
    slices = {}
    for name in sorted({group for one in judged for group in one.groups}):
        some = [place for place, one in enumerate(judged) if name in one.groups]
        if len(some) >= LEAST_REQUESTS:
            figures = _figures([judged[i] for i in some], [keeps[i] for i in some], evaluation)
            slices[name] = {"requests": len(some), **figures}
    for name in judged[0].members or {}:
        inside = [one.members[name] for one in judged if one.members is not None]
        figures = _of_candidates(users, judged, marks, inside)
        if figures["best"] >= LEAST_BEST:
            slices[name] = figures
    return {"sources": sources, "slices": slices}


def _marks(one: Judged, keep: int) -> tuple[Array, Array, Array]:
    """Whether each candidate is kept, is in the best set of that size and in the heavy ranker's slate."""
    marks = []
    for scores, depth in ((one.light, keep), (one.worth, keep), (one.worth, SLATE)):
        mark = np.zeros(len(scores), dtype=bool)
        mark[np.argsort(-scores, kind="stable")[:depth]] = True
        marks.append(mark)
    return marks[0], marks[1], marks[2]


def _of_candidates(
    users: Resampler,
    judged: Sequence[Judged],
    marks: Sequence[tuple[Array, Array, Array]],
    inside: Sequence[Array],
) -> dict[str, Any]:
    """The figures of some of the candidates of every request, bool [n] each."""
    rows = []
    for one, (kept, best, slate), some in zip(judged, marks, inside, strict=True):
        worth = np.maximum(one.worth, 0.0)
        tau = kendall_tau(one.light[some], one.worth[some]) if some.sum() > 1 else np.nan
        had, saved = worth[best & some].sum(), worth[best & kept & some].sum()
        counts = ((slate & some).sum(), (slate & kept & some).sum(), some.sum(), (best & some).sum())
        rows.append((tau, had, saved, *counts))
    tau, had, saved, wanted, found, size, best_size = np.array(rows, dtype=np.float64).T
    figures = _plain(
        {
            "recall": users.ratio(found, wanted),
            "kendall_tau": users.mean(tau),
            "utility_regret": users.of_sums(_regret, saved, had),
        }
    )
    return {"candidates": float(size.mean()), "best": int(best_size.sum()), **figures}


def _plain(found: dict[str, Estimate]) -> dict[str, Any]:
    return {
        **{name: one.value for name, one in found.items()},
        "intervals": {name: one.interval for name, one in found.items()},
    }


@dataclass(frozen=True)
class _Slices:
    """What candidates are sliced by, by row of the items of one state."""

    created: Array
    shown: Array  # how often each was shown before, decayed
    groups: dict[str, Array]  # of the largest verticals

    @classmethod
    def of(cls, state: ServingState) -> _Slices:
        """Of a state as of the cut."""
        codes, names = state.items.numbered("vertical")
        counted = np.bincount(codes[codes >= 0], minlength=len(names))
        largest = np.argsort(-counted, kind="stable")[:TOP_VALUES]
        groups = {f"vertical={names[code]}": codes == code for code in largest if counted[code]}
        return cls(state.items.times("created_at"), state.outcomes()[0], groups)

    def judged(self, ranked: Ranked, rows: Array, known: set[str]) -> Judged:
        """A ranked request with its groups; rows [m] of all its candidates, known: users seen before."""
        kept, ctx = ranked.kept, ranked.ctx
        rows = rows[kept]
        created = self.created[rows]
        members = {
            "item created in the last day": (created <= ctx.ts) & (created > ctx.ts - DAY),
            "item never shown before": self.shown[rows] <= 0,
            **{name: group[rows] for name, group in self.groups.items()},
        }
        groups = [f"surface={ctx.surface}"] if ctx.surface else []
        groups += [] if ctx.user_id in known else ["user never seen in training"]
        sources = ranked.candidates.source[kept]
        return Judged(ranked.light[kept], ranked.score, tuple(groups), sources, members)


def _known_users(evaluation: Evaluation) -> set[str]:
    """The users that were shown something before the test split."""
    numbers = np.unique(evaluation.dataset.user[: evaluation.test.start])
    ids = evaluation.dataset.users.column("user_id").to_pylist()
    return {str(ids[number]) for number in numbers}


def kept_of(candidates: int, most: int, share: float) -> int:
    """How many of the candidates the cut keeps."""
    return min(most, max(1, math.ceil(candidates * share - 1e-9)))


def _columns(cuts: list[Kept]) -> dict[str, Array]:
    return {name: np.array([getattr(one, name) for one in cuts]) for name in Kept._fields}


def _regret(kept: Array, best: Array) -> Array:
    """1 − kept ÷ best, nan where even the best set is worth nothing."""
    worth = np.where(best > 0, best, np.nan)
    return np.asarray(1.0 - kept / worth)


def _at(scored: list[tuple[Array, Array]], share: float) -> dict[str, float]:
    """Recall and regret when that share of the candidates is kept."""
    cuts = _columns(
        [
            judge_cut(light, worth, max(1, math.ceil(len(light) * share - 1e-9)), SLATE)
            for light, worth in scored
        ]
    )
    regret = _regret(cuts["kept"].sum(), cuts["best"].sum())
    return {"share": share, "recall": float(cuts["recall"].mean()), "utility_regret": float(regret)}
