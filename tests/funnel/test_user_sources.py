"""The sources `conversion`, `retargeting`, `query` and `exploration`, against SQL and plain Python."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime

import numpy as np
import pytest

from adstool.config import Settings
from adstool.content.text import tokens
from adstool.funnel.asked import DAY, Asked
from adstool.funnel.exploration import PRIOR, outcomes
from adstool.funnel.query_text import WORDS
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.retargeting import HALF_LIFE_DAYS
from adstool.funnel.sources import SOURCES, sources_of
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


@pytest.fixture(scope="module")
def ranker(shop: Workspace, settings: Settings) -> Ranker:
    return Ranker(shop, settings)


def asked(ranker: Ranker, **fields: str) -> Asked:
    return ranker.ask(Request.parse({"user_id": "u1", **fields}, 5))


def column(one: Asked, name: str) -> list[str]:
    return list(one.state.items.column(name)[one.first_row : one.first_row + len(one.eligible)].to_pylist())


def test_retargeting_brings_advertisers_seen_off_site_before_the_request(
    shop: Workspace, settings: Settings, ranker: Ranker
) -> None:
    with open_warehouse(shop, settings, read_only=True) as con:
        seen = con.execute(
            "select user_id, advertiser_id, epoch_us(greatest(ts, reported_at)) from conversions"
        ).fetchall()
    users = sorted({user for user, _, _ in seen})
    for moment in (ranker.as_of, ranker.as_of - 2 * DAY):
        some = 0
        for user in users:
            one = asked(ranker, user_id=user, ts=datetime.fromtimestamp(moment / 1e6, UTC).isoformat())
            known = [(who, at) for name, who, at in seen if name == user and at < moment]
            weight: dict[str, float] = {}
            for who, at in known:
                weight[who] = weight.get(who, 0.0) + 0.5 ** ((moment - at) / DAY / HALF_LIFE_DAYS)
            found = SOURCES["retargeting"](one, 1000)
            advertiser, within = column(one, "advertiser_id"), one.state.popularity_within[one.first_row :]
            wanted = {
                place: weight[advertiser[place]] * within[place]
                for place in np.flatnonzero(one.eligible).tolist()
                if advertiser[place] in weight
            }
            assert dict(zip(found.positions.tolist(), found.scores, strict=True)) == pytest.approx(
                wanted, rel=1e-4
            )
            assert (np.diff(found.scores) <= 0).all()
            some += len(wanted) > 0
        assert some >= 3
    assert len(SOURCES["retargeting"](asked(ranker, user_id="nobody"), 9).positions) == 0


def test_conversion_searches_with_the_second_head(ranker: Ranker) -> None:
    one, tower = asked(ranker), ranker.towers["retrieval"]
    assert tower.outputs == ("engage", "convert")
    rows = np.arange(one.rows.start, one.rows.stop)
    inputs = one.state.inputs(tower.encoder, one.ctx, rows)
    scores = tower.item(inputs)[:, 1] @ tower.user(one.state.inputs(tower.encoder, one.ctx, rows[:1]))[0, 1]
    able = np.flatnonzero(one.eligible)
    found = SOURCES["conversion"](one, 9)
    assert found.positions.tolist() == able[np.argsort(-scores[able], kind="stable")][:9].tolist()
    assert found.scores == pytest.approx(scores[found.positions], abs=1e-5)
    assert found.positions.tolist() != SOURCES["two_tower"](one, 9).positions.tolist()
    without = dataclasses.replace(one, conversion=None)
    assert "conversion" not in sources_of(without)
    assert len(SOURCES["conversion"](without, 9).positions) == 0


def test_a_query_brings_what_holds_its_words_and_what_others_took_after_it(ranker: Ranker) -> None:
    state = ranker.index.state
    logged = str(state.queries.texts[len(state.queries) // 2].as_py())
    for text in (logged, "zebra " + str(column(asked(ranker), "category")[0])):
        one = asked(ranker, query=text)
        texts = zip(*(column(one, name) for name in ("title", "description", "category")), strict=True)
        held = [set(tokens(" ".join(filter(None, parts)))) for parts in texts]
        df = {word: max(sum(word in words for words in held), 1) for word in tokens(text)}
        rarity = {word: math.log1p(len(held) / count) for word, count in df.items()}
        whole = sum(rarity.values())
        share = [sum(r for word, r in rarity.items() if word in words) / whole for words in held]
        vector = state.queries.of(text)
        content = np.asarray(state.items.content[one.rows])
        if vector is None:
            holding = sorted(
                (p for p in np.flatnonzero(one.eligible).tolist() if share[p] > 0),
                key=lambda p: (-share[p], -one.popularity[p]),
            )
            vector = content[holding[:10]].mean(axis=0)
            vector /= np.linalg.norm(vector)
        scores = content @ vector + WORDS * np.array(share)
        found = SOURCES["query"](one, 8)
        able = np.flatnonzero(one.eligible)
        wanted = able[np.argsort(-scores[able], kind="stable")][:8]
        assert found.scores == pytest.approx(scores[wanted], abs=1e-4)
        assert found.scores == pytest.approx(scores[found.positions], abs=1e-4)
    assert len(SOURCES["query"](asked(ranker), 8).positions) == 0
    assert len(SOURCES["query"](asked(ranker, query="?!"), 8).positions) == 0


def test_a_query_vector_is_the_mean_of_what_was_engaged_with_after_it(
    shop: Workspace, settings: Settings, ranker: Ranker
) -> None:
    state = ranker.index.state
    with open_warehouse(shop, settings, read_only=True) as con:
        rows = con.execute(
            "with q as (select distinct request_id, query from events where query is not null) "
            "select q.query, item_type, item_id from events join q using (request_id) "
            "where action in ('click', 'long_click', 'save')"
        ).fetchall()
    for text in {query for query, _, _ in rows}:
        places = [int(state.items.rows([item], kind)[0]) for query, kind, item in rows if query == text]
        mean = np.asarray(state.items.content[places]).sum(axis=0)
        assert state.queries.of(text.upper()) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert state.queries.of("never asked") is None


def test_exploration_is_by_chance_of_the_request_alone_and_among_the_little_shown(ranker: Ranker) -> None:
    first, again, other = (asked(ranker, request_id=name) for name in ("a", "a", "b"))
    one, same, another = (SOURCES["exploration"](each, 6) for each in (first, again, other))
    assert one.positions.tolist() == same.positions.tolist()
    assert one.scores.tolist() == same.scores.tolist()
    assert one.positions.tolist() != another.positions.tolist()
    shown = first.outcomes.shown
    assert 0 < len(first.outcomes.little) < len(shown)
    assert (shown[one.positions] < shown.mean()).all()
    assert first.eligible[one.positions].all()


def test_exploration_draws_rates_from_what_is_believed(ranker: Ranker) -> None:
    # Two items of one category and nothing else: one shown 60 times for nothing, one never shown.
    one = asked(ranker)
    able = np.flatnonzero(one.eligible)[:2]
    shown, engaged = np.zeros(len(one.eligible), np.float32), np.zeros(len(one.eligible), np.float32)
    shown[able[0]] = 60.0
    shown[np.setdiff1d(np.arange(len(shown)), able)] = 1000.0
    engaged[shown == 1000.0] = 100.0
    known = outcomes(shown, engaged, np.zeros(len(shown), np.int32))
    assert known.usual[able] == pytest.approx([0.1, 0.1], rel=0.01)
    state = dataclasses.replace(one, outcomes=known)
    firsts = []
    for number in range(400):
        found = SOURCES["exploration"](dataclasses.replace(state, request_id=f"r{number}"), 2)
        assert sorted(found.positions.tolist()) == able.tolist()
        firsts.append(found.positions[0] == able[1])
    random = np.random.default_rng(0)
    never = random.beta(PRIOR * 0.1, PRIOR * 0.9, 100_000)
    often = random.beta(PRIOR * 0.1, PRIOR * 0.9 + 60, 100_000)
    category = state.state.items.categories[0][state.rows][able]
    if category[0] == category[1]:
        assert np.mean(firsts) == pytest.approx((never > often).mean(), abs=0.06)
    assert np.mean(firsts) > 0.5
