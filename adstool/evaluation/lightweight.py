"""The lightweight stage: whether the cheap ranker keeps what the heavy one wants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.context import Evaluation
from adstool.evaluation.metrics import Kept, kendall_tau
from adstool.evaluation.metrics import cut as judge_cut
from adstool.evaluation.visits import cut, make_ranker, sample_requests

Array = NDArray[Any]
SLATE = 10  # the heavy ranker's first ten
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of the candidates, for the curve


def evaluate_lightweight(evaluation: Evaluation) -> dict[str, Any]:
    """Recall of the heavy ranker's ten best in the kept set, Kendall's τ and utility regret, with intervals.

    Sampled requests of the test split are answered with what was known before it; all candidates are scored
    by both rankers. Utility is what the funnel ranks by. The cut keeps as many as the settings say, or where
    the sources bring fewer candidates than they may, the same share of them: otherwise a small catalogue
    would make any ranker look perfect. utility_regret = 1 − Σ utility kept ÷ Σ utility of the best set of
    that size.
    """
    funnel = evaluation.settings.funnel
    ranker = make_ranker(evaluation, lightweight=funnel.retrieve)
    scored = []
    for request in sample_requests(evaluation):
        ranked = ranker.stages(request, cut(evaluation))
        if len(ranked.kept) > 1:
            scored.append((ranked.light[ranked.kept], ranked.score))
    share = min(1.0, funnel.lightweight / funnel.retrieve)
    return {"requests": len(scored), **judge(scored, funnel.lightweight, share, evaluation)}


def judge(
    scored: list[tuple[Array, Array]], most: int, share: float, evaluation: Evaluation
) -> dict[str, Any]:
    """The figures from (lightweight scores [n], utilities [n]) of each request."""
    if not scored:
        nothing = dict.fromkeys(("recall", "kendall_tau", "utility_regret", "slate_regret"), math.nan)
        return {"candidates": 0.0, "kept": 0.0, "slate": SLATE, **nothing, "intervals": {}, "curve": []}
    users = evaluation.resampler(np.arange(len(scored)))
    sizes = np.array([len(light) for light, _ in scored])
    keeps = [kept_of(len(light), most, share) for light, _ in scored]
    cuts = _columns(
        [judge_cut(light, worth, k, SLATE) for (light, worth), k in zip(scored, keeps, strict=True)]
    )
    found = {
        "recall": users.mean(cuts["recall"]),
        "kendall_tau": users.mean(np.array([kendall_tau(light, worth) for light, worth in scored])),
        "utility_regret": users.of_sums(_regret, cuts["kept"], cuts["best"]),
        "slate_regret": users.of_sums(_regret, cuts["slate_kept"], cuts["slate_best"]),
    }
    return {
        "candidates": float(sizes.mean()),
        "kept": float(np.mean(keeps)),
        "slate": SLATE,
        **{name: one.value for name, one in found.items()},
        "intervals": {name: one.interval for name, one in found.items()},
        "curve": [_at(scored, part) for part in SHARES],
    }


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
