"""`adstool quota`: on the small shop, as a process and as a user of the library."""

from __future__ import annotations

import numpy as np
import pytest
from support import cli_json

from adstool.config import Settings
from adstool.errors import DataError, UsageError
from adstool.evaluation.quota import by_hand, learn_quota, split
from adstool.evaluation.quota_replay import ranks_in, sample
from adstool.evaluation.sections_quota import quota_section
from adstool.funnel.quota import LearnedQuota
from adstool.funnel.quota_learning import FAR, Replayed
from adstool.funnel.rank import Ranker
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def test_ranks_are_of_the_lists() -> None:
    lists = [np.array([7, 2, 9]), np.array([2])]
    assert ranks_in(lists, np.array([2, 5, 7, 9])).tolist() == [[2, FAR, 1, 3], [1, FAR, FAR, FAR]]


def test_a_user_is_on_one_side() -> None:
    nothing = np.zeros(0)
    made = [Replayed(f"u{n % 30}", "s", nothing, nothing, nothing, nothing) for n in range(90)]
    learn, held = split(made)
    assert sorted(learn + held) == list(range(90))
    assert {made[p].user for p in learn} & {made[p].user for p in held} == set()
    assert min(len(learn), len(held)) > 20


def test_quotas_are_learned_compared_and_put_in_use(shop_copy: Workspace, settings: Settings) -> None:
    result = cli_json("--workspace", shop_copy.root, "quota", "--requests", "80")
    assert {"quotas", "expected_utility", "segments", "curves", "compared", "latency", "data"} <= set(result)
    assert result["run_id"] == "r1"
    assert result["data"]["learned_from"] + result["data"]["compared_on"] == 80
    for row in result["compared"]:
        learned, equal = row["policies"]["learned"], row["policies"]["equal"]
        assert learned["candidates"] == equal["candidates"] <= row["budget"]  # at the same cost
        assert learned["slate_interval"][0] <= learned["slate"] <= learned["slate_interval"][1]
        assert 0.5 < learned["of_the_best_slate"] <= 1.0 + 1e-9
    assert result["compared"][0]["learned_against"]["equal"]["slate"] > 0  # of five candidates, better ones
    for name, one in result["curves"]["sources"].items():
        assert (np.diff(one["alone"]) >= 0).all(), name
        assert one["alone"][0] == 0.0
        assert one["alone"][-1] <= 1.0 + 1e-9
    ranker = Ranker(shop_copy, settings)
    assert isinstance(ranker.plan, LearnedQuota)
    assert ranker.plan.segments["overall"].depths == result["quotas"]
    assert "Marginal utility by depth" in quota_section(shop_copy)


def test_a_budget_of_time_is_kept(shop_copy: Workspace, settings: Settings) -> None:
    with open_warehouse(shop_copy, settings, read_only=True) as con:
        result = learn_quota(shop_copy, settings, con, budget_ms=0.8, requests=40)
        for row in result["compared"]:
            for name, one in row["policies"].items():
                assert one["ms"] <= row["budget"] * 1.15, name  # requests held out have other candidates
        assert not result["fill"]
        with pytest.raises(UsageError, match="ms no source"):
            learn_quota(shop_copy, settings, con, budget_ms=1e-6, requests=20)
        with pytest.raises(DataError, match="too few"):
            sample(con, "pin", 5, 3)
    hand = by_hand(settings, ("two_tower", "clip", "a new one"), 100)
    assert hand.depths == {"two_tower": 70, "clip": 20, "a new one": 10}
