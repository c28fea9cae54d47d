"""adstool simulate: days of the marketplace under two or more arms, or bidding on recorded auctions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adstool.commands._simulate_days import simulate_market
from adstool.commands._simulate_replay import simulate_replay


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("simulate")(simulate)


def simulate(
    context: typer.Context,
    days: Annotated[int, typer.Option(help="Days of traffic.")] = 7,
    arms: Annotated[
        str,
        typer.Option(
            help="Arms, the first being what others are compared with: current, gsp, vcg, first_price, "
            "fixed, linear, ortb, pid, dual, engagement@RUN, conversion@RUN, value*0.8 or a toml file of "
            "settings; parts of one arm are joined by +."
        ),
    ] = "current,dual",
    form: Annotated[
        Path | None, typer.Option("--format", help="A toml file with a [[formats]] entry to try.")
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests of all days; 0: as many as the log has.")] = 0,
    asked: Annotated[
        int, typer.Option(help="Logged requests sent through the funnel; more than these repeat them.")
    ] = 1000,
    split: Annotated[
        bool, typer.Option("--split", help="Each arm gets its share of users and budgets.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Recorded auctions to bid on instead: lines of click, market price, predicted CTR."
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(help="With --replay: an amount, a share of what all auctions cost, or all shares."),
    ] = "1/8",
    strategy: Annotated[
        str, typer.Option(help="With --replay: fixed, linear, ortb, pid, dual, or all.")
    ] = "all",
) -> None:
    """What a change of auction, bidding, models or formats is worth, before anything ships."""
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
    )
