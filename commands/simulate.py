"""adstool simulate: bidding on recorded auctions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adstool.commands._simulate_replay import simulate_replay


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("simulate")(simulate)


def simulate(
    context: typer.Context,
    replay: Annotated[
        Path, typer.Option(help="Recorded auctions to bid on: lines of click, market price, predicted CTR.")
    ],
    budget: Annotated[
        str,
        typer.Option(help="With --replay: an amount, a share of what all auctions cost, or all shares."),
    ] = "1/8",
    strategy: Annotated[
        str, typer.Option(help="With --replay: fixed, linear, ortb, pid, dual, or all.")
    ] = "all",
) -> None:
    """Bid on recorded auctions: what a strategy, fitted on their first half, wins of the second."""
    simulate_replay(context, replay, budget, strategy)
