"""adstool simulate: days of the marketplace under two or more arms, or bidding on recorded auctions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._help import add_verb
from adstool.commands._options import Group, option
from adstool.commands._simulate_days import simulate_market
from adstool.commands._simulate_replay import simulate_replay
from adstool.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        simulate,
        "adstool simulate --days 2 --requests 2000 --asked 50 --arms current,vcg",
        "adstool simulate --requests 2000 --asked 50 --arms current --format spotlight.toml",
    )


def simulate(
    context: typer.Context,
    arms: Annotated[
        str,
        option(
            Group.MARKET,
            "Arms, comma-separated, the first being what others are compared with: current, gsp, vcg, "
            "first_price, fixed, linear, ortb, pid, dual, engagement@RUN, conversion@RUN, value*0.8 or a "
            "toml file of settings; parts of one arm are joined by +.",
            "--arms",
            metavar="A,B",
        ),
    ] = "current,dual",
    form: Annotated[
        Path | None,
        option(
            Group.MARKET,
            "A toml file with a [[formats]] entry to try, or the name of one in adstool.toml.",
            "--format",
            metavar="FILE|NAME",
            default="those of the settings",
        ),
    ] = None,
    split: Annotated[
        bool, option(Group.MARKET, "Each arm gets its share of users and budgets.", "--split")
    ] = False,
    days: Annotated[int, option(Group.MARKET, "Days of traffic.", "--days", metavar="N")] = 7,
    requests: Annotated[
        int,
        option(Group.MARKET, "Requests of all days; 0: as many as the log has.", "--requests", metavar="N"),
    ] = 0,
    asked: Annotated[
        int,
        option(
            Group.MARKET,
            "Logged requests sent through the funnel; where there are more requests these are repeated.",
            "--asked",
            metavar="N",
        ),
    ] = 1000,
    replay: Annotated[
        Path | None,
        option(
            Group.DATA,
            "Recorded auctions to bid on: lines of click (0 or 1), market price, predicted click rate.",
            "--replay",
            metavar="FILE",
            default="days of this workspace's market",
        ),
    ] = None,
    strategy: Annotated[
        str,
        option(
            Group.MARKET,
            "With --replay: the strategy of bidding.",
            "--strategy",
            metavar="fixed|linear|ortb|pid|dual|all",
        ),
    ] = "all",
    budget: Annotated[
        str,
        option(
            Group.MARKET,
            "With --replay: an amount of money, a share of what all auctions cost, or all for 1/2 to 1/64.",
            "--budget",
            metavar="SHARE|MONEY|all",
        ),
    ] = "1/8",
    seed: Annotated[int, _options.seed()] = 0,
    dry_run: _options.DryRun = False,
) -> None:
    """Try auctions, bidding, models and formats before they ship.

    Days of the market under two or more arms: revenue, value, return on ad spend, hides, budgets and
    targets, and their differences with 95 % intervals. --replay bids on recorded auctions instead, fitted
    on their first half, and needs no workspace.
    """
    if replay is not None and dry_run:
        raise UsageError("--replay writes nothing anyway.", "Leave out --dry-run.")
    if replay is not None:
        simulate_replay(context, replay, budget, strategy)
        return
    simulate_market(
        context,
        days=days,
        arms=arms,
        form=form,
        requests=requests,
        asked=asked,
        split=split,
        seed=seed,
        dry_run=dry_run,
    )
