"""Daily budgets: who has spent his is found by no source."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from adstool.config import Settings
from adstool.funnel.budgets import DAY, Budgets, Spending, charges
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import sources_of
from adstool.warehouse import open_warehouse, put_aside
from adstool.workspace import Workspace


def test_spending_is_of_the_day_and_up_to_the_moment() -> None:
    spending, daily = Spending(), {"a": 1.0, "b": 2.0}
    spending.add(5, "a", 9.0)  # of a day that was not begun
    assert not spending.knows(5)
    spending.start(5, [(1, "a", 0.6), (9, "b", 2.5), (3, "unlimited", 1e9)])
    assert spending.over(8, daily) == frozenset()
    assert spending.over(9, daily) == {"b"}
    spending.add(10, "a", 0.4)
    assert spending.over(10, daily) == {"a", "b"}
    assert spending.over(9, daily) == {"b"}  # an earlier moment does not know
    spending.add(10, "a", -0.4)  # taken back
    assert spending.over(10, daily) == {"b"}
    assert spending.over(DAY + 10, daily) == frozenset()


class Items:
    def column(self, name: str) -> pa.Array:
        budgets = [3.0, 3.0, None, None, 1.0, None]
        return pa.array(budgets if name == "daily_budget" else ["a", "a", "b", None, "c", "a"])


def test_all_items_of_a_campaign_go_with_it() -> None:
    budgets = Budgets(Items(), slice(1, 6))  # type: ignore[arg-type]
    assert budgets.daily == {"a": 3.0, "c": 1.0}
    eligible = np.array([True, True, True, True, False])
    assert budgets.without(eligible, frozenset()) is eligible
    left = budgets.without(eligible, frozenset({"a", "c", "gone"}))
    assert left.tolist() == [False, True, True, False, False]
    assert eligible.tolist() == [True, True, True, True, False]
    assert budgets.without(eligible, frozenset({"a", "c", "gone"})) is left


def test_a_campaign_is_shown_until_its_budget_is_spent(shop_copy: Workspace, settings: Settings) -> None:
    ranker = Ranker(shop_copy, settings)
    state = ranker.index.state
    slate = ranker.rank({"user_id": "u1", "request_id": "first"})
    winner = slate["ads"][0]
    row = int(state.items.rows([winner["ad_id"]], "ad")[0])
    campaign, budget = (state.items.column(name)[row].as_py() for name in ("campaign_id", "daily_budget"))
    assert budget > 0
    charged = {ad["ad_id"]: ad["price"] * ad["predictions"]["click"] for ad in slate["ads"]}
    with open_warehouse(shop_copy, settings) as con:
        ranker.flush(con)
        rows = con.execute("select item_id, cost from auctions where request_id = 'first'").fetchall()
        assert dict(rows) == pytest.approx(charged)
        moment = datetime.fromtimestamp(ranker.as_of / 1e6, UTC).replace(tzinfo=None)
        add = "insert into auctions (request_id, ts, item_id, cost) values ('q', ?, ?, ?)"
        con.execute(add, [moment, winner["ad_id"], budget])
    again = Ranker(shop_copy, settings)  # reads what was spent before
    request = Request.parse({"user_id": "u1"}, 5)
    asked = again.ask(request)
    same = np.array([name == campaign for name in state.items.column("campaign_id")[asked.rows].to_pylist()])
    assert not asked.eligible[same].any()
    assert asked.eligible.sum() == ranker.ask(request).eligible[~same].sum() > 0
    for name, source in sources_of(asked).items():
        assert not same[source(asked, 60).positions].any(), name
    assert campaign not in {
        state.items.column("campaign_id")[int(state.items.rows([ad["ad_id"]], "ad")[0])].as_py()
        for ad in again.rank(request)["ads"]
    }
    # Slots that are put aside while another reads the warehouse are charged, too.
    with open_warehouse(shop_copy, settings) as con:
        con.execute("delete from auctions")
        sold = {"request_id": ["q"], "ts": pa.array([moment], pa.timestamp("us"))}
        put_aside(shop_copy, {"auctions": pa.table({**sold, "item_id": [winner["ad_id"]], "cost": [budget]})})
        assert charges(shop_copy, settings, con, ranker.as_of) == [(ranker.as_of, campaign, budget)]
        assert charges(shop_copy, settings, con, ranker.as_of + DAY) == []
    # The next day begins anew; a ranker that only looks charges and excludes nobody.
    tomorrow = Request.parse({"user_id": "u1", "ts": (ranker.as_of + DAY) // 1_000_000}, 5)
    assert again.ask(tomorrow).eligible[same].sum() == ranker.ask(tomorrow).eligible[same].sum()
    assert Ranker(shop_copy, settings, strict=True).ask(request).eligible[same].any()
