"""`adstool quota`: quotas learned from replayed requests, and compared with others on requests held out."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.errors import UsageError
from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.quota_replay import Replays, replay
from adstool.funnel.ann import best
from adstool.funnel.candidates import merge
from adstool.funnel.quota import FILE, MODEL, OVERALL, Quota, hand_set
from adstool.funnel.quota_learning import Cost, Coverage, Replayed, allocate
from adstool.progress import log
from adstool.workspace import Workspace, write_json

if TYPE_CHECKING:
    import duckdb

Array = NDArray[Any]
REQUESTS = 400  # replayed: half are learned from, half compared on
LEAST = 20  # requests of a segment from which it has quotas of its own
WINNERS = 100  # best items of a request whose utility counts
EXPLORE = 0.02  # of the candidates that exploration keeps: what it finds out has no score yet
PARTS = (0.125, 0.25, 0.5, 1.0)  # of the budget, at which quotas are compared
# What somebody would set who knows the sources and not the data: parts of the candidates.
BY_HAND = {
    "two_tower": 0.35,
    "interests": 0.2,
    "clip": 0.1,
    "semantic": 0.1,
    "sequence": 0.1,
    "conversion": 0.05,
    "query": 0.05,
    "popular": 0.05,
    "fresh": 0.05,
    "retargeting": 0.025,
    "exploration": 0.025,
}


def learn_quota(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    *,
    budget_ms: float | None = None,
    requests: int = REQUESTS,
) -> dict[str, Any]:
    """Learn quotas, compare them, and put them in use as a run of `quota`; returns what quota.json holds.

    budget_ms: milliseconds that the sources and the lightweight ranker may take a request; None: as many
    candidates as [funnel] retrieve says. Raises UsageError for a budget in which no candidate can be found,
    DataError when the log has too few requests.
    """
    started = time.perf_counter()
    depth = settings.funnel.retrieve
    replays = replay(ws, settings, con, requests, depth)
    learn, held = split(replays.requests)
    cost = replays.cost if budget_ms is not None else Cost.count(len(replays.names))
    budget = float(depth) if budget_ms is None else budget_ms
    students = [replays.requests[place] for place in learn]
    quotas = learned_quotas(students, replays.names, cost, budget, depth, fill=budget_ms is None)
    if not any(quotas[OVERALL].depths.values()):
        raise UsageError(
            f"In {budget:g} ms no source finds enough to be worth its time.",
            f"Give more: adstool quota --budget-ms {2 * budget:g}",
        )
    judge = _Judge(replays, held, settings, depth)
    compared = judge.compare(students, cost, budget, fill=budget_ms is None)
    counts = Counter(one.segment for one in students)
    document = {
        "quotas": dict(quotas[OVERALL].depths),
        "expected_utility": compared[-1]["policies"]["learned"]["slate"],
        "total": depth,
        "fill": budget_ms is None,
        "budget_ms": budget_ms,
        "segments": {
            name: {"requests": counts[name], "quotas": dict(quota.depths)}
            for name, quota in quotas.items()
            if name != OVERALL
        },
        "compared": compared,
        "curves": curves(students, replays.names, quotas[OVERALL], depth, settings),
        "latency": latency(replays),
        "data": {
            "requests": len(replays.requests),
            "learned_from": len(learn),
            "compared_on": len(held),
            "from": "requests of the log, asked again with every source at full depth",
            "depth": depth,
            "corpus": judge.corpus,
            "as_of": f"{datetime.fromtimestamp(replays.as_of / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}",
        },
        "seconds": round(time.perf_counter() - started, 2),
    }
    if document["fill"] and depth >= judge.corpus:
        log.info(
            "All %d items that the sources find fit into %d candidates ([funnel] retrieve): quotas matter"
            " little.",
            judge.corpus,
            depth,
        )
    with ws.new_run(MODEL) as run_dir:
        write_json(run_dir / FILE, document)
    return {"run_id": ws.require_run(MODEL, MODEL).name, **document}


def split(requests: Sequence[Replayed]) -> tuple[list[int], list[int]]:
    """Places of the requests to learn from and to compare on: those of a user are on one side."""
    side = [hashlib.blake2b(one.user.encode(), digest_size=1).digest()[0] % 2 for one in requests]
    return [p for p, s in enumerate(side) if s == 0], [p for p, s in enumerate(side) if s == 1]


def learned_quotas(
    requests: Sequence[Replayed],
    names: Sequence[str],
    cost: Cost,
    budget: float,
    depth: int,
    *,
    fill: bool,
) -> dict[str, Quota]:
    """A quota for all requests together, and one for every segment with enough of them."""
    counts = Counter(one.segment for one in requests)
    parts = {OVERALL: list(requests)}
    for segment, count in sorted(counts.items()):
        if count >= LEAST:
            parts[segment] = [one for one in requests if one.segment == segment]
    total = round(budget) if fill else depth
    quotas = {}
    for segment, some in parts.items():
        depths = allocate(Coverage.of(some, depth, WINNERS), cost, budget).tolist()
        quota = dict(zip(names, depths, strict=True))
        if "exploration" in quota and fill:
            quota["exploration"] = max(quota["exploration"], round(EXPLORE * total))
        quotas[segment] = Quota(quota, total, fill)
    return quotas


def by_hand(settings: Settings, names: Sequence[str], total: int) -> Quota:
    """The quota of the settings, or what somebody would set."""
    if settings.funnel.quotas:
        return hand_set(settings.funnel.quotas, names, settings.funnel.retrieve).within(total)
    parts = {name: BY_HAND.get(name, 0.05) for name in names}
    whole = sum(parts.values())
    return Quota({name: max(round(total * part / whole), 1) for name, part in parts.items()}, total)


class _Judge:
    """What quotas are worth on the requests held out."""

    def __init__(self, replays: Replays, held: list[int], settings: Settings, depth: int) -> None:
        self.replays, self.held, self.settings, self.depth = replays, held, settings, depth
        self.corpus = max((len(replays.requests[p].positions) for p in held), default=0)
        users = np.array([replays.requests[place].user for place in held])
        self.users = Resampler(users, settings.evaluation.bootstrap)

    def compare(
        self, students: Sequence[Replayed], cost: Cost, budget: float, *, fill: bool
    ) -> list[dict[str, Any]]:
        """Learned quotas beside others at the same cost, for parts of the budget; the last is all of it."""
        names, rows = self.replays.names, []
        for part in PARTS:
            some = budget * part
            learned = learned_quotas(students, names, cost, some, self.depth, fill=fill)
            if fill:
                total = max(round(some), 1)
                equal, hand = Quota.equal(names, total), by_hand(self.settings, names, total)
            else:
                coverage = Coverage.of(students, self.depth, 1)
                equal = at_cost(Quota.equal(names, self.depth), coverage, cost, some)
                hand = at_cost(by_hand(self.settings, names, self.depth), coverage, cost, some)
            policies = {
                "learned": learned,
                "learned, one for all": {OVERALL: learned[OVERALL]},
                "equal": {OVERALL: equal},
                "by hand": {OVERALL: hand},
            }
            rows.append({"budget": some, **self._beside(policies)})
        return rows

    def _beside(self, policies: Mapping[str, Mapping[str, Quota]]) -> dict[str, Any]:
        values = {name: np.array([self._value(p, q) for p in self.held]) for name, q in policies.items()}
        best_ = np.array([self._most(place) for place in self.held])
        figures: dict[str, Any] = {}
        for name, one in values.items():
            slate, kept = self.users.mean(one[:, 0]), self.users.mean(one[:, 1])
            figures[name] = {
                "slate": slate.value,
                "slate_interval": slate.interval,
                "kept": kept.value,
                "kept_interval": kept.interval,
                "of_the_best_slate": self.users.ratio(one[:, 0], best_).value,
                "candidates": float(one[:, 2].mean()),
                "ms": float(one[:, 3].mean()),
            }
        gains: dict[str, dict[str, Any]] = {}
        for name in ("equal", "by hand", "learned, one for all"):
            gains[name] = {}
            for column, what in enumerate(("slate", "kept")):
                more = self.users.of_sums(
                    lambda a, b: a / b - 1.0, values["learned"][:, column], values[name][:, column]
                )
                gains[name] |= {what: more.value, f"{what}_interval": more.interval}
        return {"policies": figures, "learned_against": gains}

    def _value(self, place: int, quotas: Mapping[str, Quota]) -> tuple[float, float, float, float]:
        """Utility of the slate, of what the lightweight ranker keeps; candidates and milliseconds."""
        one, found = self.replays.requests[place], self.replays.found[place]
        quota = quotas.get(one.segment) or quotas[OVERALL]
        positions = merge(found, quota).positions
        there = np.searchsorted(one.positions, positions)
        kept = there[best(one.light[there], self.settings.funnel.lightweight)]
        scores = one.heavy[kept]
        scores = np.sort(scores[np.isfinite(scores)])[::-1]
        cost = self.replays.cost
        ms = sum(
            float(cost.of_depth(s, np.asarray(quota.depths[name])))
            for s, name in enumerate(self.replays.names)
        )
        slate = float(scores[: self.settings.funnel.slate].sum())
        return slate, float(scores.sum()), float(len(positions)), ms + cost.distinct * len(positions)

    def _most(self, place: int) -> float:
        """Utility of the best slate of everything that any source brings."""
        heavy = self.replays.requests[place].heavy
        return float(np.sort(heavy[np.isfinite(heavy)])[::-1][: self.settings.funnel.slate].sum())


def at_cost(quota: Quota, coverage: Coverage, cost: Cost, budget: float) -> Quota:
    """The same shares, as large as the budget allows, without filling up.

    Sources that take most time before their first candidate are left out until the others' take at most half
    of the budget, as somebody would who sets quotas for it by hand.
    """
    depths = np.array(list(quota.depths.values()))
    most = int(coverage.grid[-1])
    while cost.fixed[depths > 0].sum() > budget / 2.0:
        depths[np.argmax(np.where(depths > 0, cost.fixed, -1.0))] = 0
    low, high = 0.0, most / max(int(depths[depths > 0].min(initial=most)), 1)
    for _ in range(24):
        middle = (low + high) / 2.0
        scaled = np.minimum(np.round(depths * middle), most)
        steps = np.searchsorted(coverage.grid, scaled, side="right") - 1
        low, high = (low, middle) if coverage.cost(steps, cost) > budget else (middle, high)
    scaled = np.minimum(np.round(depths * low), most).astype(int)
    return Quota(dict(zip(quota.depths, scaled.tolist(), strict=True)), quota.total, fill=False)


def curves(
    requests: Sequence[Replayed], names: Sequence[str], quota: Quota, depth: int, settings: Settings
) -> dict[str, Any]:
    """By source and depth, the share of a request's winners' utility that it brings alone, and that it adds
    to the others at their quotas."""
    coverage = Coverage.of(requests, depth, settings.funnel.slate)
    whole = max(float(coverage.gain.sum()), 1e-12)
    depths = np.array([quota.depths[name] for name in names])
    steps = np.searchsorted(coverage.grid, depths, side="right") - 1
    nothing = np.zeros_like(steps)
    found = {}
    for source, name in enumerate(names):
        alone, added = coverage.curve(source, nothing)[0], coverage.curve(source, steps)[0]
        found[name] = {"alone": (alone / whole).tolist(), "added": (added / whole).tolist()}
    return {"depths": coverage.grid.tolist(), "sources": found}


def latency(replays: Replays) -> dict[str, Any]:
    """Milliseconds of every source, at all and a candidate, and of a candidate later."""
    cost = replays.cost
    return {
        "sources": {
            name: {"fixed_ms": float(cost.fixed[s]), "ms_a_candidate": float(cost.each[s])}
            for s, name in enumerate(replays.names)
        },
        "lightweight_ms_a_candidate": cost.distinct,
    }
