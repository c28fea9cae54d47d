"""Bidders against fixed points worked out by hand, and budgets against one sale after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adstool.errors import AdstoolError, UsageError
from adstool.marketplace.bidding import Bidder, Campaigns, Delivery, load_state, save_state
from adstool.marketplace.pacing import Ledger, TrafficProfile
from adstool.marketplace.strategies import STRATEGIES, make_bidder

# Prices uniform on (0, 1), every event worth 1, a thousand a day: a bid b <= 1 wins b of them for b^2 / 2.
EVENTS = 1000.0
#                       budget 80   target 2.5   both, budget binds   both, target binds
ASKED = Campaigns(
    bid=np.array([0.2, 0.9, 0.9, 0.3]),
    budget=np.array([80.0, np.inf, 80.0, 400.0]),
    target=np.array([0.0, 2.5, 2.5, 2.5]),
)
BUDGET_BID = 0.4  # 1000 b^2 / 2 = 80
TARGET_BID = 0.8  # b / (b^2 / 2) = 2.5
BEST = np.array([BUDGET_BID, TARGET_BID, BUDGET_BID, TARGET_BID])


def uniform_days(bidder: Bidder, days: int, hours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spend and value of each campaign over the days after the first, expected values throughout."""
    everyone = np.arange(len(bidder.campaigns))
    spend, value = np.zeros(len(everyone)), np.zeros(len(everyone))
    for day in range(days):
        bidder.new_day()
        for share in hours:
            bids = np.minimum(bidder.bids(np.ones(len(everyone)), everyone), 1.0)
            step = Delivery(share, EVENTS * share * bids**2 / 2, EVENTS * share * bids)
            bidder.observe(step)
            if day:
                spend, value = spend + step.spend, value + step.value
    return spend / (days - 1), value / (days - 1)


@pytest.mark.parametrize("rhythm", ["flat", "daily"])
@pytest.mark.parametrize("name", ["pid", "dual"])
def test_budget_and_target_have_the_fixed_points_of_theory(name: str, rhythm: str) -> None:
    hours = np.full(96, 1 / 96) if rhythm == "flat" else 1.2 + np.sin(np.linspace(0, 2 * np.pi, 96))
    bidder = make_bidder(name, ASKED)
    spend, value = uniform_days(bidder, 4, hours / hours.sum())
    tolerance = 0.01 if name == "dual" else 0.04
    assert bidder.bids(np.ones(4), np.arange(4)) == pytest.approx(BEST, rel=tolerance)
    assert spend[[0, 2]] == pytest.approx([80, 80], rel=tolerance)
    assert value[[1, 3]] / spend[[1, 3]] == pytest.approx([2.5, 2.5], rel=tolerance)


def test_strategies_without_feedback_bid_by_their_formula() -> None:
    campaigns = Campaigns(np.array([0.5, 2.0]), np.array([np.inf, 9.0]), np.zeros(2))
    value, campaign = np.array([[3.0, 3.0], [0.0, 1.0]]), np.array([[0, 1], [0, 1]])
    assert make_bidder("fixed", campaigns).bids(value, campaign).tolist() == [[0.5, 2], [0.5, 2]]
    assert make_bidder("linear", campaigns).bids(value, campaign).tolist() == [[1.5, 6], [0, 2]]
    # c = 1, slope 1 and 4: sqrt(3 + 1) - 1, sqrt(12 + 1) - 1, 0, sqrt(4 + 1) - 1.
    ortb = make_bidder("ortb", campaigns).bids(value, campaign)
    assert ortb == pytest.approx(np.array([[1, 13**0.5 - 1], [0, 5**0.5 - 1]]))


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_restart_changes_nothing(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    steps = [Delivery(0.01, rng.random(4), rng.random(4)) for _ in range(40)]
    through, before = make_bidder(name, ASKED), make_bidder(name, ASKED)
    for step in steps[:20]:
        through.observe(step)
        before.observe(step)
    save_state(tmp_path / "state.npz", {"bidder": before.state()})
    after = make_bidder(name, ASKED)
    after.restore(load_state(tmp_path / "state.npz").get("bidder", {}))
    for step in steps[20:]:
        through.observe(step)
        after.observe(step)
    value, campaign = rng.random(4), np.arange(4)
    assert after.bids(value, campaign).tolist() == through.bids(value, campaign).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    few = Campaigns(np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(AdstoolError, match="does not fit"):
        make_bidder("dual", ASKED).restore(make_bidder("dual", few).state())
    with pytest.raises(AdstoolError, match="does not fit"):
        Ledger(np.ones(3)).restore(Ledger(np.ones(2)).state())
    (tmp_path / "state.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(AdstoolError, match="no state of bidding"):
        load_state(tmp_path / "state.npz")
    with pytest.raises(UsageError, match="psychic"):
        make_bidder("psychic", ASKED)
    with pytest.raises(AdstoolError, match="above 0"):
        Campaigns(np.ones(1), np.zeros(1), np.ones(1))


def test_traffic_has_the_shares_of_the_hours() -> None:
    counts = np.zeros((2, 24))
    counts[:, 12], counts[:, 20] = 30, 10
    profile = TrafficProfile.of_counts(counts, prior=0.0)
    assert profile.share(12, 13) == pytest.approx(0.75)
    assert profile.share(0, 12.5) == pytest.approx(0.375)
    assert profile.share(20.5, 24) == pytest.approx(0.125)
    assert TrafficProfile.flat().share(6, 12) == pytest.approx(0.25)
    with pytest.raises(AdstoolError, match="24"):
        TrafficProfile.of_counts(np.ones(7))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 5)), max_size=30),
    st.lists(st.floats(0.1, 12), min_size=3, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_a_chunk_of_sales_is_granted_as_one_after_the_other(
    sales: list[tuple[int, float]], budget: list[float]
) -> None:
    campaign = np.array([sale[0] for sale in sales], dtype=int)
    amount = np.array([sale[1] for sale in sales])
    ledger = Ledger(np.array(budget))
    granted = ledger.reserve(campaign, amount)
    left, stopped = list(budget), set()
    for which, (number, money) in enumerate(sales):
        if money > left[number] + 1e-9:
            stopped.add(number)
        assert granted[which] == (number not in stopped)
        left[number] -= money if granted[which] else 0.0
    assert ledger.left() == pytest.approx(np.maximum(left, 0), abs=1e-9)


@pytest.mark.parametrize("late", [0, 3, 50])
def test_budgets_hold_while_reports_are_late(late: int) -> None:
    """Views are sold in chunks; clicks, paid at full price, are reported `late` chunks afterwards."""
    rng = np.random.default_rng(late)
    budget, rate, most = np.full(50, 100.0), 0.2, 2.0
    spent = {}
    for held in ("price", "expected"):
        ledger, waiting = Ledger(budget), []
        for _ in range(400):
            campaign = rng.integers(0, 50, 200)
            price = rng.uniform(0.5, most, 200)
            amount = price if held == "price" else price * rate
            granted = ledger.reserve(campaign, amount)
            clicked = rng.random(granted.sum()) < rate
            waiting.append((campaign[granted], amount[granted], price[granted] * clicked))
            if len(waiting) > late:
                ledger.settle(*waiting.pop(0))
        for report in waiting:
            ledger.settle(*report)
        spent[held] = ledger.spent
        assert ledger.reserved == pytest.approx(np.zeros(50), abs=1e-9)
    assert (spent["price"] <= budget + 1e-9).all()
    # A hundred clicks' worth at the most is outstanding: five deviations of what it brings beyond that.
    assert (spent["expected"] <= budget + 5 * most * np.sqrt(100 * rate)).all()
    assert np.mean(spent["expected"] / budget) == pytest.approx(1.0, abs=0.07)
