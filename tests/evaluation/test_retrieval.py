"""Recall of sources from lists written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adstool.config import load_settings
from adstool.evaluation.context import Evaluation
from adstool.evaluation.retrieval import judge, quantiles
from adstool.evaluation.visits import Past, Wanted, cut
from adstool.funnel.asked import Found
from adstool.funnel.sources import SOURCES
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def _found(positions: list[int]) -> Found:
    return Found(np.array(positions, dtype=np.int64), np.zeros(len(positions), dtype=np.float32))


def _wanted(positions: list[int], new: list[bool], fresh: list[int]) -> Wanted:
    places = np.array(positions, dtype=np.int64)
    return Wanted(places, np.array(new, dtype=bool), np.isin(places, fresh))


@pytest.fixture
def stage(make_evaluation: Any) -> dict[str, Any]:
    tower = list(range(100, 160))
    found = [
        {
            "two_tower": _found([1, 2, *tower]),
            "clip": _found([2, 3]),
            "semantic": _found([2]),
            "popular": _found([50]),
            "fresh": _found([7]),
        },
        {
            "two_tower": _found([*tower, 9]),
            "clip": _found([]),
            "interests": _found([3]),
            "popular": _found([50, 4]),
            "fresh": _found([7, 8]),
        },
    ]
    found = [{name: one.get(name, _found([])) for name in SOURCES} for one in found]
    wanted = [
        _wanted([1, 3, 50, 999], [False, True, False, True], fresh=[1, 999]),
        _wanted([9, 8], [False, True], fresh=[9]),
    ]
    times = {name: [1.0, 3.0] for name in SOURCES}
    return judge(found, wanted, times, 80.0, make_evaluation())


def test_recall_counts_every_wanted_item_once(stage: dict[str, Any]) -> None:
    sources = stage["sources"]
    assert stage["wanted"] == 6
    assert stage["ks"] == [10, 50]  # 100 would take in the whole corpus of 80
    assert sources["two_tower"]["recall@10"] == pytest.approx(1 / 6)  # item 9 is 61st
    assert sources["clip"]["recall@10"] == pytest.approx(1 / 6)
    assert sources["popular"]["recall@50"] == pytest.approx(1 / 6)
    assert sources["fresh"]["recall@10"] == pytest.approx(1 / 6)
    assert sources["two_tower"]["candidates"] == pytest.approx((62 + 61) / 2)
    assert sources["popular"]["ms"]["p50"] == 2.0


def test_unique_and_new_items(stage: dict[str, Any]) -> None:
    sources = stage["sources"]
    # Nobody else had 1, 3, 50 or 8; items 2 and the second user's 3 were wanted by nobody.
    unique = {name: sources[name]["unique"] for name in SOURCES}
    some = {name: value for name, value in unique.items() if value}
    assert some == {name: pytest.approx(1 / 6) for name in ("two_tower", "clip", "popular", "fresh")}
    assert stage["cold_wanted"] == 3
    assert sources["clip"]["cold_recall"] == pytest.approx(1 / 3)
    assert sources["two_tower"]["cold_recall"] == 0.0
    assert stage["merged"]["cold_recall"] == pytest.approx(2 / 3)
    assert stage["fresh_wanted"] == 3
    assert sources["two_tower"]["fresh_recall@10"] == pytest.approx(1 / 3)  # item 9 is 61st
    assert sources["clip"]["fresh_recall@50"] == 0.0


def test_all_together_keep_to_the_number_of_candidates(stage: dict[str, Any]) -> None:
    # Ten candidates: one from each source that has one, the rest from the towers: 1 and 50 are inside. Among
    # fifty, with eight from each, are 3 and 8 too.
    assert stage["merged"]["recall@10"] == pytest.approx(2 / 6)
    assert stage["merged"]["recall@50"] == pytest.approx(4 / 6)
    assert stage["merged"]["candidates"] == 50
    low, high = stage["merged"]["intervals"]["recall@10"]
    assert low <= 2 / 6 <= high


def test_nothing_wanted_gives_no_figure(make_evaluation: Any) -> None:
    found = [{name: _found([1]) for name in SOURCES}]
    stage = judge(found, [_wanted([], [], [])], {name: [] for name in SOURCES}, 5.0, make_evaluation())
    assert stage["wanted"] == 0

    assert np.isnan(stage["merged"]["recall@2"])
    assert quantiles([]) == {}


def test_what_is_converted_on_is_of_advertisers_the_user_converted_at(shop: Workspace) -> None:
    settings = load_settings(shop.config, environment={})
    with open_warehouse(shop, settings, read_only=True) as con:
        evaluation = Evaluation(shop, settings, con)
        past = Past(evaluation)
        requests, wanted = past.converted()
        pairs = set(con.execute("select user_id, advertiser_id from conversions").fetchall())
        clicked = set(
            con.execute(
                "select user_id, item_id from events where action = 'click' and ts >= ?",
                [cut(evaluation).replace(tzinfo=None)],
            ).fetchall()
        )
    items = past.index.state.items
    by_click = 0
    for request, one in zip(requests, wanted, strict=True):
        rows = (one.positions + past.rows.start).tolist()
        assert rows
        for row in rows:
            advertiser, item = (items.column(n)[row].as_py() for n in ("advertiser_id", "item_id"))
            assert (request.user_id, advertiser) in pairs
            by_click += (request.user_id, item) in clicked
    assert by_click >= 3  # the others are credited to views
