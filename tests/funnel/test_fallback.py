"""Requests while stages fail: what answers, in which order, and what the slate says about it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.features.state import ServingState
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import SOURCES
from adstool.serving.light import LightScorer
from adstool.serving.scorer import Scorer
from adstool.workspace import Workspace

REQUEST = Request("u1", "home", None, None, "q", 4)


def broken(*_: object, **__: object) -> Any:
    raise RuntimeError("no\n memory")


@pytest.fixture
def ranker(shop: Workspace, settings: Settings) -> Ranker:
    return Ranker(shop, settings)


def stages(slate: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["stage"], one["served"]) for one in slate["fallbacks"]]


def logged(ranker: Ranker) -> list[str]:
    return [stage.stage for stage in ranker.log._entries[-1].stages]


def test_without_the_heavy_ranker_the_lightweight_one_predicts_and_sells(
    shop_copy: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The session itself is broken: the file of the graph is damaged."""
    (shop_copy.require_run("engagement", "") / "model.onnx").write_bytes(b"not a graph")
    ranker = Ranker(shop_copy, settings)
    slate = ranker.rank(REQUEST)
    again = ranker.rank(REQUEST)
    assert stages(slate) == stages(again) == [("heavy", "the lightweight ranker's order")]
    assert "model.onnx cannot be loaded" in slate["fallbacks"][0]["reason"]
    assert sum("heavy failed" in record.getMessage() for record in caplog.records) == 1
    ranked = ranker.stages(REQUEST)
    tower = ranker.towers["lightweight"]
    assert ranked.heads == tower.outputs
    assert ranked.score == pytest.approx(ranked.light[ranked.kept])
    assert ranked.chosen.tolist() == [0, 1, 2, 3]  # in the lightweight ranker's order
    assert len(slate["ads"]) == 4
    for ad in slate["ads"]:
        assert set(ad["predictions"]) == set(tower.outputs)
        assert settings.auction.reserve <= ad["price"] <= ad["bid"]
    assert logged(ranker) == ["retrieval", "lightweight", "auction"]
    strict = Ranker(shop_copy, settings, strict=True)
    with pytest.raises(AdstoolError, match="cannot be loaded"):
        strict.rank(REQUEST)


def test_without_the_lightweight_ranker_the_heavy_one_gets_what_sources_rank_first(
    ranker: Ranker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ranker.stages(REQUEST)
    monkeypatch.setattr(LightScorer, "probability", broken)
    slate = ranker.rank(REQUEST)
    assert stages(slate) == [("lightweight", "the order of the sources")]
    assert slate["fallbacks"][0]["reason"] == "RuntimeError: no memory"
    assert logged(ranker) == ["retrieval", "heavy", "auction"]
    ranked = ranker.stages(REQUEST)
    assert ranked.kept.tolist() == list(range(settings.funnel.lightweight))
    heavy = dict(zip(usual.rows(ranker.index)[usual.kept].tolist(), usual.score.tolist(), strict=True))
    rows = ranked.rows(ranker.index)[ranked.kept].tolist()
    both = [place for place, row in enumerate(rows) if row in heavy]
    assert len(both) > 3
    assert ranked.score[both] == pytest.approx([heavy[rows[place]] for place in both])


def test_without_any_ranker_the_order_of_the_sources_is_shown_at_the_reserve(
    ranker: Ranker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LightScorer, "probability", broken)
    monkeypatch.setattr(Scorer, "predict_worth", broken)
    slate = ranker.rank(REQUEST)
    assert stages(slate) == [
        ("lightweight", "the order of the sources"),
        ("heavy", "the order of the sources"),
    ]
    ranked = ranker.stages(REQUEST)
    items = ranker.index.state.items.column("item_id")
    first = [items[row].as_py() for row in ranked.rows(ranker.index)[:4].tolist()]
    assert [ad["ad_id"] for ad in slate["ads"]] == first
    assert {ad["price"] for ad in slate["ads"]} == {settings.auction.reserve}
    assert [ad["predictions"] for ad in slate["ads"]] == [{}] * 4
    json.dumps(slate, allow_nan=False)


def test_a_source_that_fails_leaves_the_others(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ranker.stages(REQUEST)
    monkeypatch.setitem(SOURCES, "clip", broken)
    assert stages(ranker.rank(REQUEST)) == [("clip", "the other sources")]
    monkeypatch.setattr(type(ranker.index.two_tower), "search", broken)
    slate = ranker.rank(REQUEST)
    assert stages(slate) == [(name, "the other sources") for name in ("two_tower", "conversion", "clip")]
    assert logged(ranker) == ["retrieval", "lightweight", "heavy", "auction"]
    ranked = ranker.stages(REQUEST)
    assert len(ranked.candidates) == len(usual.candidates)  # popular ones fill the gap
    for name in SOURCES:
        monkeypatch.setitem(SOURCES, name, broken)
    ranked = ranker.stages(REQUEST)
    asked = ranker.ask(REQUEST)
    order = [p for p in np.argsort(-asked.popularity, kind="stable").tolist() if asked.eligible[p]]
    assert ranked.candidates.positions.tolist() == order[: ranker.settings.funnel.retrieve]
    assert len(ranker.rank(REQUEST)["ads"]) == 4


def test_a_user_who_cannot_be_read_is_served_as_unknown(
    ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServingState, "request", broken)
    slate = ranker.rank(REQUEST, explain=True)
    assert stages(slate) == [("user", "as an unknown user")]
    assert "unknown user" in slate["note"]
    assert slate["funnel"]["sources"]["clip"] == 0
    assert len(slate["ads"]) == 4


def test_everything_about_users_may_fail(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input of any model can be made: counters gone, for instance."""
    monkeypatch.setattr(ServingState, "inputs", broken)
    slate = ranker.rank(REQUEST)
    assert [stage for stage, _ in stages(slate)] == ["two_tower", "lightweight", "heavy"]
    assert len(slate["ads"]) == 4


def test_predictions_that_are_no_numbers_are_a_failure(
    ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(scorer: Scorer, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        wrong = np.full((len(inputs["categorical"]), len(scorer.outputs)), np.nan)
        return wrong, wrong

    monkeypatch.setattr(Scorer, "predict_worth", nonsense)
    slate = ranker.rank(REQUEST)
    assert "no number" in slate["fallbacks"][0]["reason"]
    json.dumps(slate, allow_nan=False)
