"""Auctions of many requests at once: the rules of `auction.py` over arrays, for the simulator.

R requests, C candidates each, S slots. Candidates of a request stand in columns; of equal scores the one in
the earlier column wins, so columns in the order of ads give the order that `run_auction` breaks ties by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adstool.errors import AdstoolError
from adstool.marketplace.auction import RULES


@dataclass(frozen=True)
class Slates:
    """Who won, first slot first; -1 and a price of 0 in a slot that nobody reached."""

    winners: np.ndarray  # int64 [R, S], columns of the candidates
    prices: np.ndarray  # float64 [R, S], money a click


def run_auctions(
    bids: np.ndarray,
    click: np.ndarray,
    exposure: np.ndarray,
    *,
    bonus: np.ndarray,
    rule: str = "gsp",
    reserve: float = 0.0,
    allowed: np.ndarray | None = None,
) -> Slates:
    """`run_auction` for every row of bids, click and bonus, float [R, C]; `allowed`: bool [R, C] or None.

    exposure: float [S], not rising. Raises AdstoolError for an unknown rule.
    """
    if rule not in RULES:
        raise AdstoolError(f"auction.rule = '{rule}' is not known.", f"Use one of: {', '.join(RULES)}.")
    rows, columns = bids.shape
    slots = min(len(exposure), columns)
    able = bids >= reserve if allowed is None else allowed & (bids >= reserve)
    score = np.where(able, bids * click + bonus, -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")[:, : slots + 1]
    ranked = np.take_along_axis(score, order, axis=1)
    winners, there = order[:, :slots], np.isfinite(ranked[:, :slots])
    won_bids = np.take_along_axis(bids, winners, axis=1)
    if rule == "first_price":
        prices = won_bids
    else:
        rival = np.full((rows, slots), -np.inf)
        rival[:, : ranked.shape[1] - 1] = ranked[:, 1:]
        won_click = np.take_along_axis(click, winners, axis=1)
        won_bonus = np.take_along_axis(bonus, winners, axis=1)
        if rule == "gsp":
            prices = _needed(rival, won_click, won_bonus, reserve)
        else:
            prices = _vcg(rival, won_click, won_bonus, exposure[:slots], reserve)
        prices = np.minimum(prices, won_bids)
    winners, prices = np.where(there, winners, -1), np.where(there, prices, 0.0)
    if slots < len(exposure):
        empty = ((0, 0), (0, len(exposure) - slots))
        winners, prices = np.pad(winners, empty, constant_values=-1), np.pad(prices, empty)
    return Slates(winners, prices)


def _needed(rival: np.ndarray, click: np.ndarray, bonus: np.ndarray, reserve: float) -> np.ndarray:
    """The lowest bid that holds against a rival's score; the reserve where no bid changes the score."""
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = (rival - bonus) / click
    return np.asarray(np.maximum(np.where(click > 0, needed, reserve), reserve))


def _vcg(
    rival: np.ndarray, click: np.ndarray, bonus: np.ndarray, exposure: np.ndarray, reserve: float
) -> np.ndarray:
    """sum_{t >= s} (x_t - x_{t+1}) threshold_t / x_s, a slot s after the other."""
    steps = exposure - np.append(exposure[1:], 0.0)
    prices = np.empty_like(rival)
    for slot in range(rival.shape[1]):
        own = slice(slot, slot + 1)
        thresholds = _needed(rival[:, slot:], click[:, own], bonus[:, own], reserve)
        prices[:, slot] = thresholds @ steps[slot:] / exposure[slot]
    return prices
