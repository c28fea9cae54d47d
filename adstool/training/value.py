"""What showing an item is worth: to its user, and to the platform. Every stage of the funnel ranks by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adstool.config import Action, Settings


@dataclass(frozen=True)
class Value:
    """The one definition of value, over the heads of one model.

    utility = sum_a weight_a w_a over the actions of the settings, w the probability of a binary action and
    the expected amount of another in typical ones; an ad is worth bid * p(click) + utility_weight * utility,
    in money. Changing a weight changes every stage at once, without new vectors.
    """

    weights: np.ndarray  # float64 [A]
    click: int  # column of the action that is paid for
    utility_weight: float

    @classmethod
    def of(cls, settings: Settings, heads: Sequence[str]) -> Value:
        """For a model with these heads; a head that the settings do not know weighs nothing."""
        weight = {action.name: action.weight for action in settings.actions}
        weights = np.array([weight.get(name, 0.0) for name in heads], dtype=np.float64)
        return cls(weights, paid_head(settings.actions, heads), settings.auction.utility_weight)

    def utility(self, worth: np.ndarray) -> np.ndarray:
        """Worth to the user, float64 [n], of probabilities or amounts [n, A]."""
        return np.asarray(worth @ self.weights)

    def score(
        self, probability: np.ndarray, bids: np.ndarray | None, worth: np.ndarray | None = None
    ) -> np.ndarray:
        """What ranks: money with bids [n], utility alone without (a corpus of pins).

        worth [n, A]: what the utility weighs, the probabilities where it is not given.
        """
        utility = self.utility(probability if worth is None else worth)
        if bids is None:
            return utility
        return np.asarray(bids * probability[:, self.click] + self.utility_weight * utility)


def paid_head(actions: Sequence[Action], heads: Sequence[str]) -> int:
    """The head that bids pay for: 'click', else the first wanted action, else the first head."""
    if "click" in heads:
        return list(heads).index("click")
    wanted = [action.name for action in actions if action.positive and action.name in heads]
    return list(heads).index(wanted[0]) if wanted else 0


def bids_of(bid: np.ndarray, reserve: float) -> np.ndarray:
    """Bids a click, float64 [n]: the campaign's own, the median of the others' where it names none.

    Without any bid at all everybody bids the reserve.
    """
    known = bid[np.isfinite(bid)]
    default = float(np.median(known)) if len(known) else reserve
    return np.where(np.isfinite(bid), bid, default)
