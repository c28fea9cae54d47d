"""Days of a market under one set of rules: auctions, clicks, budgets that stop, bidders that learn.

A day goes in steps of a quarter of an hour. Within a step requests are sold as if one after the other: a
campaign whose budget is used up takes no part from the next request on, exactly, though all requests of the
step are computed together. What is drawn is the click, by a die of its own for every visit and ad (see
chance.py); other actions, conversions and their money are counted by their expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adstool.marketplace.auction import Cap, run_auctions
from adstool.marketplace.automatic import Bidding
from adstool.marketplace.bidding import Delivery
from adstool.marketplace.chance import CLICK, dice
from adstool.marketplace.formats import Block, lifted
from adstool.marketplace.market import Advertised, Market, Visits, repeat_noise
from adstool.marketplace.pacing import TrafficProfile

STEPS = 96  # a day
CHUNK = 2048  # visits computed at once
# The first columns, then the actions but the click. `expected_` is what predictions said of the same clicks.
SUMS = ("spend", "value", "conversions", "clicks", "views", "expected_value", "expected_conversions")


@dataclass(frozen=True)
class Terms:
    """What an arm sells by."""

    page: tuple[Block, ...]
    reserve: float
    utility_weight: float
    per_advertiser: int = 0  # ads of one advertiser in a block of the page; 0: any number
    per_category: int = 0
    value_scale: float = 1.0  # predictions of conversions and money are off by this factor


@dataclass(frozen=True)
class Delivered:
    """What the days brought. M columns: SUMS, then the market's actions without the paid one."""

    names: tuple[str, ...]  # M
    users: np.ndarray  # float64 [users, M], by the numbers of Market.user
    campaigns: np.ndarray  # float64 [days, K, M]
    blocks: np.ndarray  # float64 [blocks, M]

    def total(self, name: str) -> float:
        """The sum of a column over everybody."""
        return float(self.users[:, self.names.index(name)].sum())


@dataclass
class _Sold:
    """Slots sold in a chunk of n visits, all [n, S]; what happens in them."""

    campaign: np.ndarray  # int64, -1 in an empty slot
    price: np.ndarray  # money a click
    clicked: np.ndarray  # bool
    worth: np.ndarray  # value of a click as predicted, in the campaign's own unit
    sums: np.ndarray  # float64 [n, S, M]; spend is filled in when the budget is known to allow it


def simulate_days(
    market: Market,
    campaigns: Advertised,
    visits: Visits,
    terms: Terms,
    bidding: Bidding,
    *,
    seed: int = 0,
) -> Delivered:
    """Sell all visits; `bidding` learns on the way and is used up by it."""
    return _Days(market, campaigns, visits, terms, bidding, seed).run()


class _Days:
    def __init__(
        self,
        market: Market,
        campaigns: Advertised,
        visits: Visits,
        terms: Terms,
        bidding: Bidding,
        seed: int,
    ) -> None:
        self.market, self.campaigns, self.visits = market, campaigns, visits
        self.terms, self.bidding, self.seed = terms, bidding, seed
        others = tuple(name for place, name in enumerate(market.actions) if place != market.click)
        self.others = [place for place in range(len(market.actions)) if place != market.click]
        self.names = (*SUMS, *others)
        self.spent = np.zeros(len(campaigns))
        size = (len(campaigns), len(self.names))
        self.users = np.zeros((int(market.user.max(initial=-1)) + 1, len(self.names)))
        self.days = np.zeros((int(visits.day.max(initial=-1)) + 1, *size))
        self.blocks = np.zeros((len(terms.page), len(self.names)))
        # Conversions and money that a bidder is told of are those that the model predicts.
        counts = np.histogram(market.hour, bins=24, range=(0, 24))[0]
        self.profile = TrafficProfile.of_counts(counts)
        self.odds = [block.odds(market.actions, market.wanted) for block in terms.page]
        self.may = [
            np.isin(market.format_of.astype(str), block.ads) if block.ads else None for block in terms.page
        ]

    def run(self) -> Delivered:
        """All days; see simulate_days."""
        step = np.minimum((self.visits.hour * (STEPS / 24)).astype(np.int64), STEPS - 1)
        key = self.visits.day * STEPS + step
        edges = np.searchsorted(key, np.arange(len(self.days) * STEPS + 1))
        for number in range(len(self.days) * STEPS):
            day, place = divmod(number, STEPS)
            if place == 0:
                self.spent[:] = 0.0
                if day:
                    self.bidding.new_day()
            self._spend, self._worth = np.zeros(len(self.spent)), np.zeros(len(self.spent))
            for start in range(edges[number], edges[number + 1], CHUNK):
                self._chunk(np.arange(start, min(start + CHUNK, edges[number + 1])), day)
            share = self.profile.share(place * 24 / STEPS, (place + 1) * 24 / STEPS)
            self.bidding.observe(Delivery(share, self._spend, self._worth))
        return Delivered(self.names, self.users, self.days, self.blocks)

    def _chunk(self, visit: np.ndarray, day: int) -> None:
        """Sell a chunk; after the request in which a budget ends, the rest is sold again without it."""
        while len(visit):
            sold = self._sell(visit)
            charged, stop = self._charge(sold)
            taken = len(visit) if stop is None else stop + 1
            self._book(visit[:taken], sold, charged, taken, day)
            visit = visit[taken:]

    def _sell(self, visit: np.ndarray) -> _Sold:
        market, terms = self.market, self.terms
        request = self.visits.request[visit]
        ad = market.ad[request]
        campaign = market.campaign_of[ad]
        noise = repeat_noise(self.visits, self.seed, visit, ad)
        predicted = market.predicted.actions[request].astype(np.float64)
        predicted[..., market.click] = np.minimum(predicted[..., market.click] * noise, 1.0)
        worth = self.bidding.worth(
            campaign,
            market.predicted.conversions[request] * terms.value_scale,
            market.predicted.value[request] * terms.value_scale,
        )
        bids = self.bidding.bids(worth, campaign)
        left = (ad >= 0) & (self.spent < self.campaigns.budget)[campaign]
        caps = [
            Cap(of[ad], most)
            for of, most in (
                (market.advertiser_of, terms.per_advertiser),
                (market.category_of, terms.per_category),
            )
            if most
        ]
        parts = []
        for block, odds, may in zip(terms.page, self.odds, self.may, strict=True):
            able = left if may is None else left & may[ad]
            chances = predicted if np.all(odds == 1) else lifted(predicted, odds)
            slates = run_auctions(
                bids,
                chances[..., market.click],
                block.exposure,
                bonus=terms.utility_weight * (chances @ market.weights),
                rule=block.rule,
                reserve=terms.reserve,
                allowed=able,
                caps=caps,
            )
            parts.append(self._happen(visit, request, ad, campaign, worth, noise, slates.winners,
                                      slates.prices, block.exposure, odds))  # fmt: skip
            if len(terms.page) > 1:
                left = left.copy()
                line, slot = np.nonzero(slates.winners >= 0)
                left[line, slates.winners[line, slot]] = False
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _happen(
        self,
        visit: np.ndarray,
        request: np.ndarray,
        ad: np.ndarray,
        campaign: np.ndarray,
        worth: np.ndarray,
        noise: np.ndarray | float,
        winners: np.ndarray,
        prices: np.ndarray,
        exposure: np.ndarray,
        odds: np.ndarray,
    ) -> _Sold:
        """What users do in the slots that were sold."""
        market = self.market
        line = np.arange(len(visit))[:, None]
        there = winners >= 0
        at = np.maximum(winners, 0)
        row = request[:, None]
        chance = market.true.actions[row, at].astype(np.float64)
        if not isinstance(noise, float):
            chance[..., market.click] = np.minimum(chance[..., market.click] * noise[line, at], 1.0)
        chance = lifted(chance, odds) * np.where(there, exposure, 0.0)[..., None]
        die = dice(self.seed, CLICK, visit[:, None], ad[line, at])
        clicked = die < chance[..., market.click]
        sums = np.empty((*winners.shape, len(self.names)))
        sums[..., 0] = 0.0
        sums[..., 1] = clicked * market.true.value[row, at]
        sums[..., 2] = clicked * market.true.conversions[row, at]
        sums[..., 3] = clicked
        sums[..., 4] = np.where(there, exposure, 0.0)
        sums[..., 5] = clicked * market.predicted.value[row, at] * self.terms.value_scale
        sums[..., 6] = clicked * market.predicted.conversions[row, at] * self.terms.value_scale
        sums[..., len(SUMS) :] = chance[..., self.others]
        return _Sold(np.where(there, campaign[line, at], -1), prices, clicked, worth[line, at], sums)

    def _charge(self, sold: _Sold) -> tuple[np.ndarray, int | None]:
        """Money of every slot, [n, S], and the visit in which the first budget ended, None when none did.

        The click that ends a budget is charged in full, later ones of the same request are not charged.
        """
        line, slot = np.nonzero(sold.clicked)
        charged = np.zeros(sold.price.shape)
        if not len(line):
            return charged, None
        campaign, price = sold.campaign[line, slot], sold.price[line, slot]
        order = np.argsort(campaign, kind="stable")
        owner, money = campaign[order], price[order]
        total = np.cumsum(money)
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        before = total - money - np.repeat((total - money)[first], np.diff(first, append=len(owner)))
        budget, spent = self.campaigns.budget[owner], self.spent[owner]
        allowed = spent + before < budget
        charged[line[order], slot[order]] = np.where(allowed, money, 0.0)
        over = allowed & (spent + before + money >= budget)
        return charged, int(line[order][over].min()) if over.any() else None

    def _book(self, visit: np.ndarray, sold: _Sold, charged: np.ndarray, taken: int, day: int) -> None:
        campaign, sums = sold.campaign[:taken], sold.sums[:taken]
        sums[..., 0] = charged[:taken]
        user = self.market.user[self.visits.request[visit]]
        there = campaign >= 0
        owner, flat = campaign[there], sums[there]
        by_visit = sums.sum(axis=1)
        size = len(self.spent)
        for column in range(len(self.names)):
            self.days[day, :, column] += np.bincount(owner, flat[:, column], size)
            self.users[:, column] += np.bincount(user, by_visit[:, column], len(self.users))
        clicked = sold.clicked[:taken]
        money = np.bincount(owner, flat[:, 0], size)
        self.spent += money
        self._spend += money
        self._worth += np.bincount(campaign[clicked], sold.worth[:taken][clicked], size)
        start = 0
        for number, block in enumerate(self.terms.page):
            self.blocks[number] += sums[:, start : start + len(block.exposure)].sum(axis=(0, 1))
            start += len(block.exposure)


def _joined(parts: list[_Sold]) -> _Sold:
    """Blocks beside each other, the top one first."""
    return _Sold(
        **{name: np.concatenate([getattr(part, name) for part in parts], axis=1)
           for name in _Sold.__dataclass_fields__}
    )  # fmt: skip
