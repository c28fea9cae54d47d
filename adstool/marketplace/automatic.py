"""Bidding of a whole market: campaigns that name their bid bid it, the others leave it to a strategy."""

from __future__ import annotations

import numpy as np

from adstool.marketplace.bidding import Campaigns, Delivery
from adstool.marketplace.market import CONVERSIONS, FIXED, MONEY, Advertised
from adstool.marketplace.strategies import make_bidder

CEILING = 10.0  # times the bid that a campaign names: what a strategy may bid at most for typical clicks
LEAST_WORTH = 1e-6  # of a click, so that campaigns whose clicks bring nothing have a bid to begin with


class Bidding:
    """One market's bids. `fixed` bids the campaigns' own bid a click for all of them."""

    def __init__(self, campaigns: Advertised, strategy: str, typical: np.ndarray) -> None:
        """typical: what a click is worth on average by campaign, float64 [K], in its own unit: strategies
        begin at the bid a click that the campaign names. Raises UsageError for an unknown strategy.
        """
        self.campaigns = campaigns
        self.automatic = (campaigns.pays_for != FIXED) & (strategy != "fixed")
        bid = campaigns.bid / np.maximum(typical, LEAST_WORTH)
        # Where neither budget nor target binds, two such campaigns would outbid each other for ever.
        asked = Campaigns(bid, campaigns.budget, campaigns.target, most=CEILING * bid)
        self.bidder = make_bidder(strategy, asked)

    def worth(self, campaign: np.ndarray, conversions: np.ndarray, value: np.ndarray) -> np.ndarray:
        """What a click brings in the unit that the campaign pays for: one click, conversions, or money."""
        unit = self.campaigns.pays_for[campaign]
        return np.where(unit == MONEY, value, np.where(unit == CONVERSIONS, conversions, 1.0))

    def bids(self, worth: np.ndarray, campaign: np.ndarray) -> np.ndarray:
        """Money a click, float64 of the shape of `worth`."""
        own = self.campaigns.bid[campaign]
        if not self.automatic.any():
            return np.asarray(own)
        return np.where(self.automatic[campaign], self.bidder.bids(worth, campaign), own)

    def observe(self, delivery: Delivery) -> None:
        """What a step brought."""
        self.bidder.observe(delivery)

    def new_day(self) -> None:
        """Midnight."""
        self.bidder.new_day()
