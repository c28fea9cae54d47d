"""What happens off the site: conversions after clicks, after views, without any ad; delayed, late or lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adstool.world.behaviour import SIGNALS, Shown
from adstool.world.catalogue import DAY, FAST_SIGMA, KINDS, SLOW_SIGMA, Catalogue
from adstool.world.config import WorldConfig
from adstool.world.population import Population
from adstool.world.vocabulary import Ints

Floats = NDArray[np.float64]
CAUSES = ("click", "view", "organic")
CHECKOUT, ADD_TO_CART = KINDS.index("checkout"), KINDS.index("add_to_cart")
LATE, LOST = 0.06, 0.05  # shares of online conversions
# What the signals of a click count for in the logit of a conversion after it.
MIX = {"interest": 0.9, "style": 0.3, "intent": 0.6, "price": 1.5, "quality": 0.4, "recent": 0.3}
LANDING = 0.7  # weight of how well the advertiser's site converts
GRID = 128.0


@dataclass
class Conversions:
    """One row a conversion, reported or not. Times are seconds from the world's start."""

    seconds: Ints
    reported: Ints
    user: Ints
    advertiser: Ints
    kind: Ints
    value: Floats  # nan where none is known
    quantity: Ints  # 0 where it has no meaning
    offline: NDArray[np.bool_]
    cause: Ints  # index into CAUSES
    request: Ints  # number of the request that caused it, -1 for organic
    item: Ints  # the ad, -1 for organic
    delay: Ints  # seconds from click or view, -1 for organic
    lost: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seconds)


class OffSite:
    """The hidden laws of conversion of one world."""

    def __init__(self, config: WorldConfig, catalogue: Catalogue, people: Population) -> None:
        """Intercepts come from `solve`."""
        self.config, self.catalogue, self.people = config, catalogue, people
        self.after_click = 0.0
        self.after_view = 0.0

    def solve(self, pilot: list[Shown]) -> None:
        """Set the intercepts so that the pilot's mean chances are the configured rates."""
        logits = np.concatenate([self._logits(shown) for shown in pilot])
        clicks = np.concatenate(
            [shown.probability[shown.item < self.catalogue.items.ads, 0] for shown in pilot]
        )
        rates = self.config.rates
        self.after_click = _intercept(logits, clicks, rates.conversion)
        self.after_view = _intercept(logits, 1 - clicks, rates.view_through)

    def probabilities(self, shown: Shown) -> tuple[Floats, Floats]:
        """Chance of a conversion given a click, and given a view without one; nan for pins."""
        ads = shown.item < self.catalogue.items.ads
        click, view = np.full(len(ads), np.nan), np.full(len(ads), np.nan)
        logits = self._logits(shown)
        click[ads] = 1 / (1 + np.exp(-np.rint((logits + self.after_click) * GRID) / GRID))
        view[ads] = 1 / (1 + np.exp(-np.rint((logits + self.after_view) * GRID) / GRID))
        return click, view

    def of_day(
        self, number: int, shown: Shown, user: Ints, seconds: Ints, click_lag: Ints, request: Ints
    ) -> Conversions:
        """Conversions that day `number` causes, whenever they happen.

        `user`, `seconds` and `request` are of each impression, `click_lag` the seconds to its click.
        """
        rng = np.random.default_rng([self.config.seed, 10, number])
        given_click, given_view = self.probabilities(shown)
        clicked = shown.acted[:, 0]
        chance = np.nan_to_num(np.where(clicked, given_click, given_view))
        rows = np.flatnonzero(rng.random(len(chance)) < chance)
        from_click = clicked[rows]
        anchor = seconds[rows] + np.where(from_click, click_lag[rows], 0)
        advertiser = self.catalogue.items.owner[shown.item[rows]]
        expected = float(np.nansum(np.where(clicked, given_click, 0.0)))
        owners, advertisers, moments, ads = self._organic(rng, number, expected * self.config.rates.organic)
        none = np.full(len(owners), -1)
        delay = self._delays(rng, advertiser)
        basic = Conversions(
            seconds=np.concatenate([anchor + delay, moments]),
            reported=np.zeros(len(rows) + len(owners), dtype=np.int64),
            user=np.concatenate([user[rows], owners]),
            advertiser=np.concatenate([advertiser, advertisers]),
            kind=np.zeros(len(rows) + len(owners), dtype=np.int64),
            value=np.full(len(rows) + len(owners), np.nan),
            quantity=np.zeros(len(rows) + len(owners), dtype=np.int64),
            offline=np.zeros(len(rows) + len(owners), dtype=bool),
            cause=np.concatenate([np.where(from_click, 0, 1), none + 3]),
            request=np.concatenate([request[rows], none]),
            item=np.concatenate([shown.item[rows], none]),
            delay=np.concatenate([delay, none]),
            lost=np.zeros(len(rows) + len(owners), dtype=bool),
        )
        bought = np.concatenate([shown.item[rows], ads])
        self._describe(rng, basic, bought)
        return self._report(rng, self._with_carts(rng, basic))

    def _logits(self, shown: Shown) -> Floats:
        """Of the ads among the rows, without intercept."""
        items = self.catalogue.items
        ads = shown.item < items.ads
        weights = np.array([MIX.get(name, 0.0) for name in SIGNALS])
        landing = self.catalogue.advertisers.landing[items.owner[shown.item[ads]]]
        logits: Floats = shown.signals[ads] @ weights + LANDING * landing
        return logits

    def _delays(self, rng: np.random.Generator, advertiser: Ints) -> Ints:
        """Log-normal mixture of the advertiser: fast in minutes to hours, slow in days to weeks."""
        who = self.catalogue.advertisers
        fast = rng.random(len(advertiser)) < who.fast_share[advertiser]
        median = np.where(fast, who.fast_median[advertiser], who.slow_median[advertiser])
        spread = np.where(fast, FAST_SIGMA, SLOW_SIGMA)
        delay = median * np.exp(spread * rng.normal(size=len(advertiser)))
        seconds: Ints = np.clip(np.ceil(delay), 1, 400 * DAY).astype(np.int64)
        return seconds

    def _organic(self, rng: np.random.Generator, number: int, mean: float) -> tuple[Ints, Ints, Ints, Ints]:
        """Users who buy without an ad: user, advertiser, second, and an ad whose price they pay."""
        count = int(rng.poisson(mean))
        weight = self.people.activity / self.people.activity.sum()
        user = rng.choice(len(weight), count, p=weight)
        options = rng.integers(0, self.catalogue.items.ads, (count, 6))
        seconds = number * DAY + rng.integers(0, DAY, count)
        match = np.einsum(
            "nk,nok->no", self.people.interest(user, seconds), self.catalogue.items.vector[options]
        )
        ad = options[np.arange(count), match.argmax(axis=1)] if count else np.zeros(0, dtype=np.int64)
        return user, self.catalogue.items.owner[ad], seconds, ad

    def _describe(self, rng: np.random.Generator, table: Conversions, ad: Ints) -> None:
        """Fill kind, value, quantity and channel; order values are heavy-tailed around the ad's price."""
        who, count = self.catalogue.advertisers, len(table)
        bounds = np.cumsum(who.kinds[table.advertiser], axis=1)
        table.kind = np.minimum((bounds <= rng.random((count, 1))).sum(axis=1), len(KINDS) - 1)
        price = self.catalogue.items.price[ad]
        many = 1 + rng.poisson(0.3, count)
        # One order in fifty is a bulk order: a Pareto tail with infinite variance.
        tail = np.where(rng.random(count) < 0.02, 1 + rng.pareto(1.7, count) * 4, 1.0)
        order = price * many * np.exp(rng.normal(0, 0.35, count)) * tail
        sold = table.kind <= ADD_TO_CART
        small = np.where(rng.random(count) < 0.5, np.exp(rng.normal(np.log(8), 0.5, count)), np.nan)
        worth: Floats = np.where(sold, order, np.where(table.kind == KINDS.index("signup"), small, np.nan))
        table.value = worth.round(2)
        table.quantity = np.where(sold, many, 0)
        share = who.offline_share[table.advertiser]
        share = np.where(table.cause == 2, np.maximum(share, 0.35), share)
        table.offline = rng.random(count) < share

    def _with_carts(self, rng: np.random.Generator, table: Conversions) -> Conversions:
        """Half of the online checkouts were seen as an add_to_cart on the way."""
        path = (table.kind == CHECKOUT) & ~table.offline & (table.cause != 2) & (rng.random(len(table)) < 0.5)
        copies = {name: getattr(table, name)[path].copy() for name in Conversions.__dataclass_fields__}
        earlier = np.maximum((copies["delay"] * rng.uniform(0.2, 0.95, int(path.sum()))).astype(np.int64), 1)
        copies["seconds"] += earlier - copies["delay"]
        copies["delay"] = earlier
        copies["kind"][:] = ADD_TO_CART
        return Conversions(**{n: np.concatenate([getattr(table, n), extra]) for n, extra in copies.items()})

    def _report(self, rng: np.random.Generator, table: Conversions) -> Conversions:
        """When the site hears of each: the tag at once, stores by weekly upload, some late, some never."""
        count = len(table)
        prompt = rng.integers(1, 600, count)
        late = np.where(rng.random(count) < LATE, np.exp(rng.normal(np.log(1.5 * DAY), 0.8, count)), 0.0)
        upload = (rng.uniform(0.3, 7.3, count) * DAY).astype(np.int64)
        table.reported = table.seconds + np.where(table.offline, upload, prompt + late.astype(np.int64))
        table.lost = ~table.offline & (rng.random(count) < LOST)
        return table


def joined(parts: list[Conversions]) -> Conversions:
    """All days' conversions in order of time."""
    columns = {
        name: np.concatenate([getattr(p, name) for p in parts]) for name in Conversions.__dataclass_fields__
    }
    order = np.lexsort((columns["user"], columns["kind"], columns["seconds"]))
    return Conversions(**{name: column[order] for name, column in columns.items()})


def _intercept(logits: Floats, weights: Floats, target: float) -> float:
    low, high = -25.0, 15.0
    total = max(float(weights.sum()), 1e-9)
    for _ in range(50):
        middle = (low + high) / 2
        mean = float((weights / (1 + np.exp(-(logits + middle)))).sum()) / total
        low, high = (middle, high) if mean < target else (low, middle)
    return float(np.rint((low + high) / 2 * GRID) / GRID)
