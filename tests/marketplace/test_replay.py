"""Recorded auctions bid on again, against one auction after the other and what can be known of a real log."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from support import SHARED_DATA, cli_json, run_cli

from adstool.errors import DataError, UsageError
from adstool.marketplace.bidding import Campaigns, Delivery
from adstool.marketplace.replay import (
    FRACTIONS,
    HINDSIGHT,
    STEP,
    Recorded,
    budget_of,
    fit_multiplier,
    fit_ortb,
    in_hindsight,
    prepare,
    read_recorded,
    replay,
    replay_all,
)
from adstool.marketplace.strategies import STRATEGIES, make_bidder

IPINYOU = SHARED_DATA / "ipinyou_replay" / "2997.test.theta.txt"


def made(auctions: int, seed: int = 0, drift: float = 1.0) -> Recorded:
    """Prices gamma, click rates beta; in the second half prices are `drift` times as high."""
    rng = np.random.default_rng(seed)
    price, ctr = rng.gamma(2, 30, auctions).round() + 1, rng.beta(2, 400, auctions)
    price[auctions // 2 :] *= drift
    return Recorded((rng.random(auctions) < ctr) * 1.0, price, ctr)


@pytest.mark.parametrize("name", ["linear", "dual"])
def test_a_replay_is_one_auction_after_the_other(name: str) -> None:
    log, budget = made(950), 4000.0
    campaign = Campaigns(np.array([12_000.0]), np.array([budget]), np.zeros(1))
    won = replay(name, make_bidder(name, campaign), log, budget, len(log))
    bidder, left, clicks, wins = make_bidder(name, campaign), budget, 0.0, 0
    for start in range(0, len(log), STEP):
        open_, spend, value = True, 0.0, 0.0
        part = log.part(start, start + STEP)
        for click, price, ctr in zip(part.click, part.price, part.ctr, strict=True):
            if open_ and bidder.bids(np.array([ctr]), np.array([0]))[0] >= price:
                open_ = price <= left
                if open_:
                    left, spend, value = left - price, spend + price, value + ctr
                    clicks, wins = clicks + click, wins + 1
        bidder.observe(Delivery(len(part) / len(log), np.array([spend]), np.array([value])))
    assert (won.clicks, won.wins, won.spend) == (clicks, wins, pytest.approx(budget - left))
    assert won.spend <= budget
    assert won.win_rate == wins / 950


def test_fits_spend_the_share_on_the_part_they_are_fitted_on() -> None:
    fit = made(20_000)
    total = fit.price.sum()
    for share in (0.5, 0.1):
        bids = fit.ctr * fit_multiplier(fit, share)
        assert fit.price[bids >= fit.price].sum() == pytest.approx(share * total, rel=0.01)
        c, slope = fit_ortb(fit, share)
        bids = np.sqrt(c * slope * fit.ctr + c * c) - c
        assert fit.price[bids >= fit.price].sum() == pytest.approx(share * total, rel=0.01)
        # The winning curve c stands for is as near to the log's as any on a grid.
        prices = np.quantile(fit.price, np.linspace(0.01, 0.99, 99))
        wins = (fit.price[None] <= prices[:, None]).mean(axis=1)
        miss = [((prices / (prices + other) - wins) ** 2).sum() for other in (c, *np.linspace(1, 300, 600))]
        assert miss[0] <= min(miss) + 1e-6


def test_only_the_first_half_is_fitted_on() -> None:
    log = made(4000)
    other = Recorded(log.click.copy(), log.price.copy(), log.ctr.copy())
    other.price[2000:], other.ctr[2000:] = 7.0, 0.5
    value, one = np.array([0.001, 0.02]), np.zeros(2, dtype=int)
    for name in STRATEGIES:
        bids = [prepare(name, part.part(0, 2000), 900.0, 9000.0).bids(value, one) for part in (log, other)]
        assert bids[0].tolist() == bids[1].tolist()
        assert (bids[0] > 0).all()


def test_hindsight_is_the_best_constant() -> None:
    log, budget = made(3000), 20_000.0
    best = in_hindsight(log, budget)
    assert best.spend <= budget
    for constant in np.quantile(log.price / log.ctr, np.linspace(0.02, 0.9, 40)):
        won = log.ctr * constant >= log.price
        assert log.price[won].sum() > budget or log.ctr[won].sum() <= best.value + 1e-9


@pytest.mark.parametrize("drift", [0.7, 1.4])
def test_feedback_finds_the_price_that_a_constant_misses(drift: float) -> None:
    found = replay_all(made(40_000, drift=drift), ["1/4"], ["linear", "pid", "dual", HINDSIGHT])
    value = {name: of["1/4"].value for name, of in found.items()}
    assert value["linear"] < 0.93 * value[HINDSIGHT]
    assert min(value["pid"], value["dual"]) > 0.98 * value[HINDSIGHT]


@pytest.mark.skipif(not IPINYOU.is_file(), reason="the iPinYou replay is not there")
def test_on_ipinyou_feedback_is_as_good_as_hindsight() -> None:
    found = replay_all(read_recorded(IPINYOU), list(FRACTIONS), [*STRATEGIES, HINDSIGHT])
    clicks = {name: np.array([of[share].clicks for share in FRACTIONS]) for name, of in found.items()}
    assert clicks[HINDSIGHT].tolist() == [197, 135, 95, 65, 47, 27]  # as others have computed it
    for name in ("pid", "dual"):
        assert (clicks[name] > np.maximum(clicks["linear"], clicks["ortb"])).all()
        assert clicks[name].sum() >= 0.98 * clicks[HINDSIGHT].sum()
    assert all(won.spend <= won.budget for of in found.values() for won in of.values())


def test_the_verb(tmp_path: Path) -> None:
    log = made(600)
    lines = [f"{int(c)} {p:.0f} {q:.6f}\n" for c, p, q in zip(log.click, log.price, log.ctr, strict=True)]
    (tmp_path / "log.txt").write_text("".join(lines))
    (tmp_path / "log.csv").write_text("".join(lines).replace(" ", ","))
    one = cli_json("simulate", "--replay", tmp_path / "log.txt", "--budget", "1/4", "--strategy", "dual")
    expected = replay_all(read_recorded(tmp_path / "log.csv"), ["1/4"], ["dual"])["dual"]["1/4"]
    assert {key: one[key] for key in ("clicks", "spend", "value", "win_rate", "budget", "auctions")} == {
        "clicks": expected.clicks,
        "spend": expected.spend,
        "value": pytest.approx(expected.value),
        "win_rate": expected.win_rate,
        "budget": expected.budget,
        "auctions": 300,
    }
    done = run_cli("simulate", "--replay", tmp_path / "log.csv", "--budget", "all")
    assert done.returncode == 0
    assert all(word in done.stdout for word in (*STRATEGIES, *FRACTIONS, "hindsight", "Next:"))


def test_what_is_no_log_and_no_budget_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    for text, message in (
        ("0 5 0.1\n2 5 0.1\n", "line 2"),
        ("0 5 0.1\n0 5 1.5\n", "line 2"),
        ("0 five 0.1\n", "five"),
        ("0 5 0.1\n\n\n0 5 0.1\n2 5 0.1\n", "line 5"),
        ("\n0 5 0.1\n\n0 5 x\n", "line 4"),
        ("0 5\n1 5\n", "2 lines of 2 numbers"),
        ("", "0 lines"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_recorded(path)
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(b"0 5 0.1\n" * 1000)[:-9])
    with pytest.raises(DataError, match="cannot be read"):  # an EOFError would pass for Ctrl-C
        read_recorded(packed)
    with pytest.raises(DataError, match="not a file"):
        read_recorded(tmp_path / "none.txt")
    log = made(10)
    assert budget_of("1/2", log) == log.price.sum() / 2
    assert budget_of("12.5", log) == 12.5
    for text in ("0", "-1", "1/0", "much", "nan", "1e999", "9e999999999", "1/", "9" * 400):
        with pytest.raises(UsageError, match="budget"):
            budget_of(text, log)
    with pytest.raises(UsageError, match="oracle"):
        replay_all(log, ["1/2"], ["oracle"])
