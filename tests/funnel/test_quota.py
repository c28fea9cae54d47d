"""Quotas: the best allocation against trying all, what serves of them, and what cannot be read."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.funnel.asked import Found
from adstool.funnel.candidates import merge, retrieve
from adstool.funnel.quota import (
    FILE,
    MODEL,
    OVERALL,
    LearnedQuota,
    OneQuota,
    Quota,
    hand_set,
    load_quota,
    plan_of,
    segment_of,
)
from adstool.funnel.quota_learning import FAR, Cost, Coverage, Replayed, allocate, winner_gains
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import sources_of
from adstool.workspace import Workspace, write_json

DEPTH, SOURCES = 5, 3


def requests(seed: int) -> list[Replayed]:
    """Requests in which the first source finds what is best, the second the same later, the third others."""
    random, made = np.random.default_rng(seed), []
    for number in range(40):
        heavy = random.exponential(size=12)
        noise = (0.3, 0.9, 3.0)
        ranks = np.full((SOURCES, 12), FAR, dtype=np.int32)
        for source, row in enumerate(ranks):
            found = np.argsort(-heavy + noise[source] * random.normal(size=12))[:DEPTH]
            row[found] = np.arange(1, DEPTH + 1)
        made.append(Replayed(f"u{number}", "s", np.arange(12), ranks, heavy, heavy))
    return made


def brute(made: list[Replayed], depths: tuple[int, ...], winners: int) -> tuple[float, float]:
    """Utility and distinct candidates of a request, counted one by one."""
    utility = distinct = 0.0
    for one in made:
        brought = [i for i in range(12) if any(one.ranks[s, i] <= d for s, d in enumerate(depths))]
        order = sorted(range(12), key=lambda i: -one.heavy[i])
        rest = one.heavy[order[winners]]
        utility += sum(one.heavy[i] - rest for i in order[:winners] if i in brought)
        distinct += len(brought)
    return utility / len(made), distinct / len(made)


def test_a_gain_is_what_a_winner_is_worth_more_than_who_comes_after() -> None:
    places, gains = winner_gains(np.array([1.0, -np.inf, 5.0, 3.0]), 2)
    assert places.tolist() == [2, 3]
    assert gains.tolist() == [4.0, 2.0]
    assert winner_gains(np.array([2.0, -np.inf]), 2)[1].tolist() == [2.0]


@pytest.mark.parametrize("seed", range(3))
def test_allocation_is_near_the_best_of_all_and_within_the_budget(seed: int) -> None:
    made = requests(seed)
    coverage = Coverage.of(made, DEPTH, 4)
    assert coverage.grid.tolist() == [0, 1, 2, 3, 4, 5]
    every = list(product(range(DEPTH + 1), repeat=SOURCES))
    measured = {depths: brute(made, depths, 4) for depths in every}
    for depths in every[::17]:
        steps = np.array(depths)
        assert coverage.utility(steps) == pytest.approx(measured[depths][0])
        assert coverage.distinct(steps) == pytest.approx(measured[depths][1])
    timed = Cost(np.array([0.5, 0.1, 2.0]), np.array([0.2, 0.1, 0.05]), 0.3)
    for cost, budget in ((Cost.count(SOURCES), 6.0), (Cost.count(SOURCES), 3.0), (timed, 3.0)):

        def paid(depths: tuple[int, ...], cost: Cost = cost) -> float:
            own = sum(cost.fixed[s] + cost.each[s] * d for s, d in enumerate(depths) if d)
            return float(own + cost.distinct * measured[depths][1])

        best = max(measured[depths][0] for depths in every if paid(depths) <= budget)
        found = tuple(allocate(coverage, cost, budget).tolist())
        assert paid(found) <= budget
        assert measured[found][0] >= 0.85 * best  # whole depths leave some of the budget over
    assert allocate(coverage, timed, 0.01).tolist() == [0, 0, 0]
    assert brute(made, tuple(allocate(coverage, Cost.count(SOURCES), 99.0)), 4)[0] == pytest.approx(
        measured[5, 5, 5][0]
    )


def found(*positions: int) -> Found:
    return Found(np.array(positions, dtype=np.int64), np.ones(len(positions), dtype=np.float32))


def test_a_quota_takes_its_depths_and_fills_up_or_not() -> None:
    sources = {"two_tower": found(*range(20)), "clip": found(30, 31, 32), "popular": found(1, 40)}
    depths = {"two_tower": 2, "clip": 1, "popular": 2}
    assert sorted(merge(sources, Quota(depths, 10, fill=False)).positions.tolist()) == [0, 1, 30, 40]
    filled = merge(sources, Quota(depths, 7))
    assert sorted(filled.positions.tolist()) == [0, 1, 2, 3, 4, 30, 40]
    both = filled.positions.tolist().index(1)
    assert filled.sources_of(both) == ["two_tower", "popular"]
    assert Quota(depths, 10).within(5).depths == {"two_tower": 1, "clip": 0, "popular": 1}
    assert Quota(depths, 10, fill=False).within(20).depths == depths


def test_what_is_set_by_hand_goes_first_and_is_checked() -> None:
    names = ("two_tower", "clip", "popular")
    learned = LearnedQuota({OVERALL: Quota(dict.fromkeys(names, 3), 9)})
    ctx = None  # what is not learned does not look at the request
    by_hand = plan_of(learned, ("two_tower=8", " clip = 2 "), names, 12).of(ctx)  # type: ignore[arg-type]
    assert by_hand == Quota({"two_tower": 8, "clip": 2, "popular": 0}, 12)
    assert plan_of(learned, (), names, 12) is learned
    assert plan_of(learned, (), (*names, "query"), 12) == OneQuota()  # learned for other sources
    assert plan_of(None, (), names, 12) == OneQuota()
    with pytest.raises(AdstoolError, match="no source 'clop'") as caught:
        hand_set(("clop=3",), names, 9)
    assert "clip" in caught.value.hint
    for wrong in ("clip", "clip=few", "clip=-1", "clip="):
        with pytest.raises(AdstoolError, match="no source and number"):
            hand_set((wrong,), names, 9)


def test_a_request_gets_the_quota_of_its_segment(shop_copy: Workspace, settings: Settings) -> None:
    ranker = Ranker(shop_copy, settings)
    names = list(sources_of(ranker.index))
    state = ranker.index.state
    user = state.users.column("user_id")[int(np.argmax(np.diff(state.engagements.offsets)))].as_py()
    depths = dict.fromkeys(names, 2) | {"interests": 5, "clip": 0}
    with shop_copy.new_run(MODEL) as run:
        segment = {"home, no query, engaged before": {"requests": 9, "quotas": depths}}
        document = {"quotas": dict.fromkeys(names, 1), "segments": segment, "total": 40, "fill": False}
        write_json(run / FILE, document)
    assert ranker.refresh()
    request = Request.parse({"user_id": user, "surface": "home", "request_id": "q"}, 3)
    asked = ranker.ask(request)
    assert segment_of(asked.ctx) == "home, no query, engaged before"
    ranked = ranker.stages(request)
    assert {n: len(f.positions) for n, f in ranked.candidates.found.items()} == {
        name: min(depth, len(ranked.candidates.found[name].positions)) for name, depth in depths.items()
    }
    assert len(ranked.candidates.found["interests"].positions) == 5
    assert len(ranked.candidates.found["clip"].positions) == 0
    stranger = ranker.stages(dataclasses.replace(request, user_id="nobody"))
    assert max(len(f.positions) for f in stranger.candidates.found.values()) == 1
    assert len(retrieve(asked, 40)) > len(ranked.candidates)  # without a quota, equal shares filled up
    current = shop_copy.require_run(MODEL, "")
    (current / FILE).write_text('{"quotas": 3}')
    with pytest.raises(AdstoolError, match="no whole quota"):
        load_quota(shop_copy)
