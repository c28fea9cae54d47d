"""Auctions against hand-worked cases, brute force over assignments, and what theory promises."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adstool.config import AuctionSettings, Format
from adstool.errors import AdstoolError
from adstool.marketplace.auction import (
    RULES,
    Cap,
    exposure_curve,
    exposure_of_ads,
    run_auction,
    run_auctions,
)

CURVE = np.array([1.0, 0.5])


def prices(rule: str, bids: list[float], click: list[float] | None = None, **options: object) -> list[float]:
    rates = np.ones(len(bids)) if click is None else np.array(click)
    return run_auction(np.array(bids), rates, CURVE, rule=rule, **options).prices.tolist()  # type: ignore[arg-type]


def test_three_bidders_two_slots() -> None:
    # Bids 10, 4, 2 for slots seen 1 and .5. GSP: the next bid. VCG, first slot: the second bidder loses
    # half a click worth 4, the third half a click worth 2: 3. Second slot: the third loses .5 * 2, a click 2.
    assert prices("first_price", [10, 4, 2]) == [10, 4]
    assert prices("gsp", [10, 4, 2]) == [4, 2]
    assert prices("vcg", [10, 4, 2]) == [3, 2]


def test_click_rates_turn_the_order_and_scale_the_price() -> None:
    # Scores .4, .6, .1: the second candidate wins and needs .4 / .3 a click; the first needs .1 / .1.
    result = run_auction(np.array([4.0, 2.0, 0.2]), np.array([0.1, 0.3, 0.5]), CURVE, rule="gsp")
    assert result.winners.tolist() == [1, 0]
    assert result.scores == pytest.approx([0.6, 0.4])
    assert result.prices == pytest.approx([0.4 / 0.3, 1.0])


def test_bonus_lowers_the_price_that_holds_the_slot() -> None:
    # Score of the first: 1 * .2 + .1 = .3 against .2: it needs b * .2 + .1 = .2, so .5.
    result = run_auction(
        np.array([1.0, 1.0]), np.array([0.2, 0.2]), np.array([1.0]), bonus=np.array([0.1, 0.0]), rule="gsp"
    )
    assert result.winners.tolist() == [0]
    assert result.prices == pytest.approx([0.5])


def test_reserve_keeps_low_bids_out_and_floors_the_price() -> None:
    assert prices("gsp", [3, 1, 0.5], reserve=0.8) == [1, 0.8]
    assert prices("gsp", [3, 0.5], reserve=0.8) == [0.8]
    assert prices("vcg", [3, 0.5], reserve=0.8) == [0.8]
    assert prices("first_price", [0.5], reserve=0.8) == []


def test_no_candidates_and_zero_click_rates() -> None:
    for rule in RULES:
        assert len(run_auction(np.array([]), np.array([]), CURVE, rule=rule).winners) == 0
        result = run_auction(np.array([1.0, 2.0]), np.zeros(2), CURVE, rule=rule, reserve=0.1)
        assert np.isfinite(result.prices).all()
        assert (result.prices <= np.array([1.0, 2.0])[result.winners]).all()


def test_unknown_rule_is_named() -> None:
    with pytest.raises(AdstoolError, match="third_price"):
        prices("third_price", [1])


def test_exposure_goes_on_by_the_last_ratio() -> None:
    form = Format("standard", 3, (1.0, 0.8, 0.4))
    assert exposure_curve(form, 2).tolist() == [1.0, 0.8]
    assert exposure_curve(form, 5).tolist() == [1.0, 0.8, 0.4, 0.2, 0.1]
    assert exposure_curve(Format("one", 1, (0.5,)), 3).tolist() == [0.5, 0.5, 0.5]
    for bad in ((), (0.5, 0.6), (1.2,), (1.0, 0.0)):
        with pytest.raises(AdstoolError, match="exposure"):
            exposure_curve(Format("bad", 1, bad), 3)


def test_load_puts_ads_where_they_may_stand() -> None:
    form = Format("feed", 4, (1.0, 0.8, 0.64, 0.4))
    assert exposure_of_ads(form, AuctionSettings(), 3).tolist() == [1.0, 0.8, 0.64]
    sparse = AuctionSettings(most_ads=2, first=1, spacing=2)
    assert exposure_of_ads(form, sparse, 10).tolist() == [0.8, 0.4]
    assert exposure_of_ads(form, sparse, 1).tolist() == [0.8]
    with pytest.raises(AdstoolError, match="spacing"):
        exposure_of_ads(form, AuctionSettings(spacing=0), 3)


def test_one_ad_of_an_advertiser() -> None:
    # Bids 10 and 8 of one advertiser, then 4 and 2 of others; slots seen 1 and .5. Without the 10 the 8 holds
    # the first slot, and then no bid of the first ad has the second: 8 a click under both rules. Without the
    # 4 the second slot is the 2's.
    cap = Cap(np.array([0, 0, 1, 2]), 1)
    assert prices("gsp", [10, 8, 4, 2], caps=[cap]) == [8, 2]
    assert prices("vcg", [10, 8, 4, 2], caps=[cap]) == [8, 2]
    assert prices("first_price", [10, 8, 4, 2], caps=[cap]) == [10, 4]
    # What is not counted has no cap; two of a kind are two.
    assert prices("first_price", [10, 8, 4], caps=[Cap(np.array([-1, -1, 0]), 1)]) == [10, 8]
    assert prices("first_price", [10, 8, 4], caps=[Cap(np.array([5, 5, 5]), 2)]) == [10, 8]


money = st.floats(0.01, 10).map(lambda x: round(x, 3))
rate = st.floats(0.01, 1).map(lambda x: round(x, 3))
curves = st.lists(st.floats(0.05, 1).map(lambda x: round(x, 2)), min_size=1, max_size=3).map(
    lambda xs: np.array(sorted(xs, reverse=True))
)


@st.composite
def markets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 5))
    sides = (draw(st.lists(kind, min_size=n, max_size=n)) for kind in (money, rate, st.floats(-0.5, 0.5)))
    bids, click, bonus = (np.array(side) for side in sides)
    return bids, click, bonus


@given(markets(), curves, st.sampled_from(RULES), st.floats(0, 2))
@settings(max_examples=150, deadline=None)
def test_prices_lie_between_reserve_and_bid(market, curve, rule, reserve) -> None:  # type: ignore[no-untyped-def]
    bids, click, bonus = market
    result = run_auction(bids, click, curve, bonus=bonus, rule=rule, reserve=reserve)
    assert (result.prices <= bids[result.winners] + 1e-12).all()
    assert (result.prices >= reserve - 1e-12).all()
    assert len(set(result.winners.tolist())) == len(result.winners)
    assert len(result.winners) == min(len(curve), int((bids >= reserve).sum()))


@given(markets(), curves)
@settings(max_examples=100, deadline=None)
def test_the_assignment_is_the_best_of_all(market, curve) -> None:  # type: ignore[no-untyped-def]
    bids, click, bonus = market
    score = bids * click + bonus
    slots = min(len(curve), len(bids))
    best = max((score[list(p)] * curve[:slots]).sum() for p in permutations(range(len(bids)), slots))
    result = run_auction(bids, click, curve, bonus=bonus, rule="vcg")
    assert (result.scores * curve[: len(result.scores)]).sum() == pytest.approx(best)


@given(markets(), curves)
@settings(max_examples=100, deadline=None)
def test_vcg_charges_what_the_others_lose(market, curve) -> None:  # type: ignore[no-untyped-def]
    bids, click, _ = market
    score = bids * click

    def welfare(without: int | None) -> float:
        there = [i for i in range(len(bids)) if i != without]
        slots = min(len(curve), len(there))
        return max((score[list(p)] * curve[:slots]).sum() for p in permutations(there, slots))

    result = run_auction(bids, click, curve, rule="vcg")
    for slot, winner in enumerate(result.winners):
        others_now = welfare(None) - score[winner] * curve[slot]
        others_without = welfare(winner) if len(bids) > 1 else 0.0
        paid = result.prices[slot] * click[winner] * curve[slot]
        assert paid == pytest.approx(others_without - others_now, abs=1e-9)


def surplus(bidder: int, value: float, bids, click, curve, bonus, rule, reserve, caps=()) -> float:  # type: ignore[no-untyped-def]
    result = run_auction(bids, click, curve, bonus=bonus, rule=rule, reserve=reserve, caps=caps)
    for slot, winner in enumerate(result.winners):
        if winner == bidder:
            return float((value - result.prices[slot]) * click[bidder] * curve[slot])
    return 0.0


kinds = st.lists(st.integers(-1, 2), min_size=5, max_size=5).map(np.array)


def capped(advertiser: np.ndarray, category: np.ndarray, most: int, count: int) -> list[Cap]:
    """Two caps that cross each other, or none where most is 0."""
    return [Cap(advertiser[:count], 1), Cap(category[:count], most)] if most else []


@given(markets(), curves, st.sampled_from([0.0, 0.5]), kinds, kinds, st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_vcg_rewards_the_truth(market, curve, reserve, advertiser, category, most) -> None:  # type: ignore[no-untyped-def]
    bids, click, bonus = market
    rules = ("vcg", reserve, capped(advertiser, category, most, len(bids)))
    for bidder, value in enumerate(bids):
        truthful = surplus(bidder, value, bids, click, curve, bonus, *rules)
        assert truthful >= -1e-12  # taking part never costs
        for lie in np.concatenate([np.linspace(0, 12, 7), bids * 0.99, bids * 1.01]):
            other = bids.copy()
            other[bidder] = lie
            assert truthful >= surplus(bidder, value, other, click, curve, bonus, *rules) - 1e-9


@given(markets(), curves, st.floats(0, 1), kinds, kinds, st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_gsp_charges_the_lowest_bid_that_holds_the_slot(  # type: ignore[no-untyped-def]
    market, curve, reserve, advertiser, category, most
) -> None:
    bids, click, bonus = market
    options = {"bonus": bonus, "reserve": reserve, "caps": capped(advertiser, category, most, len(bids))}
    result = run_auction(bids, click, curve, rule="gsp", **options)
    for slot, (winner, price) in enumerate(zip(result.winners, result.prices, strict=True)):
        for bid, holds in ((price + 1e-6, True), (price - 1e-6, False)):
            other = bids.copy()
            other[winner] = bid
            again = run_auction(other, click, curve, rule="gsp", **options).winners
            assert (len(again) > slot and again[slot] == winner and holds) or (
                not holds and winner not in again[: slot + 1]
            )


def greedy(score: np.ndarray, able: np.ndarray, slots: int, caps: list[Cap]) -> list[int]:
    """The rule of slots and caps, one candidate after the other."""
    won: list[int] = []
    for candidate in sorted(np.flatnonzero(able).tolist(), key=lambda i: (-score[i], i)):
        full = any(
            cap.of[candidate] >= 0 and sum(cap.of[other] == cap.of[candidate] for other in won) >= cap.most
            for cap in caps
        )
        if len(won) < slots and not full:
            won.append(candidate)
    return won


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("most", [0, 2])
def test_many_auctions_are_as_many_single_ones(rule: str, most: int) -> None:
    rng = np.random.default_rng(most)
    shape, curve = (9000, 7), np.array([1.0, 0.8, 0.3])  # more than one chunk
    bids, click, bonus = rng.integers(0, 5, shape) * 1.0, rng.choice([0, 0.1, 0.2], shape), rng.random(shape)
    bonus[::2] = 0.0  # ties
    allowed = rng.random(shape) < 0.8
    advertiser, category = rng.integers(-1, 4, (2, *shape))
    many = run_auctions(
        bids,
        click,
        curve,
        bonus=bonus,
        rule=rule,
        reserve=1.0,
        allowed=allowed,
        caps=[Cap(advertiser, 1), Cap(category, most)] if most else [],
    )
    for row in (*range(0, 9000, 31), 8191, 8192, 8999):
        there = np.flatnonzero(allowed[row])
        caps = [Cap(advertiser[row], 1), Cap(category[row], most)] if most else []
        single = run_auction(
            bids[row][there],
            click[row][there],
            curve,
            bonus=bonus[row][there],
            rule=rule,
            reserve=1.0,
            caps=[Cap(cap.of[there], cap.most) for cap in caps],
        )
        won, score = len(single.winners), bids[row] * click[row] + bonus[row]
        assert many.winners[row].tolist() == [*there[single.winners], *[-1] * (3 - won)]
        assert many.winners[row, :won].tolist() == greedy(score, allowed[row] & (bids[row] >= 1), 3, caps)
        assert many.prices[row].tolist() == [*single.prices, *[0.0] * (3 - won)]
        assert many.scores[row].tolist() == [*single.scores, *[0.0] * (3 - won)]


def test_gsp_does_not_reward_the_truth() -> None:
    # The textbook case: slots .5 and .4, values 10 9 4. Bidding 5 instead of 10 gives the second slot at 4.
    curve, click, bonus = np.array([0.5, 0.4]), np.ones(3), np.zeros(3)
    honest = surplus(0, 10, np.array([10.0, 9, 4]), click, curve, bonus, "gsp", 0)
    shaded = surplus(0, 10, np.array([5.0, 9, 4]), click, curve, bonus, "gsp", 0)
    assert (honest, shaded) == (pytest.approx(0.5), pytest.approx(2.4))


@given(markets(), curves, st.sampled_from(RULES), st.randoms())
@settings(max_examples=100, deadline=None)
def test_order_of_candidates_does_not_matter(market, curve, rule, random) -> None:  # type: ignore[no-untyped-def]
    bids, click, bonus = (np.tile(side, 2) for side in market)  # every candidate twice: ties everywhere
    names = np.array([f"c{i}" for i in range(len(bids))])
    first = run_auction(bids, click, curve, bonus=bonus, rule=rule, tie_break=names)
    order = list(range(len(bids)))
    random.shuffle(order)
    second = run_auction(
        bids[order], click[order], curve, bonus=bonus[order], rule=rule, tie_break=names[order]
    )
    assert names[first.winners].tolist() == names[order][second.winners].tolist()
    assert first.prices == pytest.approx(second.prices)
