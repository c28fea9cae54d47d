"""Bidding on recorded auctions: what a strategy would have won of a log, and at which price.

Every auction has a second price, the market price: a bid that reaches it wins and pays it. Whatever a
strategy needs to know beforehand comes from the first half of the log, the fit; the second is bid on.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from adstool.errors import DataError, UsageError, choose
from adstool.ingestion.inputs import open_stream, physical_lines
from adstool.marketplace.bidding import Bidder, Campaigns, Delivery
from adstool.marketplace.pacing import Ledger
from adstool.marketplace.strategies import STRATEGIES, Ortb, make_bidder

FRACTIONS = ("1/2", "1/4", "1/8", "1/16", "1/32", "1/64")  # the budgets of the iPinYou benchmark
STEP = 100  # auctions between two reports of what was won
HINDSIGHT = "hindsight"  # the best constant of `linear`, chosen knowing the part that is bid on


@dataclass(frozen=True)
class Recorded:
    """Auctions in the order in which they came; float64 [N] each."""

    click: np.ndarray  # 0 or 1: whether the view was clicked
    price: np.ndarray  # what the best other bid was
    ctr: np.ndarray  # the click rate that was predicted

    def __len__(self) -> int:
        return len(self.click)

    def part(self, start: int, end: int) -> Recorded:
        """Auctions from `start` to before `end`."""
        return Recorded(self.click[start:end], self.price[start:end], self.ctr[start:end])


@dataclass(frozen=True)
class Won:
    """What one strategy won under one budget."""

    strategy: str
    budget: float  # money
    clicks: int
    spend: float
    value: float  # clicks that were expected
    auctions: int
    wins: int

    @property
    def win_rate(self) -> float:
        """The share of auctions won."""
        return self.wins / max(self.auctions, 1)


def read_recorded(path: Path) -> Recorded:
    """Lines of `click price predicted_ctr`, apart by blanks, tabs or commas; .gz is read as well.

    Raises DataError for a file that is not of that form.
    """
    form = "A line is: click (0 or 1), market price, predicted click rate."
    line = 0

    def texts(handle: IO[bytes]) -> Iterator[str]:
        nonlocal line
        for line, raw in physical_lines(handle):  # noqa: B007
            yield raw.decode()

    if not path.is_file():
        raise DataError(f"{path} is not a file.", "Name a file of recorded auctions.")
    try:
        with warnings.catch_warnings(), _opened(path) as handle:
            warnings.simplefilter("ignore")  # of an empty file, which is said below
            table = np.loadtxt(texts(handle), delimiter=_delimiter(path), ndmin=2, comments=None)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read: {error}", "Check that it is whole and what its name says."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}, line {line}: {str(error)[:200]}", form) from None
    if table.shape[0] < 2 or table.shape[1] != 3:
        raise DataError(f"{path} has {table.shape[0]} lines of {table.shape[1]} numbers.", form)
    click, price, ctr = np.ascontiguousarray(table.T)
    wrong = ~(np.isin(click, (0, 1)) & (price >= 0) & np.isfinite(price) & (ctr >= 0) & (ctr <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        found = " ".join(map(str, table[row]))
        raise DataError(f"{path}, line {_line_of(path, row)}: {found} is no auction.", form)
    return Recorded(click, price, ctr)


def _opened(path: Path) -> IO[bytes]:
    handle: IO[bytes] = open_stream(path, "gzip" if path.suffix == ".gz" else "none")
    return handle


def _delimiter(path: Path) -> str | None:
    with _opened(path) as handle:
        return "," if b"," in handle.readline(1 << 16) else None


def _line_of(path: Path, row: int) -> int:
    """The line of a record, from 1: blank lines are none."""
    with _opened(path) as handle:
        records = (number for number, raw in physical_lines(handle) if raw.strip())
        return next(islice(records, row, None))


def budget_of(text: str, bid_on: Recorded) -> float:
    """Money from `1/8`, a share of what all auctions that are bid on cost together, or from a number.

    Raises UsageError for anything else.
    """
    above, mark, below = text.partition("/")
    try:
        share = float(above) / (float(below) if mark else 1.0)
    except (ValueError, ZeroDivisionError):
        share = 0.0
    if not 0 < share < float("inf"):
        raise UsageError(
            f"--budget {text[:80]} is no budget.", "Write a share such as 1/8, an amount, or all."
        )
    money = share * float(bid_on.price.sum()) if mark else share
    if not 0 < money < float("inf"):
        raise UsageError(
            f"--budget {text[:80]} of these auctions is {money:g}.",
            "Auctions need prices, and budgets an end.",
        )
    return money


def fit_multiplier(fit: Recorded, share: float) -> float:
    """The constant of `linear` that spends `share` of the cost of all auctions of the fit."""
    ratio = fit.price / np.maximum(fit.ctr, 1e-12)
    order = np.argsort(ratio, kind="stable")
    cost = np.cumsum(fit.price[order])
    place = np.searchsorted(cost, min(share, 1.0) * cost[-1])
    return float(max(ratio[order[min(place, len(order) - 1)]], 1e-12))


def fit_ortb(fit: Recorded, share: float) -> tuple[float, float]:
    """c, by least squares of bid / (bid + c) against the share of auctions that a bid wins, and 1 / lambda
    with which the fit would have cost `share` of all its auctions.
    """
    from scipy.optimize import brentq, minimize_scalar

    bids = np.quantile(fit.price, np.linspace(0.01, 0.99, 99))
    wins = np.searchsorted(np.sort(fit.price), bids, side="right") / len(fit)
    scale = max(float(np.median(fit.price)), 1e-9)
    c = scale * float(
        np.exp(
            minimize_scalar(
                lambda log: float(((bids / (bids + scale * np.exp(log)) - wins) ** 2).sum()),
                bounds=(-6, 6),
                method="bounded",
            ).x
        )
    )
    wanted = min(share, 1.0) * float(fit.price.sum())

    def beyond(log_slope: float) -> float:
        bid = np.sqrt(c * np.exp(log_slope) * fit.ctr + c * c) - c
        return float(fit.price[bid >= fit.price].sum()) - wanted

    low, high = np.log(1e-6 * c), np.log(1e9 * c)
    if beyond(low) >= 0 or beyond(high) <= 0:
        return c, float(np.exp(high))
    return c, float(np.exp(brentq(beyond, low, high, xtol=1e-6)))


def prepare(name: str, fit: Recorded, budget: float, cost: float) -> Bidder:
    """A bidder of one campaign with `budget`, of `cost` that all auctions would take, fitted on `fit`.

    Raises UsageError for an unknown strategy.
    """
    share = budget / max(cost, 1e-12)
    multiplier = fit_multiplier(fit, share)
    money, none = np.array([budget]), np.zeros(1)
    if name == "fixed":  # the bid that spends the budget, whatever the click rate
        flat = fit_multiplier(Recorded(fit.click, fit.price, np.ones(len(fit))), share)
        return make_bidder(name, Campaigns(np.array([flat]), money, none))
    campaign = Campaigns(np.array([multiplier]), money, none)
    if name == "ortb":
        c, slope = fit_ortb(fit, share)
        return Ortb(campaign, np.array([c]), np.array([slope]))
    return make_bidder(name, campaign)


def replay(name: str, bidder: Bidder, bid_on: Recorded, budget: float, predicted: int) -> Won:
    """Bid on every auction until the budget is spent; `predicted`: auctions that were expected to come.

    The bidder hears of its wins every STEP auctions; the budget holds for each auction.
    """
    ledger, clicks, value, wins = Ledger(np.array([budget])), 0, 0.0, 0
    for start in range(0, len(bid_on), STEP):
        step = bid_on.part(start, start + STEP)
        one = np.zeros(len(step), dtype=np.int64)
        reached = np.flatnonzero(bidder.bids(step.ctr, one) >= step.price)
        won = reached[ledger.reserve(one[reached], step.price[reached])]
        price = step.price[won]
        ledger.settle(one[won], price, price)
        clicks, wins = clicks + int(step.click[won].sum()), wins + len(won)
        expected = step.ctr[won].sum()
        value += float(expected)
        bidder.observe(Delivery(len(step) / predicted, np.array([price.sum()]), np.array([expected])))
    return Won(name, budget, clicks, float(ledger.spent[0]), value, len(bid_on), wins)


def in_hindsight(bid_on: Recorded, budget: float) -> Won:
    """The auctions that are cheapest a predicted click, as many as the budget buys: `linear` with the
    constant that only who knows them all could choose.
    """
    order = np.argsort(bid_on.price / np.maximum(bid_on.ctr, 1e-12), kind="stable")
    cost = np.cumsum(bid_on.price[order])
    won = order[: np.searchsorted(cost, budget, side="right")]
    spend, value = float(bid_on.price[won].sum()), float(bid_on.ctr[won].sum())
    return Won(HINDSIGHT, budget, int(bid_on.click[won].sum()), spend, value, len(bid_on), len(won))


def replay_all(recorded: Recorded, budgets: list[str], names: list[str]) -> dict[str, dict[str, Won]]:
    """Strategy -> budget as given -> what it won of the second half, fitted on the first.

    Raises UsageError for an unknown strategy or a budget that is none.
    """
    half = len(recorded) // 2
    fit, bid_on = recorded.part(0, half), recorded.part(half, len(recorded))
    money = {text: budget_of(text, bid_on) for text in budgets}
    cost = float(bid_on.price.sum())

    def of(name: str) -> Callable[[float], Won]:
        if name == HINDSIGHT:
            return lambda budget: in_hindsight(bid_on, budget)
        return lambda budget: replay(name, prepare(name, fit, budget, cost), bid_on, budget, len(fit))

    for name in names:
        if name not in (*STRATEGIES, HINDSIGHT):
            raise UsageError(f"There is no strategy '{name}'.", choose(name, ("all", *STRATEGIES)))
    return {name: {text: of(name)(budget) for text, budget in money.items()} for name in names}
