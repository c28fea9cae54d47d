"""What the simulator is given: candidates of requests, campaigns, and when requests come. All arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adstool.marketplace.chance import NOISE, dice

FIXED, CLICKS, CONVERSIONS, MONEY = range(4)  # what a campaign's bid pays for: see Advertised.pays_for
PAYS_FOR = {
    "fixed": FIXED,
    "max_clicks": CLICKS,
    "max_conversions": CONVERSIONS,
    "target_cpa": CONVERSIONS,
    "target_roas": MONEY,
}


@dataclass(frozen=True)
class Outcomes:
    """Chances and amounts of N requests with C candidates each, predicted or true; all [N, C, ...]."""

    actions: np.ndarray  # float32 [N, C, A], chance of each action of a candidate that is seen
    conversions: np.ndarray  # float32 [N, C], expected conversions of a click
    value: np.ndarray  # float32 [N, C], expected money of a click


@dataclass(frozen=True)
class Market:
    """Requests with their candidates, in the order of ads; what a model predicts, and what happens."""

    user: np.ndarray  # int64 [N]
    hour: np.ndarray  # float64 [N], of the day
    ad: np.ndarray  # int32 [N, C], -1 where there is no further candidate
    actions: tuple[str, ...]  # A
    click: int  # the action that is paid for
    wanted: tuple[bool, ...]  # [A], whether users like it to happen
    weights: np.ndarray  # float64 [A], of the utility
    predicted: Outcomes
    true: Outcomes
    campaign_of: np.ndarray  # int64 [ads]
    advertiser_of: np.ndarray  # int64 [ads], as category_of what the caps of a slate count by
    category_of: np.ndarray
    format_of: np.ndarray  # object [ads], the catalogue's word for it, None where it has none

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Advertised:
    """Campaigns as the catalogue has them."""

    ids: tuple[str, ...]
    bid: np.ndarray  # float64 [K], money a click
    budget: np.ndarray  # float64 [K], money a day, inf without one
    pays_for: np.ndarray  # int64 [K]: FIXED bids a click, CLICKS, CONVERSIONS and MONEY what a click brings
    target: np.ndarray  # float64 [K], conversions or money that one unit of spend must bring; 0 without one

    def __len__(self) -> int:
        return len(self.bid)


@dataclass(frozen=True)
class Visits:
    """When requests come, in order of time."""

    request: np.ndarray  # int64 [R], rows of the Market
    day: np.ndarray  # int64 [R], from 0
    hour: np.ndarray  # float64 [R], of the day
    noise: float  # spread of the logarithm by which a repeated request's rates differ from its model's

    def __len__(self) -> int:
        return len(self.request)


NOISE_OF_REPEATS = 0.25


def draw_visits(market: Market, days: int, count: int, seed: int = 0) -> Visits:
    """`count` visits over `days`: each request as often as any other, at about its own hour.

    Where requests have to be repeated, every visit differs from the others by noise on its rates.
    """
    rng = np.random.default_rng([seed, 1])
    size = len(market)
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    request = np.concatenate(rounds)[:count]
    day = rng.integers(0, days, count)
    hour = (market.hour[request] + rng.uniform(-0.5, 0.5, count)) % 24
    order = np.lexsort((hour, day))
    noise = NOISE_OF_REPEATS if count > size else 0.0
    return Visits(request[order], day[order], hour[order], noise)


def repeat_noise(visits: Visits, seed: int, visit: np.ndarray, ad: np.ndarray) -> np.ndarray | float:
    """By what a visit's rates differ from those of its request, mean 1: [n, C], or 1 without repeats."""
    if not visits.noise:
        return 1.0
    # A uniform number of the same spread costs a fraction of a normal one; the mean of e^u is sinh(w) / w.
    width = visits.noise * np.sqrt(3.0)
    u = dice(seed, NOISE, visit[:, None], ad) * (2 * width) - width
    return np.asarray(np.exp(u) * (width / np.sinh(width)))
