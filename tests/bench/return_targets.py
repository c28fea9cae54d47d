"""Return targets and budgets of a synthetic market by strategy: fixed, linear, two PID controllers, dual.

    python tests/bench/return_targets.py [--campaigns 100] [--requests 200000] [--days 7] [--seeds 3]

Every campaign bids by the strategy, against the others, in auctions of three slots at generalised second
prices; it pays by click. Campaigns differ in size, click rate, value of a click (heavy-tailed, and again from
request to request), budget and target. Requests follow a daily rhythm that differs from the predicted one by
day. What a click is worth is known in expectation, whether it comes is not. Counted from the first day on:

- met: the return of the seven days is at least 95 % of the target
- used: 95 % of the budget is spent, or the return is within 5 % of the target, which allowed no more
- both: what a campaign asked for

Targets lie between .6 and 1.6 of the return that a campaign would have if all bid value / 3, budgets between
.2 and 3 of what it would then spend, so that for some the budget binds and for others the target.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adstool.marketplace.auction import run_auctions
from adstool.marketplace.bidding import Bidder, Campaigns, Delivery
from adstool.marketplace.pacing import Ledger, TrafficProfile
from adstool.marketplace.strategies import make_bidder

STEPS = 96  # a day
CANDIDATES = 12
EXPOSURE = np.array([1.0, 0.8, 0.6])
STRATEGIES = ("fixed", "linear", "pid", "dual")
RESERVE = 0.01


@dataclass(frozen=True)
class World:
    """A market before anybody bids."""

    weight: np.ndarray  # [C], how often a campaign is among the candidates
    rate: np.ndarray  # [C], click rate of a view
    worth: np.ndarray  # [C], value of a click
    requests: np.ndarray  # int [days, STEPS]
    predicted: np.ndarray  # [STEPS], share of a day


@dataclass(frozen=True)
class Step:
    """The requests of a step, [R, CANDIDATES]."""

    campaign: np.ndarray
    rate: np.ndarray
    worth: np.ndarray
    dice: np.ndarray


def make_world(campaigns: int, requests: int, days: int, rng: np.random.Generator) -> World:
    """A world; the day's rhythm has its trough at 4 and its peak at 20."""
    hours = (np.arange(STEPS) + 0.5) * 24 / STEPS
    rhythm = np.exp(0.9 * np.cos((hours - 20) * 2 * np.pi / 24))
    actual = rhythm * rng.lognormal(0, 0.1, (days, STEPS)) * rng.lognormal(0, 0.1, (days, 1))
    before = rhythm * rng.lognormal(0, 0.1, STEPS)  # the day that was counted to predict the others
    profile = TrafficProfile.of_counts(before.reshape(24, -1).sum(axis=1) * requests / rhythm.sum())
    edges = np.linspace(0, 24, STEPS + 1)
    return World(
        weight=rng.pareto(2.0, campaigns) + 0.5,
        rate=rng.beta(4, 76, campaigns),
        worth=rng.lognormal(1.0, 0.8, campaigns),
        requests=rng.poisson(actual / rhythm.sum() * requests),
        predicted=np.array([profile.share(a, b) for a, b in pairwise(edges)]),
    )


def draw(world: World, count: int, rng: np.random.Generator) -> Step:
    """The candidates of `count` requests; a campaign that is drawn twice is one candidate with two ads."""
    chance = np.cumsum(world.weight / world.weight.sum())
    campaign = np.minimum(np.searchsorted(chance, rng.random((count, CANDIDATES))), len(chance) - 1)
    rate = np.minimum(world.rate[campaign] * rng.lognormal(-0.125, 0.5, campaign.shape), 1.0)
    worth = world.worth[campaign] * rng.lognormal(-0.5, 1.0, campaign.shape)
    return Step(campaign, rate, worth, rng.random((count, len(EXPOSURE))))


def run(world: World, asked: Campaigns, bidder: Bidder, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spend and value of all days by campaign; the same requests and dice for every bidder of a seed."""
    rng, size = np.random.default_rng(seed), len(asked)
    ledger, spend, value = Ledger(asked.budget), np.zeros(size), np.zeros(size)
    for day in world.requests:
        ledger.new_day()
        bidder.new_day()
        for count, share in zip(day, world.predicted, strict=True):
            step = draw(world, int(count), rng)
            bids = bidder.bids(step.worth, step.campaign)
            sold = run_auctions(
                bids, step.rate, EXPOSURE, reserve=RESERVE, allowed=(ledger.left() > 0)[step.campaign]
            )
            request, slot = np.nonzero(sold.winners >= 0)
            winner = sold.winners[request, slot]
            clicked = step.dice[request, slot] < step.rate[request, winner] * EXPOSURE[slot]
            request, winner, price = request[clicked], winner[clicked], sold.prices[request, slot][clicked]
            campaign = step.campaign[request, winner]
            paid = ledger.reserve(campaign, price)
            ledger.settle(campaign[paid], price[paid], price[paid])
            spent = np.bincount(campaign[paid], price[paid], minlength=size)
            brought = np.bincount(campaign[paid], step.worth[request, winner][paid], minlength=size)
            bidder.observe(Delivery(float(share), spent, brought))
            spend, value = spend + spent, value + brought
    return spend, value


def ask(world: World, rng: np.random.Generator, seed: int) -> Campaigns:
    """Budgets and targets around what campaigns would have if all bid a third of the value."""
    size = len(world.rate)
    free = Campaigns(np.full(size, 1 / 3), np.full(size, np.inf), np.zeros(size))
    day = World(world.weight, world.rate, world.worth, world.requests[:1], world.predicted)
    spend, value = run(day, free, make_bidder("linear", free), seed)
    # Of campaigns that had no clicks on that day, nothing is known: their return is taken to be 3.
    target = (value + 3.0) / (spend + 1.0) * rng.uniform(0.6, 1.6, size)
    budget = np.maximum(spend, 1.0) * np.exp(rng.uniform(np.log(0.2), np.log(3.0), size))
    return Campaigns(1 / target, budget, target)


def judge(asked: Campaigns, spend: np.ndarray, value: np.ndarray, days: int) -> dict[str, float]:
    """Shares of campaigns; and money."""
    back = value / np.maximum(spend, 1e-9) / asked.target
    met = back >= 0.95
    used = (spend >= 0.95 * days * asked.budget) | ((back >= 0.95) & (back <= 1.05))
    return {
        "met": float(met.mean()),
        "used": float(used.mean()),
        "both": float((met & used).mean()),
        "budget": float(spend.sum() / (days * asked.budget.sum())),
        "value": float(value.sum()),
    }


def main() -> None:
    """The table: means over seeds, and the least and most."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("campaigns", 100), ("requests", 200_000), ("days", 7), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in STRATEGIES}
    started = time.perf_counter()
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        world = make_world(options.campaigns, options.requests, options.days, rng)
        asked = ask(world, rng, seed)
        for name in STRATEGIES:
            campaigns = asked
            if name == "fixed":  # the typical click's worth at the target
                campaigns = Campaigns(world.worth / asked.target, asked.budget, asked.target)
            spend, value = run(world, campaigns, make_bidder(name, campaigns), seed + 1000)
            found[name].append(judge(asked, spend, value, options.days))
    print(f"{options.campaigns} campaigns, {options.requests:,} requests a day, {options.days} days, "
          f"{options.seeds} seeds, {time.perf_counter() - started:.0f} s")  # fmt: skip
    print(
        f"{'':8}"
        + "".join(f"{figure:>22}" for figure in ("met", "used", "both", "budget spent"))
        + "   value"
    )
    for name, seeds in found.items():
        cells = [_spread([one[figure] for one in seeds]) for figure in ("met", "used", "both", "budget")]
        print(f"{name:8}" + "".join(f"{cell:>22}" for cell in cells)
              + f"{np.mean([one['value'] for one in seeds]):12,.0f}")  # fmt: skip


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1%} ({min(values):.1%}-{max(values):.1%})"


if __name__ == "__main__":
    main()
