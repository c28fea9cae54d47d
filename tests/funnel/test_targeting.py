"""Targeting: campaigns that name whom they want are found by no source for anybody else."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from adstool.config import Settings
from adstool.funnel.index import build_index
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.targeting import parse_rule
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"country": ["NL", "BE"]}', {"country": {"NL", "BE"}}),
        ('{"gender": "f", "surface": ["search"]}', {"gender": {"f"}, "surface": {"search"}}),
        ("{}", {}),
        ('{"country": []}', {"country": set()}),  # who names nobody reaches nobody
        ('{"planet": ["Mars"]}', None),
        ('{"country": [7]}', None),
        ('{"country": {"NL": 1}}', None),
        ('["NL"]', None),
        ("broken", None),
    ],
)
def test_rules_are_read_or_refused(text: str, rule: dict[str, set[str]] | None) -> None:
    assert parse_rule(text) == rule


def test_each_request_sees_what_wants_to_be_seen_by_it(
    shop_copy: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Every third campaign targets a country, every third a surface, one says what nobody understands."""
    with open_warehouse(shop_copy, settings) as con:
        campaigns = [c for (c,) in con.execute("select campaign_id from campaigns order by 1").fetchall()]
        users = con.execute("select user_id, country, gender from users order by 1 limit 25").fetchall()
        _, country, gender = users[0]
        aims = {campaigns[0]: {"planet": ["Mars"]}}
        aims |= {c: {"country": [country], "gender": [gender]} for c in campaigns[1::3]}
        aims |= {c: {"surface": ["search"]} for c in campaigns[2::3]}
        for campaign, aim in aims.items():
            document = json.dumps({"targeting": aim})
            con.execute("update campaigns set attributes = ? where campaign_id = ?", [document, campaign])
        with caplog.at_level(logging.WARNING), shop_copy.new_run("index") as run:
            build_index(shop_copy, settings, con, run)
    assert f"targeting of campaign {campaigns[0]} cannot be read" in caplog.text
    ranker = Ranker(shop_copy, settings, strict=True)
    state, first = ranker.index.state, ranker.index.corpus.first_row
    campaign_of = state.items.column("campaign_id").to_pylist()[first : first + ranker.items]
    seen = set()
    for user, country, gender in [*users, ("nobody", None, None)]:
        for surface in ("home", "search"):
            about = {"country": country, "gender": gender, "surface": surface}
            asked = ranker.ask(Request.parse({"user_id": user, "surface": surface}, 5))
            fits = [
                all(about.get(field) in values for field, values in aims.get(campaign, {}).items())
                for campaign in campaign_of
            ]
            running = ranker._now.eligible(asked.ctx.ts)
            np.testing.assert_array_equal(asked.eligible, running & np.array(fits))
            ranked = ranker.stages(Request.parse({"user_id": user, "surface": surface}, 5))
            assert asked.eligible[ranked.candidates.positions].all()
            seen |= {campaign_of[p] for p in ranked.candidates.positions.tolist()}
    assert campaigns[0] not in seen
    assert seen & set(campaigns[1::3])
    assert seen & set(campaigns[2::3])
