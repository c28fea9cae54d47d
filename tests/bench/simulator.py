"""How long the simulator takes from 10,000 to 1,000,000 requests x 20 candidates, scores given.

    python tests/bench/simulator.py [REQUESTS...] [--strategy dual] [--rule gsp]

A synthetic market: 200 campaigns of 5 ads, 20,000 different requests, 10 slots, 7 days, budgets that a third
of the campaigns use up. The floor is one stable sort of the scores of all candidates, without which no rule
can tell who wins.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from adstool.config import Format
from adstool.marketplace.auction import exposure_curve
from adstool.marketplace.automatic import Bidding
from adstool.marketplace.formats import Block
from adstool.marketplace.market import MONEY, Advertised, Market, Outcomes, draw_visits
from adstool.marketplace.simulation import Terms, simulate_days

REQUESTS, CANDIDATES, CAMPAIGNS, DAYS, SLOTS = 20_000, 20, 200, 7, 10


def market_of(seed: int) -> Market:
    """Requests by many users, four actions, and rates as a shop has them."""
    rng = np.random.default_rng(seed)
    ads = CAMPAIGNS * 5
    ad = np.sort(rng.integers(0, ads, (REQUESTS, CANDIDATES)), axis=1).astype(np.int32)
    actions = rng.beta(1.5, 20, (REQUESTS, CANDIDATES, 4)).astype(np.float32)
    value = rng.gamma(1.0, 2.0, (REQUESTS, CANDIDATES)).astype(np.float32)
    chances = Outcomes(actions, value / 40, value)
    return Market(
        user=rng.integers(0, 5_000, REQUESTS),
        hour=rng.normal(16, 4, REQUESTS) % 24,
        ad=ad,
        actions=("click", "long_click", "save", "hide"),
        click=0,
        wanted=(True, True, True, False),
        weights=np.array([1.0, 2.0, 4.0, -10.0]),
        predicted=chances,
        true=chances,
        campaign_of=np.arange(ads) // 5,
        advertiser_of=np.arange(ads) // 5,
        category_of=np.arange(ads) // 5,
        format_of=np.full(ads, None, dtype=object),
    )


def main() -> None:
    """Print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requests", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--strategy", default="dual")
    parser.add_argument("--rule", default="gsp")
    chosen = parser.parse_args()
    market, rng = market_of(0), np.random.default_rng(1)
    bid = rng.lognormal(np.log(0.6), 0.6, CAMPAIGNS)
    print("requests  seconds  requests/s  floor (sort)  ratio  budgets used up  peak GB")
    for count in chosen.requests:
        # A campaign's share of a day's money varies with its bid; budgets do not, so that some are used up.
        budget = np.full(CAMPAIGNS, count / DAYS * SLOTS * 0.02 * 2 / CAMPAIGNS)
        ids = tuple(f"c{number}" for number in range(CAMPAIGNS))
        campaigns = Advertised(ids, bid, budget, np.full(CAMPAIGNS, MONEY), np.full(CAMPAIGNS, 3.0))
        page = (Block("standard", exposure_curve(Format(), SLOTS), chosen.rule),)
        began = time.perf_counter()
        visits = draw_visits(market, DAYS, count)
        bidding = Bidding(campaigns, chosen.strategy, np.full(CAMPAIGNS, 2.0))
        found = simulate_days(market, campaigns, visits, Terms(page, 0.01, 0.1), bidding)
        seconds = time.perf_counter() - began
        floor = 0.0
        for start in range(0, count, 2048):
            scores = rng.random((min(2048, count - start), CANDIDATES))
            began = time.perf_counter()
            np.argsort(scores, axis=1, kind="stable")
            floor += time.perf_counter() - began
        over = (found.campaigns[..., 0] >= budget).mean()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{count:>8,}  {seconds:7.2f}  {count / seconds:10,.0f}  {floor:12.2f}  {seconds / floor:5.1f}"
            f"  {over:15.0%}  {peak:7.2f}"
        )


if __name__ == "__main__":
    main()
