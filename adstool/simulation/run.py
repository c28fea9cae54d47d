"""A simulation: arms over the same days of traffic, and what lies between them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError
from adstool.marketplace.automatic import Bidding
from adstool.marketplace.chance import ARM, dice
from adstool.marketplace.formats import page_of
from adstool.marketplace.market import CONVERSIONS, MONEY, Advertised, Market, Visits, draw_visits
from adstool.marketplace.simulation import Delivered, Terms, simulate_days
from adstool.progress import log
from adstool.simulation.arms import Arm
from adstool.simulation.compare import arm_figures, delivery, differences, gains
from adstool.simulation.traffic import Traffic, gather
from adstool.workspace import Workspace, write_json

if TYPE_CHECKING:
    import duckdb

NAME = "simulation.json"
CANDIDATES = 40  # a request: enough for a full page when budgets of some are used up
ASKED = 1000  # requests sent through the funnel; more visits repeat them


def simulate(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    arms: Sequence[Arm],
    *,
    days: int = 7,
    requests: int = 0,
    asked: int = ASKED,
    split: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of every arm, of the others against the first, and of campaigns; kept in
    reports/simulation.json.

    requests: visits of all days together; 0 takes as many a day as the log has. split: each arm gets its
    share of users and of every budget, as in an experiment where arms must not spend each other's money;
    otherwise each arm is given the same traffic and all of the budgets, and the same dice.
    Raises UsageError for sizes that are none, AdstoolError naming what is missing.
    """
    for name, value, least in (("--days", days, 1), ("--requests", requests, 0), ("--asked", asked, 1)):
        if value < least:
            raise UsageError(f"{name} {value} is too few.", f"Give at least {least}.")
    for arm in arms:  # what cannot be is said before the funnel is asked
        page_of(arm.settings, arm.settings.funnel.slate, arm.new)
    began = time.perf_counter()
    models = [arm.models for arm in arms]
    traffic = gather(ws, settings, con, models, requests=asked, candidates=CANDIDATES, seed=seed)
    needs = [arm.name for arm in arms if arm.strategy not in ("fixed",) or arm.value_scale != 1.0]
    if needs and not traffic.money:
        raise AdstoolError(
            f"The arm '{needs[0]}' bids by value, and there is no conversion model.",
            "Train one: adstool train conversion.",
        )
    gathered = time.perf_counter() - began
    market = traffic.markets[models[0]]
    count = requests or max(round(traffic.logged / traffic.days * days), 1)
    visits = draw_visits(market, days, count, seed)
    share = 1 / len(arms) if split else 1.0
    began = time.perf_counter()
    found = {}
    for number, arm in enumerate(arms):
        log.info("simulate %s: %s visits over %s days", arm.name, f"{count:,}", days)
        own = _part(market, visits, number, len(arms), seed) if split else visits
        found[arm.name] = _deliver(traffic, arm, own, share, seed)
    spent = time.perf_counter() - began
    result = _result(traffic, arms, found, share, settings.evaluation.bootstrap, seed)
    for arm in arms:
        page = page_of(arm.settings, arm.settings.funnel.slate, arm.new)
        figures = result["arms"][arm.name]
        figures["sold"] = figures["views"] / (count * sum(block.exposure.sum() for block in page))
    result["about"] = {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days": days,
        "requests": count,
        "funnel_requests": len(market),
        "candidates": CANDIDATES,
        "repeated": count > len(market),
        "noise_of_repeats": visits.noise,
        "outcomes": "true rates of the synthetic world" if traffic.truth else "rates that the models predict",
        "synthetic": traffic.truth,
        "arms_share": "users and budgets" if split else "nothing: each has all of the traffic and the dice",
        "bootstrap": settings.evaluation.bootstrap,
        "seed": seed,
        "seconds": {"funnel": round(gathered, 2), "market": round(spent, 2)},
    }
    write_json(ws.reports / NAME, result)
    return result


def _part(market: Market, visits: Visits, number: int, arms: int, seed: int) -> Visits:
    """The visits of the users that an arm is given."""
    of = (dice(seed, ARM, market.user) * arms).astype(np.int64)
    mine = of[visits.request] == number
    return dataclasses.replace(
        visits, request=visits.request[mine], day=visits.day[mine], hour=visits.hour[mine]
    )


def _deliver(traffic: Traffic, arm: Arm, visits: Visits, share: float, seed: int) -> Delivered:
    market = traffic.markets[arm.models]
    settings = arm.settings
    weight = {action.name: action.weight for action in settings.actions}
    market = dataclasses.replace(market, weights=np.array([weight.get(name, 0.0) for name in market.actions]))
    campaigns = dataclasses.replace(traffic.campaigns, budget=traffic.campaigns.budget * share)
    terms = Terms(
        page_of(settings, settings.funnel.slate, arm.new),
        settings.auction.reserve,
        settings.auction.utility_weight,
        settings.auction.per_advertiser,
        settings.auction.per_category,
        arm.value_scale,
    )
    bidding = Bidding(campaigns, arm.strategy, _typical(market, campaigns) * arm.value_scale)
    return simulate_days(market, campaigns, visits, terms, bidding, seed=seed)


def _typical(market: Market, campaigns: Advertised) -> np.ndarray:
    """What a click is worth on average by campaign, as predicted, in the unit it pays for."""
    there = market.ad >= 0
    owner = market.campaign_of[market.ad[there]]
    size = len(campaigns)
    count = np.maximum(np.bincount(owner, minlength=size), 1)
    conversions, value = (
        np.bincount(owner, values[there], size) / count
        for values in (market.predicted.conversions, market.predicted.value)
    )
    unit = campaigns.pays_for
    return np.where(unit == MONEY, value, np.where(unit == CONVERSIONS, conversions, 1.0))


def _result(
    traffic: Traffic,
    arms: Sequence[Arm],
    found: dict[str, Delivered],
    share: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    scale, first = 1 / share, arms[0]
    campaigns = dataclasses.replace(traffic.campaigns)
    figures, rows, between = {}, {}, {}
    for arm in arms:
        market = traffic.markets[arm.models]
        figures[arm.name] = arm_figures(market, campaigns, found[arm.name], scale)
        figures[arm.name]["blocks"] = _blocks(arm, found[arm.name], scale)
        rows[arm.name] = delivery(campaigns, found[arm.name], scale)
        if arm is not first:
            pair = found[first.name], found[arm.name]
            between[arm.name] = {
                "against": first.name,
                **differences(market, *pair, scale, resamples, seed),
                "campaigns": gains(campaigns, *pair, scale),
            }
    if not traffic.money:
        _forget_money(figures, between, known=traffic.truth)
    return {"arms": figures, "differences": between, "campaigns": rows}


def _forget_money(figures: dict[str, Any], between: dict[str, Any], *, known: bool) -> None:
    """Without a conversion model nothing was predicted of money; without a truth nothing is known of it."""
    nan = float("nan")
    for arm in figures.values():
        arm["value_calibration"] = arm["targets"]["met_as_predicted"] = nan
        if not known:
            arm |= dict.fromkeys(("value", "roas", "conversions"), nan)
            arm["targets"] |= dict.fromkeys(("met", "met_and_used", "spend_on_met"), nan)
    for parts in between.values():
        for name in () if known else ("value", "roas", "conversions"):
            del parts[name]


def _blocks(arm: Arm, found: Delivered, scale: float) -> dict[str, dict[str, float]]:
    """What every format of the page brought."""
    page = page_of(arm.settings, arm.settings.funnel.slate, arm.new)
    return {
        block.name: {name: float(value) * scale for name, value in zip(found.names, sums, strict=True)}
        for block, sums in zip(page, found.blocks, strict=True)
    }
