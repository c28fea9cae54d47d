"""Auctions for the slots of a slate: who wins which slot, and the price of a click in it.

A candidate i brings a bid b_i (the most it pays for a click), a click probability q_i given that it is seen,
and a bonus u_i: what showing it is worth besides the bid, in money. Slot s is seen with probability x_s,
x_1 >= x_2 >= ... Every rule ranks by score_i = b_i q_i + u_i and puts the best score in the first slot, which
maximises sum_s x_s score. The rules differ in the price of a click:

- first_price: the bid.
- gsp: the lowest bid that holds the slot, (score_{s+1} - u_i) / q_i (Edelman, Ostrovsky, Schwarz 2007).
- vcg: what the others lose by i being there, which is also the payment that makes the true value the best bid
  (Clarke; Myerson 1981): sum_{t >= s} (x_t - x_{t+1}) threshold_t / x_s, where threshold_t is the lowest bid
  for slot t.

Bids under the reserve stay out, and no threshold is lower than the reserve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adstool.config import Format
from adstool.errors import AdstoolError

RULES = ("first_price", "gsp", "vcg")


@dataclass(frozen=True)
class AuctionResult:
    """The slots in order; fewer than asked for when fewer candidates reach the reserve."""

    winners: np.ndarray  # int64 [slots won], index of the candidate
    prices: np.ndarray  # float64 [slots won], money a click
    scores: np.ndarray  # float64 [slots won], b q + u


def exposure_curve(form: Format, slots: int) -> np.ndarray:
    """The chance that each of `slots` slots is seen, float64 [slots].

    Beyond the slots that the format lists, each is seen less by the ratio of the last two listed.
    Raises AdstoolError when the format's curve is empty, rises, or leaves [0, 1].
    """
    listed = np.asarray(form.exposure, dtype=np.float64)
    if not len(listed) or np.any(np.diff(listed) > 0) or listed[0] > 1 or listed[-1] <= 0:
        raise AdstoolError(
            f"Format '{form.name}' has the exposure {list(form.exposure)}.",
            "Give numbers in (0, 1] that do not rise, such as exposure = [1.0, 0.8, 0.6].",
        )
    if slots <= len(listed):
        return listed[:slots]
    ratio = listed[-1] / listed[-2] if len(listed) > 1 else 1.0
    return np.concatenate([listed, listed[-1] * ratio ** np.arange(1, slots - len(listed) + 1)])


def run_auction(
    bids: np.ndarray,
    click: np.ndarray,
    exposure: np.ndarray,
    *,
    bonus: np.ndarray | None = None,
    rule: str = "gsp",
    reserve: float = 0.0,
    tie_break: Sequence[str] | np.ndarray | None = None,
) -> AuctionResult:
    """Sell len(exposure) slots to the candidates.

    bids, click, bonus: float [n], money a click, probability, money a view (bonus None: zeros). exposure:
    float [slots], not rising. tie_break: a key a candidate; equal scores go by it, so that the outcome does
    not depend on the order in which candidates come (None: their index).
    Raises AdstoolError for an unknown rule.
    """
    if rule not in RULES:
        raise AdstoolError(f"auction.rule = '{rule}' is not known.", f"Use one of: {', '.join(RULES)}.")
    bids, click = np.asarray(bids, dtype=np.float64), np.asarray(click, dtype=np.float64)
    bonus = np.zeros_like(bids) if bonus is None else np.asarray(bonus, dtype=np.float64)
    score = bids * click + bonus
    allowed = np.flatnonzero(bids >= reserve)
    keys = np.arange(len(bids)) if tie_break is None else np.asarray(tie_break)
    ranked = allowed[_order(score[allowed], keys[allowed], len(exposure) + 1)]
    winners = ranked[: len(exposure)]
    if rule == "first_price":
        prices = bids[winners]
    else:
        thresholds = _thresholds(winners, score, click, bonus, ranked, reserve)
        prices = np.diag(thresholds) if rule == "gsp" else _vcg(thresholds, np.asarray(exposure))
        # A threshold is at most the bid; rounding may put it a hair above.
        prices = np.minimum(prices, bids[winners])
    return AuctionResult(winners, np.asarray(prices, dtype=np.float64), score[winners])


def _order(score: np.ndarray, keys: np.ndarray, count: int) -> np.ndarray:
    """The `count` best by score, equal ones by key."""
    if count < len(score):
        # All that tie with the last place stay in, so that the keys decide among them.
        last = np.partition(score, len(score) - count)[len(score) - count]
        kept = np.flatnonzero(score >= last)
        return np.asarray(kept[np.lexsort((keys[kept], -score[kept]))][:count])
    return np.asarray(np.lexsort((keys, -score)))


def _thresholds(
    winners: np.ndarray,
    score: np.ndarray,
    click: np.ndarray,
    bonus: np.ndarray,
    ranked: np.ndarray,
    reserve: float,
) -> np.ndarray:
    """[slots, slots]: row s, column t >= s: the lowest bid with which slot s's winner would hold slot t."""
    slots = len(winners)
    rival = np.full(slots, -np.inf)
    following = ranked[1 : slots + 1]
    rival[: len(following)] = score[following]
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = (rival[None, :] - bonus[winners][:, None]) / click[winners][:, None]
    # Where q = 0 no bid changes the score: the slot is held by the bonus alone, at the reserve.
    needed[click[winners] <= 0] = reserve
    return np.asarray(np.maximum(needed, reserve))


def _vcg(thresholds: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    seen = exposure[: len(thresholds)]
    steps = seen - np.append(seen[1:], 0.0)
    return np.asarray((np.triu(thresholds) * steps).sum(axis=1) / seen)
