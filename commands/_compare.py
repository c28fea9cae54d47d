"""adstool evaluate --compare: what a change is worth, in metrics and in money."""

from __future__ import annotations

from typing import Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, say, table

NAMES = {"auc": "AUC", "ne": "NE", "log_loss": "log loss", "calibration": "predicted / observed"}
MONEY = {"revenue": "revenue", "value": "advertiser value", "roas": "RoAS"}


def run_compare(context: typer.Context, first: str, second: str) -> None:
    """Compare two runs or forms of runs and print what came of it."""
    from adstool.evaluation.compare import compare
    from adstool.evaluation.context import Evaluation
    from adstool.warehouse import open_warehouse

    workspace, settings = open_workspace(context)
    workspace.require_run("engagement", "train engagement")
    with (
        workspace.lock(settings.warehouse.lock_wait_seconds),
        open_warehouse(workspace, settings, read_only=True) as connection,
    ):
        result = compare(Evaluation(workspace, settings, connection), first, second)
    if not emit(context, result):
        _show(context, result)


def _show(context: typer.Context, result: dict[str, Any]) -> None:
    first, second = result["runs"]
    columns = ["", first, second, "difference", "from", "to"]
    rows = [
        (f"{head} {label}", *_figures(found[name]))
        for head, found in result["metrics"].items()
        for name, label in NAMES.items()
    ]
    table(context, columns, rows, f"{result['rows']:,} held-out rows of {result['users']:,} users")
    money = result["money"]
    names = {**MONEY, **{key: key.partition(".")[2] for key in money if key.startswith("actions.")}}
    rows = [(label, *_figures(money[name])) for name, label in names.items()]
    title = (
        f"{money['auctions']:,} auctions held again among {money['ads']:,} logged ads; outcomes are "
        f"{money['outcomes']}"
    )
    table(context, columns, rows, title)
    off = result["off_policy"]
    if off["refused"]:
        say(context, f"Off-policy: refused, {off['reason']}.")
    else:
        rows = [("worth of a slot by lot", *_figures(off["value"]))]
        table(context, columns, rows, f"Off-policy, {off['ess']:,.0f} effective choices")
    if result["synthetic"]:
        say(context, "A synthetic world: nothing here was measured on real people.")
    say(context, result["sentence"])
    next_verb(context, "adstool models, for every run")


def _figures(one: dict[str, Any]) -> tuple[float, ...]:
    return one["a"], one["b"], one["difference"]["value"], *one["difference"]["interval"]
