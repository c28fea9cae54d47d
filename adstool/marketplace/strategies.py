"""The strategies of bidding, one a row of STRATEGIES.

Most bid value x multiplier. With second prices that is the best form under a budget: it buys whatever is
worth more than 1 / multiplier of its price. They differ in how the multiplier is found.

Under a target tau (value a unit of money) the value of an event is worth value / tau money, so that a
multiplier of 1 / tau meets the target whatever the prices; since prices lie below bids, more can be afforded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adstool.errors import UsageError, choose
from adstool.marketplace.bidding import Bidder, Campaigns, Delivery

LEAST = 1e-12


class Fixed(Bidder):
    """The same bid for every event."""

    def bids(self, value: np.ndarray, campaign: np.ndarray) -> np.ndarray:
        return np.asarray(np.broadcast_to(self.campaigns.bid[campaign], value.shape))


class Linear(Bidder):
    """value x a constant (Perlich et al. 2012)."""

    KEEPS: tuple[str, ...] = ("multiplier",)

    def __init__(self, campaigns: Campaigns) -> None:
        super().__init__(campaigns)
        self.multiplier = campaigns.bid.copy()

    def bids(self, value: np.ndarray, campaign: np.ndarray) -> np.ndarray:
        return np.asarray(value * self.multiplier[campaign])


class Ortb(Bidder):
    """sqrt(c / lambda x value + c^2) - c, the best bid where winning has the chance bid / (bid + c) and the
    price is about the bid (Zhang, Yuan, Wang 2014, ORTB1).

    `slope` is 1 / lambda.
    """

    KEEPS = ("c", "slope")

    def __init__(
        self, campaigns: Campaigns, c: np.ndarray | None = None, slope: np.ndarray | None = None
    ) -> None:
        super().__init__(campaigns)
        self.c = np.ones(len(campaigns)) if c is None else c
        # For small values the bid is value x slope / 2.
        self.slope = 2 * campaigns.bid if slope is None else slope

    def bids(self, value: np.ndarray, campaign: np.ndarray) -> np.ndarray:
        c = self.c[campaign]
        return np.asarray(np.sqrt(c * self.slope[campaign] * value + c * c) - c)


class _Paced(Linear):
    """value x the lesser of two multipliers, one that keeps to the budget and one that keeps to the target.

    Budgets are paced by predicted traffic: a step should spend what is left of the budget in proportion to
    the traffic of the step and of the rest of the day.
    """

    KEEPS: tuple[str, ...] = ("multiplier", "passed", "spent", "pace", "worth")
    MEMORY = 0.1  # of a day's traffic, over which pace and worth are smoothed
    WINDUP = 3.0  # the multiplier that does not bind stays within this factor of the one that does

    def __init__(self, campaigns: Campaigns) -> None:
        super().__init__(campaigns)
        self.passed = np.zeros(1)  # share of the day's traffic
        self.spent = np.zeros(len(campaigns))  # today
        self.pace = np.zeros(len(campaigns))  # money a day, smoothed
        self.worth = np.zeros(len(campaigns))  # value a day, smoothed
        self.limited, self.aimed = np.isfinite(campaigns.budget), campaigns.target > 0
        self.tau = np.where(self.aimed, campaigns.target, 1.0)

    def new_day(self) -> None:
        self.passed[:] = 0.0
        self.spent[:] = 0.0

    def wanted(self, traffic: float) -> np.ndarray:
        """Money to spend in a step of `traffic`, [C]; inf without a budget."""
        rest = max(1.0 - float(self.passed[0]), traffic, LEAST)
        return np.asarray(np.maximum(self.campaigns.budget - self.spent, 0.0) * (traffic / rest))

    def _advance(self, delivery: Delivery) -> None:
        traffic = max(delivery.traffic, LEAST)
        self.passed += delivery.traffic
        self.spent += delivery.spend
        share = 1 - np.exp(-traffic / self.MEMORY)
        for smoothed, amount in ((self.pace, delivery.spend), (self.worth, delivery.value)):
            rate = amount / traffic
            smoothed += np.where(smoothed > 0, share, 1.0) * (rate - smoothed)

    def _lesser(self, budget: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The multiplier from that of the budget and that of the target, [C] each."""
        least = np.minimum(np.where(self.limited, budget, np.inf), np.where(self.aimed, target, np.inf))
        chosen = np.where(np.isfinite(least), least, self.campaigns.bid)
        return chosen if self.campaigns.most is None else np.minimum(chosen, self.campaigns.most)


class Pid(_Paced):
    """Two controllers side by side, in the logarithm of two multipliers, of which the lesser bids: one of the
    share of the budget spent against the share of predicted traffic passed, one of the recent return against
    the target. Each is proportional, integral and derivative, in the form that needs no sum.

    Traffic share as the controlled variable follows the TA-PID of the BAT benchmark.
    """

    KEEPS = (*_Paced.KEEPS, "logs", "last", "change")
    PROPORTIONAL = np.array([[4.0], [0.3]])
    INTEGRAL = np.array([[8.0], [4.0]])
    DERIVATIVE = np.array([[0.01], [0.001]])

    def __init__(self, campaigns: Campaigns) -> None:
        super().__init__(campaigns)
        self.logs = np.tile(np.log(campaigns.bid), (2, 1))  # log multiplier for budget, for target
        self.last = np.zeros((2, len(campaigns)))  # errors of the last step
        self.change = np.zeros((2, len(campaigns)))  # their slope over traffic

    def observe(self, delivery: Delivery) -> None:
        self._advance(delivery)
        traffic = max(delivery.traffic, LEAST)
        behind = self.passed[0] - self.spent / self.campaigns.budget
        beyond = self.worth / np.maximum(self.tau * self.pace, LEAST) - 1
        error = np.stack([behind, np.clip(np.where(self.pace > 0, beyond, 1.0), -1, 1)])
        change = (error - self.last) / traffic
        self.logs += self.PROPORTIONAL * (error - self.last) + self.INTEGRAL * error * traffic
        self.logs += self.DERIVATIVE * (change - self.change)
        self.last, self.change = error, change
        self.multiplier = self._lesser(*np.exp(self.logs))
        # Without a bound the one that does not bind would drift away and take hours to come back.
        self.logs = np.minimum(self.logs, np.log(self.WINDUP * self.multiplier))

    def new_day(self) -> None:
        super().new_day()
        self.last[0] = 0.0
        self.change[0] = 0.0


class DualDescent(_Paced):
    """The value maximiser under budget and return target: value x min(1 / mu, (1 + lambda) / (lambda tau)).

    mu is the price of the budget and falls while less is spent than wanted; lambda is the price of the target
    and falls while more value comes than tau x spend (Balseiro et al. 2023, min pacing). Both steps are
    taken in the logarithm (mirror descent), in shares of a day's money, so that GAIN is free of units: an
    error as large as the whole day's money moves the multiplier by e^GAIN.
    """

    KEEPS = (*_Paced.KEEPS, "mu", "lam")
    GAIN = 5.0
    MOST = 0.25  # how far one step may move the logarithm

    def __init__(self, campaigns: Campaigns) -> None:
        super().__init__(campaigns)
        self.mu = 1 / campaigns.bid
        # The multiplier of the target begins at that of the bid, where the target allows it.
        self.lam = 1 / np.maximum(campaigns.bid * self.tau - 1, 0.25)
        self._decide()

    def observe(self, delivery: Delivery) -> None:
        wanted = self.wanted(delivery.traffic)
        self._advance(delivery)
        over = np.where(self.limited, delivery.spend - wanted, 0.0) / self.campaigns.budget
        owed = (delivery.spend - delivery.value / self.tau) / np.maximum(self.pace, LEAST)
        self.mu *= np.exp(np.clip(self.GAIN * over, -self.MOST, self.MOST))
        # Steps grow with 1 + lambda, so that the bid moves as fast where lambda is large.
        self.lam *= np.exp(np.clip(self.GAIN * owed * (1 + self.lam), -self.MOST, self.MOST))
        self._decide()

    def _decide(self) -> None:
        self.multiplier = self._lesser(1 / self.mu, (1 + 1 / self.lam) / self.tau)
        # Without a bound the price that does not bind would drift away and take hours to come back.
        most = self.WINDUP * self.multiplier
        self.mu = np.maximum(self.mu, 1 / most)
        self.lam = np.clip(np.maximum(self.lam, 1 / np.maximum(most * self.tau - 1, 0.001)), 0.001, 1000.0)


STRATEGIES: dict[str, Callable[[Campaigns], Bidder]] = {
    "fixed": Fixed,
    "linear": Linear,
    "ortb": Ortb,
    "pid": Pid,
    "dual": DualDescent,
}


def make_bidder(name: str, campaigns: Campaigns) -> Bidder:
    """A bidder of the strategy `name`. Raises UsageError for a name that is not known."""
    if name not in STRATEGIES:
        raise UsageError(f"There is no strategy '{name}'.", choose(name, STRATEGIES))
    return STRATEGIES[name](campaigns)
