"""Whole requests on a small trained workspace, stage by stage against what the stages should have done."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.features.items import NO_TIME
from adstool.features.state import ServingState
from adstool.funnel.index import encode_corpus
from adstool.funnel.orders import Orders
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import SOURCES
from adstool.marketplace.auction import exposure_curve, run_auction
from adstool.serving.light import open_towers
from adstool.training.calibration import NAME as CALIBRATION
from adstool.training.calibration import Calibration, HeadCalibration
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


@pytest.fixture(scope="module")
def ranker(shop: Workspace, settings: Settings) -> Ranker:
    return Ranker(shop, settings)


def known_user(ranker: Ranker) -> str:
    """The user with most engagement."""
    state = ranker.index.state
    return str(state.users.column("user_id")[int(np.argmax(np.diff(state.engagements.offsets)))].as_py())


def test_the_slate_has_the_keys_of_the_contract(ranker: Ranker) -> None:
    slate = ranker.rank({"user_id": known_user(ranker), "surface": "home", "request_id": "q1"}, k=4)
    assert set(slate) == {"request_id", "user_id", "ads", "latency_ms"}
    assert slate["request_id"] == "q1"
    assert list(slate["latency_ms"]) == ["retrieval", "lightweight", "heavy", "auction", "total"]
    assert len(slate["ads"]) == 4
    for ad in slate["ads"]:
        assert set(ad) == {"ad_id", "score", "predictions", "bid", "price", "source"}
        assert set(ad["predictions"]) == {"click", "long_click", "save", "hide"}
        assert all(0 < p < 1 for p in ad["predictions"].values())
        assert ranker.settings.auction.reserve <= ad["price"] <= ad["bid"]
        assert ad["source"] in SOURCES
    scores = [ad["score"] for ad in slate["ads"]]
    assert scores == sorted(scores, reverse=True)
    assert len({ad["ad_id"] for ad in slate["ads"]}) == 4


def test_each_stage_does_what_its_name_says(ranker: Ranker, settings: Settings) -> None:
    request = Request.parse({"user_id": known_user(ranker), "surface": "search", "query": "red"}, 5)
    ranked = ranker.stages(request)
    state, corpus = ranker.index.state, ranker.index.corpus
    assert len(ranked.candidates) <= settings.funnel.retrieve
    assert len(ranked.kept) == settings.funnel.lightweight
    # The lightweight stage: the value of the tower's probabilities, pair by pair.
    tower = ranker.light
    user = tower.user(state.inputs(tower.encoder, ranked.ctx, np.array([corpus.first_row])))
    bids = ranker._now.bids
    assert bids is not None
    found = state.inputs(tower.encoder, ranked.ctx, ranked.rows(ranker.index))["numeric"]
    cross = found[:, tower.config["cross"]]
    values = []
    for place, position in enumerate(ranked.candidates.positions):
        item = corpus.lightweight[position][None]
        made = tower.probability(user, item, cross[place : place + 1])[0]
        p = dict(zip(tower.outputs, made, strict=True))
        utility = sum(action.weight * p[action.name] for action in settings.actions)
        values.append(bids[position] * p["click"] + settings.auction.utility_weight * utility)
    assert ranked.light == pytest.approx(values, rel=1e-4)
    assert set(ranked.kept.tolist()) == set(np.argsort(-np.array(values), kind="stable")[:20].tolist())
    # The heavy stage and the auction: the exported model on the same candidates, sold again.
    rows = ranked.candidates.positions[ranked.kept] + corpus.first_row
    predicted = ranker.heavy.predict(state.inputs(ranker.heavy.encoder, ranked.ctx, rows))
    assert ranked.probability == pytest.approx(predicted)
    utility = predicted @ np.array([action.weight for action in settings.actions])
    sold = run_auction(
        bids[rows - corpus.first_row],
        predicted[:, 0],
        exposure_curve(settings.formats[0], 5),
        bonus=settings.auction.utility_weight * utility,
        reserve=settings.auction.reserve,
        tie_break=rows,
    )
    assert ranked.chosen.tolist() == sold.winners.tolist()
    assert ranked.prices == pytest.approx(sold.prices)
    # With settings of load and diversity: at most three ads, one of an advertiser, two of a category.
    narrow = dataclasses.replace(settings.auction, most_ads=3, per_advertiser=1, per_category=2)
    ranker.settings = dataclasses.replace(settings, auction=narrow)
    try:
        ranked = ranker.stages(request)
    finally:
        ranker.settings = settings
    shown = ranked.rows(ranker.index)[ranked.kept][ranked.chosen]
    assert len(shown) == 3 == len(set(state.items.advertisers[0][shown]))
    assert np.unique(state.items.categories[0][shown], return_counts=True)[1].max() <= 2


def test_only_what_runs_can_be_shown(ranker: Ranker) -> None:
    state, first = ranker.index.state, ranker.index.corpus.first_row
    for days in (0.5, 3, 5):
        moment = datetime.fromtimestamp(ranker.as_of / 1e6, UTC) - timedelta(days=days)
        ranked = ranker.stages(Request.parse({"user_id": "u1", "ts": moment.isoformat()}, 5))
        allowed = set((state.eligible(moment) - first).tolist())
        assert 0 < len(allowed) < len(ranker.index.corpus)
        assert set(ranked.candidates.positions.tolist()) <= allowed


def test_fresh_items_are_the_newest_of_a_week(ranker: Ranker) -> None:
    asked = ranker.ask(Request.parse({"user_id": "u1"}, 5))
    days = (asked.ctx.ts - asked.created) / 86_400_000_000
    found = SOURCES["fresh"](asked, 4)
    wanted = sorted((p for p in np.flatnonzero(asked.eligible) if days[p] < 7), key=lambda p: (days[p], p))[
        :4
    ]
    assert found.positions.tolist() == wanted
    assert found.scores == pytest.approx(-days[wanted], abs=1e-4)
    unknown, n = np.full_like(asked.created, NO_TIME), len(asked.created)
    none, zeros = np.full(n, -1), np.zeros(n)
    orders = Orders.of(asked.popularity, unknown, none, none, zeros, zeros)
    ageless = dataclasses.replace(asked, created=unknown, orders=orders)
    assert len(SOURCES["fresh"](ageless, 4).positions) == 0  # what has no age is not new


def test_before_anything_existed_the_slate_is_empty_and_says_why(ranker: Ranker) -> None:
    slate = ranker.rank({"user_id": "u1", "ts": "2001-01-01"})
    assert slate["ads"] == []
    assert "no item can be shown" in slate["note"]


def test_an_unknown_user_gets_a_slate_and_a_note(ranker: Ranker) -> None:
    slate = ranker.rank({"user_id": "nobody has seen me"}, explain=True)
    assert len(slate["ads"]) == 5
    assert "unknown user" in slate["note"]
    assert slate["funnel"]["sources"]["clip"] == 0  # there is nothing to be a neighbour of
    assert slate["funnel"]["sources"]["semantic"] == 0
    assert slate["funnel"]["sources"]["popular"] > 0
    assert all(ad["why"] for ad in slate["ads"])


def test_clip_finds_neighbours_of_what_was_engaged(ranker: Ranker) -> None:
    request = Request.parse({"user_id": known_user(ranker)}, 5)
    asked = ranker.ask(request)
    engaged = asked.state.last_engaged(asked.ctx, 5)
    content = asked.state.items.content
    found = ranker.stages(request).candidates.found["clip"]
    near = (content[found.positions + asked.first_row] @ content[engaged].T).max(axis=1)
    assert len(engaged) > 0
    assert found.scores == pytest.approx(near, abs=1e-5)
    others = np.setdiff1d(np.flatnonzero(asked.eligible), found.positions)
    assert near.min() >= (content[others + asked.first_row] @ content[engaged].T).max() - 1e-5


def test_reasons_can_be_checked_against_the_log(ranker: Ranker) -> None:
    slate = ranker.rank({"user_id": known_user(ranker), "query": "zebra"}, explain=True)
    state = ranker.index.state
    ctx = ranker.ask(Request.parse({"user_id": known_user(ranker)}, 5)).ctx
    categories = state.items.column("category")
    recent = [categories[int(i)].as_py() for i in state.engagements.item[ctx.start : ctx.end][-50:]]
    said = 0
    for ad in slate["ads"]:
        category = categories[int(state.items.rows([ad["ad_id"]], "ad")[0])].as_py()
        wanted = f"engaged {recent.count(category)} × with {category}"
        assert (wanted in ad["why"]) == (category in recent)
        assert "words of the query" not in ad["why"]
        said += category in recent
    assert said


def test_a_weight_changes_the_order_without_a_new_index(shop: Workspace, settings: Settings) -> None:
    actions = tuple(dataclasses.replace(a, weight=1e6 if a.name == "hide" else 0.0) for a in settings.actions)
    hiding = Ranker(shop, dataclasses.replace(settings, actions=actions))
    ranked = hiding.stages(Request.parse({"user_id": "u2"}, 5))
    column = hiding.heavy.outputs.index("hide")
    order = np.argsort(-ranked.probability[:, column])
    assert ranked.chosen[0] == order[0]


def test_the_lightweight_ranker_is_calibrated_where_a_calibration_exists(
    shop_copy: Workspace, settings: Settings
) -> None:
    """By surface and by the vertical of each candidate, as the heavy one is; the index stays as it is."""
    before = Ranker(shop_copy, settings)
    index, light = before.index, before.light
    state, corpus = index.state, index.corpus
    ctx = state.request(known_user(before), None, "search")
    rows = np.arange(len(corpus)) + corpus.first_row
    user = light.user(state.inputs(light.encoder, ctx, rows[:1]))
    raw = light.score(state, ctx, user, np.asarray(corpus.lightweight), rows)
    verticals = state.items.column("vertical").to_pylist()
    one = next(name for name in verticals if name)
    codes = {name: light.encoder.vocabularies[name] for name in ("surface", "vertical")}
    lines = {
        "surface": {int(codes["surface"].code("search")): (1.0, -1.0)},
        "vertical": {int(codes["vertical"].code(one)): (1.0, 2.0)},
    }
    heads = tuple(HeadCalibration(lines=lines) for _ in light.outputs)
    Calibration(light.outputs, heads).save(shop_copy.require_run("lightweight", "") / CALIBRATION)
    found = Ranker(shop_copy, settings).light.score(state, ctx, user, np.asarray(corpus.lightweight), rows)
    shift = np.where([verticals[row] == one for row in rows], 1.0, -1.0)
    assert np.log(found / (1 - found)) == pytest.approx(np.log(raw / (1 - raw)) + shift[:, None], abs=1e-4)
    assert len(set(shift.tolist())) == 2


def test_a_past_moment_knows_only_its_past(shop: Workspace, settings: Settings) -> None:
    with open_warehouse(shop, settings, read_only=True) as con:
        ranker = Ranker(shop, settings, con)
        at = datetime.fromtimestamp(ranker.as_of / 1e6, UTC) - timedelta(days=2)
        index = ranker.index_at(at)
        fresh = ServingState.build(con, shop, settings, ranker.index.state.spec, ranker.index.state.items, at)
        corpus = encode_corpus(fresh, ranker.towers)
        assert index.state.as_of == fresh.as_of < ranker.as_of
        assert np.asarray(index.corpus.two_tower) == pytest.approx(corpus.two_tower, abs=1e-6)
        assert np.abs(index.corpus.two_tower - ranker.index.corpus.two_tower).max() > 1e-3
        slate = ranker.rank({"user_id": "u3"}, at=at)
        assert slate["ads"]
        assert ranker.index_at(at) is index  # made once


def test_pins_have_no_auction(shop_copy: Workspace, settings: Settings) -> None:
    from adstool.funnel.index import build_index
    from adstool.serving.export import export_run
    from adstool.training.train import TrainOptions, train_model

    pins = dataclasses.replace(settings, features=dataclasses.replace(settings.features, item_type="pin"))
    with open_warehouse(shop_copy, pins) as con:
        for name in ("retrieval", "lightweight", "engagement"):
            train_model(shop_copy, pins, con, name, TrainOptions("", {}, 1, 512, 0, None), export=export_run)
        with shop_copy.new_run("index") as run:
            assert build_index(shop_copy, pins, con, run)["item_type"] == "pin"
        ranker = Ranker(shop_copy, pins, con)
        slate = ranker.rank({"user_id": "u1"})
        assert {ad["bid"] for ad in slate["ads"]} == {ad["price"] for ad in slate["ads"]} == {None}
        utility = [sum(a.weight * ad["predictions"][a.name] for a in pins.actions) for ad in slate["ads"]]
        assert [ad["score"] for ad in slate["ads"]] == pytest.approx(utility)
        assert utility == sorted(utility, reverse=True)
        ranker.flush()
        assert con.execute("select count(*) from auctions").fetchall() == [(0,)]
        assert con.execute("select count(*) > 0 from funnel").fetchall() == [(True,)]


def test_the_log_holds_every_candidate_of_every_stage(shop_copy: Workspace, settings: Settings) -> None:
    with open_warehouse(shop_copy, settings) as con:
        ranker = Ranker(shop_copy, settings, con)
        slates = [
            ranker.rank({"user_id": f"u{n}", "request_id": f"q{n}", "surface": "home"}) for n in range(1, 6)
        ]
        waiting = ranker.log.pending
        assert ranker.flush() == waiting
        assert ranker.flush() == ranker.log.pending == 0
        counts = dict(
            con.execute("select stage, count(*) from funnel where request_id = 'q1' group by 1").fetchall()
        )
        ranked = ranker.stages(Request.parse({"user_id": "u1", "surface": "home"}, 5))
        assert counts == {
            "retrieval": len(ranked.candidates),
            "lightweight": len(ranked.candidates),
            "heavy": len(ranked.kept),
            "auction": 5,
        }
        # What one stage kept is what the next one got.
        lost = con.execute(
            "select count(*) from funnel a where kept and stage in ('retrieval', 'lightweight', 'heavy')"
            " and not exists (from funnel b where b.request_id = a.request_id and b.item_id = a.item_id"
            " and b.stage = case a.stage when 'retrieval' then 'lightweight' when 'lightweight' then 'heavy'"
            " else 'auction' end)"
        ).fetchall()
        assert lost == [(0,)]
        ranks = con.execute(
            "select count(*) from (select request_id, stage, count(distinct rank) as d, count(*) as n,"
            " max(rank) as m from funnel group by all) where d != n or m != n"
        ).fetchall()
        assert ranks == [(0,)]
        logged = con.execute(
            "select item_id, bid, score, price, ts from auctions where request_id = 'q2' order by slot"
        ).fetchall()
        shown = slates[1]["ads"]
        assert [row[:4] for row in logged] == [(a["ad_id"], a["bid"], a["score"], a["price"]) for a in shown]
        assert logged[0][4] == datetime.fromtimestamp(ranker.as_of / 1e6, UTC).replace(tzinfo=None)


def test_an_older_index_serves_on_and_says_so(
    shop_copy: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    folder = shop_copy.models / "lightweight"
    shutil.copytree(folder / "r1", folder / "r2")
    shop_copy.set_current("lightweight", "r2")
    with caplog.at_level("WARNING", logger="adstool"):
        assert Ranker(shop_copy, settings).rank({"user_id": "u1"})["ads"]
    assert "r2 is newer" in caplog.text
    shutil.rmtree(folder / "r1")
    with pytest.raises(AdstoolError, match="is gone"):
        Ranker(shop_copy, settings)


def test_what_is_missing_is_named_with_its_verb(shop_copy: Workspace, settings: Settings) -> None:
    (shop_copy.models / "engagement" / "current").unlink()
    with pytest.raises(AdstoolError) as missing:
        Ranker(shop_copy, settings)
    assert "adstool train engagement" in missing.value.hint
    (shop_copy.models / "index" / "r1" / "state" / "state.json").unlink()
    with pytest.raises(AdstoolError, match=r"state\.json"):
        Ranker(shop_copy, settings)


def test_index_vectors_are_those_of_the_towers(ranker: Ranker, shop: Workspace) -> None:
    index = ranker.index
    assert index.runs == {"retrieval": "r1", "lightweight": "r1"}
    assert len(index.corpus) == 60
    towers = open_towers({model: shop.require_run(model, "") for model in ("retrieval", "lightweight")})
    heads = index.corpus.two_tower, index.corpus.conversion
    for model, parts in (("retrieval", heads), ("lightweight", (index.corpus.lightweight,))):
        tower = towers[model]
        rows = np.array([3, 17]) + index.corpus.first_row
        inputs = index.state.inputs(tower.encoder, index.state.request("u1"), rows)
        vectors = np.concatenate([part[[3, 17]] for part in parts if part is not None], axis=1)
        assert vectors == pytest.approx(tower.item(inputs).reshape(2, -1), abs=1e-5)
        assert all(isinstance(part.base, np.memmap) for part in parts)
