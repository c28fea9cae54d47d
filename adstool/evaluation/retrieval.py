"""The retrieval stage: which of the things users went for later each candidate source had found."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.context import Evaluation
from adstool.evaluation.visits import Past, Wanted, cut, sample_requests
from adstool.funnel.asked import Found
from adstool.funnel.candidates import merge
from adstool.funnel.quota import Quota
from adstool.funnel.request import Request
from adstool.funnel.sources import sources_of

Array = NDArray[Any]
DEPTHS = (10, 50, 100, 500)
UNIQUE_AT = 100  # the depth at which what only one source found is counted


def evaluate_retrieval(evaluation: Evaluation) -> dict[str, Any]:
    """Recall of later engagement by source and depth, as of the start of the test split.

    One request a sampled user: the first of the test split, answered with what was known before the split.
    Wanted is what the user engaged with from then on (under `conversions`, what he is credited to have
    converted on); `reachable` is the share of it that existed and whose
    campaign ran at the time of the request, which no source can exceed. Recall is over all wanted items
    together; its intervals resample users. A depth that takes in the whole corpus says nothing and is left
    out.
    """
    past = Past(evaluation)
    requests = sample_requests(evaluation)
    wanted = past.wanted(requests)
    found, times, eligible = _ask(past, requests)
    corpus = float(np.mean([len(positions) for positions in eligible])) if eligible else 0.0
    reachable = _hits(eligible, wanted).sum() / max(_sizes(wanted).sum(), 1.0)
    return {
        "as_of": f"{cut(evaluation):%Y-%m-%dT%H:%M:%SZ}",
        "requests": len(requests),
        "corpus": corpus,
        "reachable": float(reachable),
        **judge(found, wanted, times, corpus, evaluation),
        "conversions": _conversions(past, evaluation),
    }


def _conversions(past: Past, evaluation: Evaluation) -> dict[str, Any]:
    """The same figures of what is converted on after the cut, by users of whom that is known; empty without
    conversions."""
    requests, wanted = past.converted()
    if not requests:
        return {}
    found, times, eligible = _ask(past, requests)
    corpus = float(np.mean([len(positions) for positions in eligible]))
    return {"requests": len(requests), **judge(found, wanted, times, corpus, evaluation)}


def _ask(
    past: Past, requests: list[Request]
) -> tuple[list[dict[str, Found]], dict[str, list[float]], list[Array]]:
    """What every source finds for each request, the milliseconds that takes, and what could be shown."""
    sources = sources_of(past.index)
    times: dict[str, list[float]] = {name: [] for name in sources}
    found, eligible = [], []
    for request in requests:
        asked = past.asked(request)
        eligible.append(np.flatnonzero(asked.eligible))
        one = {}
        for name, source in sources.items():
            start = time.perf_counter()
            one[name] = source(asked, DEPTHS[-1])
            times[name].append(1000 * (time.perf_counter() - start))
        found.append(one)
    return found, times, eligible


def judge(
    found: list[dict[str, Found]],
    wanted: list[Wanted],
    times: dict[str, list[float]],
    corpus: float,
    evaluation: Evaluation,
) -> dict[str, Any]:
    """The figures of every source (those of `times`) and of all together, from what each found for every
    user."""
    depths = [k for k in DEPTHS if k < corpus] or [max(1, int(corpus) // 2)]
    unique_at = max((k for k in depths if k <= UNIQUE_AT), default=depths[0])
    users = evaluation.resampler(np.arange(len(wanted)))
    sources: dict[str, Any] = {}
    for name in times:
        lists = {k: [one[name].positions[:k] for one in found] for k in depths}
        sources[name] = _recalls(users, lists, wanted)
        alone = [_alone(one, name, unique_at) for one in found]
        _put(sources[name], "unique", users, _hits(alone, wanted), _sizes(wanted))
        taken = [len(one[name].positions) for one in found]
        sources[name]["candidates"] = float(np.mean(taken)) if taken else 0.0
        sources[name]["ms"] = quantiles(times[name])
    together = {k: [merge(one, Quota.equal(times, k)).positions for one in found] for k in depths}
    merged = _recalls(users, together, wanted)
    deepest = [len(positions) for positions in together[depths[-1]]]
    merged["candidates"] = float(np.mean(deepest)) if deepest else 0.0
    return {
        "wanted": int(_sizes(wanted).sum()),
        "cold_wanted": int(sum(one.new.sum() for one in wanted)),
        "fresh_wanted": int(sum(one.fresh.sum() for one in wanted)),
        "ks": depths,
        "unique_at": unique_at,
        "sources": sources,
        "merged": merged,
    }


def quantiles(milliseconds: list[float]) -> dict[str, float]:
    """{p50, p99}; empty without any measurement."""
    if not milliseconds:
        return {}
    p50, p99 = np.quantile(milliseconds, [0.5, 0.99])
    return {"p50": float(p50), "p99": float(p99)}


def _recalls(users: Resampler, lists: dict[int, list[Array]], wanted: list[Wanted]) -> dict[str, Any]:
    """recall@k of the lists by depth; of what was new to everybody at the largest depth; and by depth of what
    was made in the day before the request."""
    result: dict[str, Any] = {"intervals": {}}
    for k, positions in lists.items():
        _put(result, f"recall@{k}", users, _hits(positions, wanted), _sizes(wanted))
    new = [one.only(one.new) for one in wanted]
    _put(result, "cold_recall", users, _hits(lists[max(lists)], new), _sizes(new))
    fresh = [one.only(one.fresh) for one in wanted]
    for k, positions in lists.items():
        _put(result, f"fresh_recall@{k}", users, _hits(positions, fresh), _sizes(fresh))
    return result


def _alone(found: dict[str, Found], name: str, depth: int) -> Array:
    """What this source has among its first `depth` and no other has."""
    others = [other.positions[:depth] for key, other in found.items() if key != name]
    return np.setdiff1d(found[name].positions[:depth], np.concatenate(others))


def _hits(lists: list[Array], wanted: list[Wanted]) -> Array:
    """How many of the wanted items are in each user's list, float64 [users]."""
    pairs = zip(lists, wanted, strict=True)
    return np.array([np.isin(one.positions, found).sum() for found, one in pairs], dtype=np.float64)


def _sizes(wanted: list[Wanted]) -> Array:
    return np.array([len(one.positions) for one in wanted], dtype=np.float64)


def _put(result: dict[str, Any], name: str, users: Resampler, hits: Array, sizes: Array) -> None:
    if sizes.sum() == 0:
        result[name] = float("nan")
        return
    estimate = users.ratio(hits, sizes)
    result[name] = estimate.value
    result["intervals"][name] = estimate.interval
