"""Auctions for the slots of a slate: who wins which slot, and the price of a click in it.

A candidate i brings a bid b_i (the most it pays for a click), a click probability q_i given that it is seen,
or any other score of quality that stands for it, and a bonus u_i: what showing it is worth besides the bid,
in money. Slot s is seen with probability x_s, x_1 >= x_2 >= ... Slots are filled from the first on, each by
the best score_i = b_i q_i + u_i among those that the caps leave: how many of one advertiser, or one category,
a slate may hold. Without caps, or with one inside the other, that maximises sum_s x_s score. The rules differ
in the price of a click:

- first_price: the bid.
- gsp: the lowest bid that holds the slot, (rival - u_i) / q_i, where the rival is the score that would win
  the slot without i (Edelman, Ostrovsky, Schwarz 2007).
- vcg: what the others lose by i being there, which is also the payment that makes the true value the best bid
  of a candidate (Clarke; Myerson 1981): sum_{t >= s} (x_t - x_{t+1}) threshold_t / x_s, where threshold_t is
  the lowest bid for slot t or a better one. Where the winners of earlier slots would use up i's cap, slot t
  itself is out of i's reach, and its threshold is that of the last slot within.

Bids under the reserve stay out, and no threshold is lower than the reserve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adstool.config import AuctionSettings, Format
from adstool.errors import AdstoolError, choose

RULES = ("first_price", "gsp", "vcg")


CHUNK = 8192  # requests whose scores stay in a core's cache


@dataclass(frozen=True)
class Cap:
    """At most `most` winners of a slate share a number in `of`, int [n] or [R, C]; negative: not counted."""

    of: np.ndarray
    most: int


@dataclass(frozen=True)
class AuctionResult:
    """The slots in order; fewer than asked for when fewer candidates reach the reserve."""

    winners: np.ndarray  # int64 [slots won], index of the candidate
    prices: np.ndarray  # float64 [slots won], money a click
    scores: np.ndarray  # float64 [slots won], b q + u


@dataclass(frozen=True)
class Auctions:
    """R auctions of S slots; a slot that nobody won has winner -1, price 0 and score 0."""

    winners: np.ndarray  # int64 [R, S], index of the candidate
    prices: np.ndarray  # float64 [R, S], money a click
    scores: np.ndarray  # float64 [R, S], b q + u


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


def exposure_of_ads(form: Format, auction: AuctionSettings, ads: int) -> np.ndarray:
    """The exposure of the places that ads may take among what else is shown, float64 [at most `ads`].

    Raises AdstoolError for settings that make no sense.
    """
    if auction.spacing < 1 or min(auction.most_ads, auction.first) < 0:
        raise AdstoolError(
            f"[auction] has most_ads = {auction.most_ads}, first = {auction.first}, "
            f"spacing = {auction.spacing}.",
            "Give a spacing of 1 or more, and the others not below 0.",
        )
    count = min(ads, auction.most_ads or ads)
    return exposure_curve(form, auction.first + auction.spacing * count)[auction.first :: auction.spacing]


def run_auction(
    bids: np.ndarray,
    click: np.ndarray,
    exposure: np.ndarray,
    *,
    bonus: np.ndarray | None = None,
    rule: str = "gsp",
    reserve: float = 0.0,
    caps: Sequence[Cap] = (),
    tie_break: Sequence[str] | np.ndarray | None = None,
) -> AuctionResult:
    """Sell len(exposure) slots to the candidates.

    bids, click, bonus: float [n], money a click, probability, money a view (bonus None: zeros). exposure:
    float [slots], not rising. tie_break: a key a candidate; equal scores go by it, so that the outcome does
    not depend on the order in which candidates come (None: their index).
    Raises AdstoolError for an unknown rule.
    """
    order = np.arange(len(bids)) if tie_break is None else np.argsort(np.asarray(tie_break), kind="stable")
    sold = run_auctions(
        np.asarray(bids)[None, order],
        np.asarray(click)[None, order],
        exposure,
        bonus=None if bonus is None else np.asarray(bonus)[None, order],
        rule=rule,
        reserve=reserve,
        caps=[Cap(np.asarray(cap.of)[None, order], cap.most) for cap in caps],
    )
    won = np.count_nonzero(sold.winners[0] >= 0)
    return AuctionResult(order[sold.winners[0, :won]], sold.prices[0, :won], sold.scores[0, :won])


def run_auctions(
    bids: np.ndarray,
    click: np.ndarray,
    exposure: np.ndarray,
    *,
    bonus: np.ndarray | None = None,
    rule: str = "gsp",
    reserve: float = 0.0,
    allowed: np.ndarray | None = None,
    caps: Sequence[Cap] = (),
) -> Auctions:
    """R requests at once, each by the rule of `run_auction`; of equal scores the first column wins.

    bids, click, bonus: float [R, C]. allowed: bool [R, C], the candidates that take part (None: all).
    exposure: float [S], not rising. Raises AdstoolError for an unknown rule.
    """
    if rule not in RULES:
        raise AdstoolError(f"auction.rule = '{rule}' is not known.", choose(rule, RULES))
    seen = np.asarray(exposure, dtype=np.float64)
    shape = (len(bids), len(seen))
    out = Auctions(np.full(shape, -1, dtype=np.int64), np.zeros(shape), np.zeros(shape))
    slots = min(len(seen), bids.shape[1])
    for start in range(0, len(bids) if slots else 0, CHUNK):
        part = slice(start, start + CHUNK)
        chunk = _Chunk(
            np.asarray(bids[part], dtype=np.float64),
            np.asarray(click[part], dtype=np.float64),
            None if bonus is None else np.asarray(bonus[part], dtype=np.float64),
            reserve,
            None if allowed is None else allowed[part],
            [Cap(cap.of[part], cap.most) for cap in caps],
        )
        prices = chunk.sell(seen[:slots], rule, out.winners[part], out.scores[part])
        out.prices[part, :slots] = prices
    return out


class _Chunk:
    """Some requests' auctions. Slots go one after the other, each to the best score that is left."""

    def __init__(
        self,
        bids: np.ndarray,
        click: np.ndarray,
        bonus: np.ndarray | None,
        reserve: float,
        allowed: np.ndarray | None,
        caps: list[Cap],
    ) -> None:
        self.bids, self.click, self.bonus = bids, click, bonus
        self.reserve, self.caps = reserve, caps
        self.rows = np.arange(len(bids))
        score = bids * click if bonus is None else bids * click + bonus
        able = bids >= reserve if allowed is None else allowed & (bids >= reserve)
        self.left = np.where(able, score, -np.inf)

    def sell(self, seen: np.ndarray, rule: str, winners: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Fill winners and scores, [rows, slots]; the prices, [rows, slots]."""
        slots = len(seen)
        if self.caps:
            won, ranked, rivals = self._fill(slots, rule)
        else:
            won, ranked, rivals = self._rank(slots)
        there = ranked > -np.inf
        winners[:, :slots], scores[:, :slots] = np.where(there, won, -1), np.where(there, ranked, 0.0)
        if rule == "first_price":
            prices = self.bids[self.rows[:, None], won]
        else:
            prices = self._prices(won, rivals, seen, rule)
        return np.where(there, prices, 0.0)

    def _rank(self, slots: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Without caps: the best in order, their scores, and the scores that follow each, its rivals."""
        order = np.argsort(-self.left, axis=1, kind="stable")[:, : slots + 1]
        ranked = self.left[self.rows[:, None], order]
        if ranked.shape[1] == slots:
            ranked = np.pad(ranked, ((0, 0), (0, 1)), constant_values=-np.inf)
        return order[:, :slots], ranked[:, :-1], [ranked[:, slot + 1 :] for slot in range(slots)]

    def _fill(self, slots: int, rule: str) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """With caps: the best that is left for a slot after the other, and who would have them else."""
        picked: list[np.ndarray] = []
        tops: list[np.ndarray] = []
        rivals: list[np.ndarray] = []
        for slot in range(slots):
            best, top = self._take(self.left)
            picked.append(best)
            tops.append(top)
            if rule != "first_price":
                rivals.append(self._without(picked, slots - slot if rule == "vcg" else 1))
            self._close(self.left, picked)
        return np.stack(picked, axis=1), np.stack(tops, axis=1), rivals

    def _take(self, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best of what is left, -1 where nothing is, and its score; it is left no more."""
        best = left.argmax(axis=1)
        top = left[self.rows, best]
        left[self.rows, best] = -np.inf
        return np.where(top > -np.inf, best, -1), top

    def _close(self, left: np.ndarray, picked: list[np.ndarray]) -> None:
        """Leave out those who share a number with the last one picked, where that was the last allowed."""
        for cap in self.caps:
            number, count = self._count(cap, picked[-1], picked)
            full = np.flatnonzero((number >= 0) & (count >= cap.most))
            shared = cap.of[full] == number[full, None]
            left[full] = np.where(shared, -np.inf, left[full])

    def _count(self, cap: Cap, of: np.ndarray, picked: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of candidates `of`, [rows], -1 for none, and how many of `picked` share them."""
        number = np.where(of >= 0, cap.of[self.rows, of], -1)
        others = [np.where(one >= 0, cap.of[self.rows, one], -1) for one in picked]
        return number, np.sum([other == number for other in others], axis=0)

    def _without(self, picked: list[np.ndarray], steps: int) -> np.ndarray:
        """Scores of those who would win the last slot sold and those after it without its winner.

        From the slot on that the winner could not have after them, the score before stands.
        """
        winner, held = picked[-1], picked[:-1]
        left = self.left.copy()
        rivals: list[np.ndarray] = []
        able = np.ones(len(self.rows), dtype=bool)
        for step in range(steps):
            for cap in self.caps if step else ():
                number, count = self._count(cap, winner, held)
                able &= (number < 0) | (count < cap.most)
            best, top = self._take(left)
            rivals.append(np.where(able, top, rivals[-1]) if step else top)
            held = [*held, best]
            self._close(left, held)
        return np.stack(rivals, axis=1)

    def _prices(
        self, winners: np.ndarray, rivals: list[np.ndarray], seen: np.ndarray, rule: str
    ) -> np.ndarray:
        click = self.click[self.rows[:, None], winners]
        bonus = np.zeros_like(click) if self.bonus is None else self.bonus[self.rows[:, None], winners]
        if rule == "gsp":
            prices = self._needed(np.stack([rival[:, 0] for rival in rivals], axis=1), click, bonus)
        else:
            prices, steps = np.empty_like(click), seen - np.append(seen[1:], 0.0)
            for slot, rival in enumerate(rivals):
                own = slice(slot, slot + 1)
                thresholds = self._needed(rival, click[:, own], bonus[:, own])
                prices[:, slot] = (thresholds * steps[slot:]).sum(axis=1) / seen[slot]
        # A threshold is at most the bid; rounding may put it a hair above.
        return np.asarray(np.minimum(prices, self.bids[self.rows[:, None], winners]))

    def _needed(self, rival: np.ndarray, click: np.ndarray, bonus: np.ndarray) -> np.ndarray:
        """The lowest bid that reaches the rival's score, not below the reserve."""
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = (rival - bonus) / click
        # Where q = 0 no bid changes the score: the slot is held by the bonus alone, at the reserve.
        return np.asarray(np.maximum(np.where(click > 0, needed, self.reserve), self.reserve))
