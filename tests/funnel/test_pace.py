"""A latency budget: what is left out when time is short, and nothing when there is none."""

import dataclasses

import pytest

from adstool.config import Settings
from adstool.funnel.pace import FIXED, Deadline, Pace
from adstool.funnel.rank import Ranker
from adstool.workspace import Workspace


def test_costs_are_learned_and_scaled_by_what_they_are_spent_on() -> None:
    pace = Pace()
    assert pace.cost("heavy") == 0.0
    assert pace.share("heavy", 0.0) == 1.0  # nothing is known yet
    for _ in range(400):
        pace.learn("heavy", 4.0 * (FIXED + (1 - FIXED) * 0.5), share=0.5)
    assert pace.cost("heavy") == pytest.approx(4.0)
    assert pace.cost("heavy", 0.0) == pytest.approx(4.0 * FIXED)
    assert pace.share("heavy", 4.0) == pytest.approx(1.0)
    assert pace.share("heavy", 4.0 * (FIXED + (1 - FIXED) * 0.25)) == pytest.approx(0.25)
    assert pace.share("heavy", 0.1) == 0.0
    pace.learn("heavy", 104.0)
    assert pace.cost("heavy") == pytest.approx(9.0)  # a twentieth of the way


def test_a_deadline_keeps_time_for_what_must_follow() -> None:
    pace = Pace()
    for stage, ms in (
        ("clip", 20.0),
        ("fresh", 0.1),
        ("lightweight", 5.0),
        ("heavy", 50.0),
        ("auction", 1.0),
    ):
        pace.learn(stage, ms)
    deadline = Deadline(pace, budget_ms=50.0)
    assert deadline.skips("clip")  # 20 + 5 + 50 · .65 + 1 > 50
    assert not deadline.skips("fresh")
    assert 60 < deadline.candidates(usual=200, least=10) < 200
    assert deadline.trimmed() == {"sources": ["clip"], "heavy": deadline.scored}
    late = Deadline(pace, budget_ms=0.001)
    assert late.candidates(usual=200, least=10) == 10
    free = Deadline(pace, budget_ms=0.0)
    assert not free.skips("clip")
    assert free.candidates(200, 10) == 200
    assert free.trimmed() == {}


def test_a_request_without_time_gets_a_slate_from_fewer_sources(shop: Workspace, settings: Settings) -> None:
    ranker = Ranker(shop, settings, strict=True)
    whole = ranker.rank({"user_id": "u1"}, explain=True)
    assert "trimmed" not in whole
    short = ranker.rank({"user_id": "u1"}, explain=True, budget_ms=0.01)
    assert len(short["ads"]) == len(whole["ads"])
    assert short["funnel"]["lightweight"] == short["trimmed"]["heavy"] == len(whole["ads"])
    assert {"clip", "interests", "exploration"} <= set(short["trimmed"]["sources"])
    assert short["funnel"]["sources"]["clip"] == 0
    assert short["funnel"]["sources"]["two_tower"] > 0
    funnel = dataclasses.replace(settings.funnel, budget_ms=0.01)
    assert "trimmed" in Ranker(shop, dataclasses.replace(settings, funnel=funnel)).rank({"user_id": "u1"})
