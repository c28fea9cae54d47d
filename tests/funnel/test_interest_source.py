"""The candidate source `interests`, item by item."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adstool.config import Settings
from adstool.funnel.asked import DAY, FRESH_DAYS, QUERY_SHARE, RECENT_LIFT, Asked
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import SOURCES
from adstool.workspace import Workspace


@pytest.fixture(scope="module")
def ranker(shop: Workspace) -> Ranker:
    return Ranker(shop, Settings())


def expected(asked: Asked) -> dict[int, float]:
    """The score of every item that may be shown, by its position."""
    state, ctx = asked.state, asked.ctx
    recent = state.recent_categories(ctx)
    wanted = state.interests.of(ctx.user).astype(float) * (1 + RECENT_LIFT * np.log1p(recent))
    intent = state.interests.of_query(ctx.query, state.items.category_words)
    if intent is not None:
        wanted = (1 - QUERY_SHARE) * wanted + QUERY_SHARE * wanted.sum() * intent
    codes, popularity = state.items.categories[0], state.popularity()
    ranked = [asked.first_row + p for p in range(len(asked.eligible)) if codes[asked.first_row + p] >= 0]
    usual = np.mean([popularity[row] for row in ranked])
    scores = {}
    for position in np.flatnonzero(asked.eligible):
        row = asked.first_row + int(position)
        peers = [popularity[other] for other in ranked if codes[other] == codes[row]]
        within = (popularity[row] + usual) / (np.mean(peers) + usual)
        age = max((ctx.ts - int(asked.created[position])) / DAY, 0.0)
        score = wanted[codes[row]] * within * (1 + math.exp(-age / FRESH_DAYS))
        if score > 0:
            scores[int(position)] = float(score)
    return scores


@pytest.mark.parametrize("query", [None, "tent", "xyzzy"])
def test_items_come_by_the_categories_that_the_user_wants(ranker: Ranker, query: str | None) -> None:
    state = ranker.index.state
    busiest = int(np.argmax(np.diff(state.engagements.offsets)))
    for user in (str(state.users.column("user_id")[busiest].as_py()), "stranger"):
        asked = ranker.ask(Request.parse({"user_id": user, "query": query}, 5))
        wanted = expected(asked)
        found = SOURCES["interests"](asked, 1000)
        assert len(found.positions) == len(wanted) > 10
        assert found.scores == pytest.approx([wanted[int(p)] for p in found.positions], rel=1e-4)
        assert (np.diff(found.scores) <= 1e-9).all()
        assert SOURCES["interests"](asked, 3).positions.tolist() == found.positions[:3].tolist()


def test_a_query_brings_its_category_forward(ranker: Ranker) -> None:
    codes, names = ranker.index.state.items.categories
    gained = 0
    for query in names:
        places = []
        for text in (None, query):
            asked = ranker.ask(Request.parse({"user_id": "u1", "query": text}, 5))
            found = codes[asked.first_row + SOURCES["interests"](asked, 1000).positions]
            places.append(np.flatnonzero(found == names.index(query)))
        without, with_query = places
        if len(without):
            assert with_query[0] <= without[0]
            assert with_query.mean() <= without.mean()
            gained += with_query.mean() < without.mean()
    assert gained >= 3
