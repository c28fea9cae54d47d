"""The simulated market: request by request what the auction says, money conserved, two equal arms equal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from adstool.marketplace.auction import run_auction
from adstool.marketplace.automatic import Bidding
from adstool.marketplace.chance import CLICK, dice
from adstool.marketplace.formats import Block, lifted
from adstool.marketplace.market import FIXED, MONEY, Advertised, Market, Outcomes, Visits, draw_visits
from adstool.marketplace.simulation import Delivered, Terms, simulate_days

ACTIONS = ("click", "hide")
PAGE = (Block("standard", np.array([1.0, 0.6, 0.3]), "gsp"),)
TERMS = Terms(PAGE, reserve=0.05, utility_weight=0.1)


def small_market(requests: int = 300, candidates: int = 6, ads: int = 12, seed: int = 0) -> Market:
    rng = np.random.default_rng(seed)
    ad = np.sort(np.argsort(rng.random((requests, ads)), axis=1)[:, :candidates], axis=1).astype(np.int32)
    actions = rng.beta(2, 12, (requests, candidates, 2)).astype(np.float32)
    value = rng.gamma(2.0, 1.0, (requests, candidates)).astype(np.float32)
    chances = Outcomes(actions, value / 20, value)
    return Market(
        user=rng.integers(0, 40, requests), hour=rng.uniform(0, 24, requests), ad=ad,
        actions=ACTIONS, click=0,
        wanted=(True, False), weights=np.array([1.0, -5.0]), predicted=chances, true=chances,
        campaign_of=np.arange(ads) // 2,
        advertiser_of=np.arange(ads) // 2, category_of=np.arange(ads) // 2,
        format_of=np.array(["standard", "collection"] * (ads // 2), object),
    )  # fmt: skip


def advertised(budget: float, pays_for: int = FIXED, target: float = 0.0) -> Advertised:
    bid = np.linspace(0.4, 1.4, 6)
    ids = tuple(f"c{number}" for number in range(6))
    return Advertised(ids, bid, np.full(6, budget), np.full(6, pays_for), np.full(6, target))


def run(
    market: Market, campaigns: Advertised, visits: Visits, strategy: str = "fixed", terms: Terms = TERMS
) -> Delivered:
    bidding = Bidding(campaigns, strategy, np.full(len(campaigns), 2.0))
    return simulate_days(market, campaigns, visits, terms, bidding, seed=3)


def by_hand(market: Market, campaigns: Advertised, visits: Visits) -> tuple[np.ndarray, np.ndarray]:
    """Spend and hides by campaign of one day of fixed bids, one request after the other."""
    spent, hides = np.zeros(len(campaigns)), np.zeros(len(campaigns))
    for visit, request in enumerate(visits.request):
        ads = market.ad[request]
        campaign = market.campaign_of[ads]
        open_ = np.flatnonzero(spent[campaign] < campaigns.budget[campaign])
        chance = market.predicted.actions[request].astype(np.float64)
        exposure = PAGE[0].exposure
        sold = run_auction(
            campaigns.bid[campaign][open_], chance[open_, 0], exposure,
            bonus=0.1 * (chance[open_] @ market.weights), reserve=0.05,
        )  # fmt: skip
        for slot, (winner, price) in enumerate(zip(open_[sold.winners], sold.prices, strict=True)):
            owner = campaign[winner]
            hides[owner] += exposure[slot] * chance[winner, 1]
            die = dice(3, CLICK, np.array([visit]), ads[winner : winner + 1])[0]
            if die < exposure[slot] * chance[winner, 0] and spent[owner] < campaigns.budget[owner]:
                spent[owner] += price
    return spent, hides


@pytest.mark.parametrize("budget", [1.5, 1e9])
def test_a_day_is_what_it_is_request_by_request(budget: float) -> None:
    market, campaigns = small_market(), advertised(budget)
    visits = draw_visits(market, 1, len(market))
    assert visits.noise == 0
    found = run(market, campaigns, visits)
    spent, hides = by_hand(market, campaigns, visits)
    np.testing.assert_allclose(found.campaigns[0, :, 0], spent, rtol=1e-9)
    np.testing.assert_allclose(found.campaigns[0, :, found.names.index("hide")], hides, rtol=1e-6)


@pytest.mark.parametrize("strategy", ["fixed", "pid", "dual"])
def test_money_is_conserved_and_budgets_hold(strategy: str) -> None:
    market, campaigns = small_market(), advertised(3.0, MONEY, 1.5)
    found = run(market, campaigns, draw_visits(market, 2, 4000), strategy)
    for column in range(len(found.names)):
        total = found.users[:, column].sum()
        assert found.campaigns[..., column].sum() == pytest.approx(total)
        assert found.blocks[:, column].sum() == pytest.approx(total)
    assert found.total("spend") > 0
    if strategy == "fixed":  # no price is above the bid, so that no day exceeds its budget by more than one
        assert (found.campaigns[..., 0] > 2.9).any()
        assert (found.campaigns[..., 0] < 3.0 + campaigns.bid).all()


def test_equal_arms_are_equal_and_seeds_matter() -> None:
    market, campaigns = small_market(), advertised(5.0, MONEY, 1.5)
    visits = draw_visits(market, 2, 1000)
    first, again = (run(market, campaigns, visits, "dual") for _ in range(2))
    for name in ("users", "campaigns", "blocks"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    bidding = Bidding(campaigns, "dual", np.full(6, 2.0))
    other = simulate_days(market, campaigns, visits, TERMS, bidding, seed=4)
    assert not np.array_equal(first.users, other.users)


def test_a_format_takes_its_slots_first_and_no_ad_stands_twice() -> None:
    top = Block("big", np.array([1.0]), "gsp", lift=2.0, hide_lift=3.0, ads=("collection",))
    page = (top, Block("standard", np.array([0.6, 0.3]), "gsp"))
    market, campaigns = small_market(), advertised(1e9)
    visits = draw_visits(market, 1, len(market))
    found = run(market, campaigns, visits, terms=dataclasses.replace(TERMS, page=page))
    assert found.blocks[0, found.names.index("views")] == pytest.approx(
        (market.format_of[market.ad] == "collection").any(axis=1).sum()
    )
    assert found.blocks[1, found.names.index("views")] <= 0.9 * len(market) + 1e-9
    assert lifted(np.array([0.2]), 3.0)[0] == pytest.approx(3 / 7)  # odds 1/4 become 3/4
    assert lifted(np.array([0.2]), 0.0)[0] == 0.0


def test_a_slate_holds_so_many_of_an_advertiser() -> None:
    market, campaigns = small_market(), advertised(1e9)
    visits = draw_visits(market, 1, len(market))
    capped = run(market, campaigns, visits, terms=dataclasses.replace(TERMS, per_advertiser=1))
    free = run(market, campaigns, visits)
    # Two ads of each of six campaigns are drawn for six places: many slates held two of one.
    assert not np.array_equal(capped.campaigns, free.campaigns)
    most = len(market) * PAGE[0].exposure[0]
    assert (capped.campaigns[0, :, capped.names.index("views")] <= most).all()
    names = market.campaign_of[market.ad]
    assert max(len(np.unique(line)) for line in names) >= 3


def test_repeats_have_noise_of_mean_one() -> None:
    market = small_market()
    visits = draw_visits(market, 3, 5000, seed=1)
    assert visits.noise > 0
    assert np.all(np.diff(visits.day * 24 + visits.hour) >= 0)
    from adstool.marketplace.market import repeat_noise

    visit = np.arange(5000)
    noise = np.asarray(repeat_noise(visits, 0, visit, market.ad[visits.request]))
    assert noise.mean() == pytest.approx(1.0, abs=0.01)
    assert np.log(noise).std() == pytest.approx(visits.noise, rel=0.03)
