"""adstool simulate --replay: strategies on recorded auctions, as JSON or as a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adstool.commands._output import emit, next_verb, say, table

if TYPE_CHECKING:
    from adstool.marketplace.replay import Won


def simulate_replay(context: typer.Context, file: Path, budget: str, strategy: str) -> None:
    """Replay `file`: one strategy or `all`, one budget or `all` the shares 1/2 to 1/64."""
    from adstool.marketplace.replay import FRACTIONS, HINDSIGHT, read_recorded, replay_all
    from adstool.marketplace.strategies import STRATEGIES

    names = [*STRATEGIES, HINDSIGHT] if strategy == "all" else [strategy]
    budgets = list(FRACTIONS) if budget == "all" else [budget]
    recorded = read_recorded(file)
    found = replay_all(recorded, budgets, names)
    if emit(context, _payload(found, len(recorded))):
        return
    half = len(recorded) // 2
    title = f"{len(recorded) - half:,} auctions of {file.name}, fitted on the {half:,} before them"
    if len(found) == 1 or len(budgets) == 1:
        _one_by_one(context, found, title)
    else:
        rows = [(name, *(won.clicks for won in of.values())) for name, of in found.items()]
        table(context, ["clicks", *budgets], rows, f"{title}; budgets as shares of what they all cost")
    if HINDSIGHT in found:
        say(
            context,
            f"{HINDSIGHT}: linear with the best constant, which only who knows the future can choose.",
        )
    next_verb(context, "adstool simulate --arms current,dual")


def _one_by_one(context: typer.Context, found: dict[str, dict[str, Won]], title: str) -> None:
    rows = [
        (name, share, won.clicks, won.value, won.spend, won.spend / won.budget, won.win_rate)
        for name, of in found.items()
        for share, won in of.items()
    ]
    columns = ["strategy", "budget", "clicks", "expected", "spend", "budget used", "win rate"]
    table(context, columns, rows, title)


def _payload(found: dict[str, dict[str, Won]], auctions: int) -> dict[str, Any]:
    """Each figure as a number, or by strategy and budget where there are several."""
    figures = ("clicks", "spend", "value", "win_rate", "wins", "budget")
    several = {
        figure: {
            name: {share: getattr(won, figure) for share, won in of.items()} for name, of in found.items()
        }
        for figure in figures
    }
    won = [one for of in found.values() for one in of.values()]
    counts = {"auctions": won[0].auctions, "recorded": auctions}
    if len(won) == 1:
        return {"strategy": won[0].strategy, **{name: getattr(won[0], name) for name in figures}, **counts}
    return {"strategies": list(found), **several, **counts}
