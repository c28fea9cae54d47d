"""What `adstool simulate` does and shows without --replay: days of the market under arms."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse


def simulate_market(
    context: typer.Context,
    *,
    days: int,
    arms: str,
    form: Path | None,
    requests: int,
    asked: int,
    split: bool,
    seed: int,
    dry_run: bool,
) -> None:
    """Run the simulation and print it."""
    workspace, settings = open_workspace(context)
    from adstool.errors import AdstoolError
    from adstool.simulation.arms import read_arms
    from adstool.simulation.run import simulate
    from adstool.warehouse import open_warehouse

    if not workspace.warehouse.is_file():
        raise AdstoolError(f"{workspace.root} holds no data.", "Load some: adstool ingest FILES")
    chosen = read_arms(workspace, settings, arms, form)
    if dry_run:
        from adstool.planned import plan_simulate

        names = [arm.name for arm in chosen]
        plan = partial(plan_simulate, workspace, names, days, requests)
        plan_of_warehouse(context, workspace, settings, plan)
        return
    with (
        workspace.lock(settings.warehouse.lock_wait_seconds),
        open_warehouse(workspace, settings, read_only=True) as connection,
    ):
        result = simulate(
            workspace,
            settings,
            connection,
            chosen,
            days=days,
            requests=requests,
            asked=asked,
            split=split,
            seed=seed,
        )
    if emit(context, result):
        return
    _show(context, result)


def _show(context: typer.Context, result: dict[str, Any]) -> None:
    about = result["about"]
    repeated = (
        f", {about['funnel_requests']:,} of the log repeated with noise of {about['noise_of_repeats']:.0%}"
        if about["repeated"]
        else ""
    )
    rows = [
        (
            name,
            round(arm["revenue"], 1),
            _number(arm["value"], "{:,.0f}"),
            _number(arm["roas"], "{:.2f}"),
            _number(arm["value_calibration"], "{:.2f}"),
            _number(arm["budget_utilisation"], "{:.1%}"),
            round(arm["clicks"]),
            round(arm["hides"]),
            _number(arm["targets"]["met_as_predicted"], "{:.0%}"),
            _number(arm["targets"]["met"], "{:.0%}"),
            _number(arm["targets"]["met_and_used"], "{:.0%}"),
        )
        for name, arm in result["arms"].items()
    ]
    columns = ["arm", "revenue", "value", "RoAS", "predicted/true", "budget used", "clicks", "hides"]
    columns += ["targets met as predicted", "truly", "and used"]
    table(context, columns, rows, f"{about['requests']:,} requests over {about['days']} days{repeated}")
    for name, parts in result["differences"].items():
        changes = [
            (metric, _change(part), _number(part["value"], "{:+,.4g}"))
            for metric, part in parts.items()
            if isinstance(part, dict) and "relative" in part
        ]
        table(context, [f"{name} against {parts['against']}", "change (95 %)", "in all"], changes)
        sides = parts["campaigns"]
        say(context, f"{sides['gain']:,} campaigns gain and {sides['lose']:,} lose, by value less spend.")
    say(context, f"Outcomes are {about['outcomes']}. Value is expected money of clicks.")
    if about["synthetic"]:
        say(context, "A synthetic world: nothing here was measured on real people.")
    next_verb(context, "adstool report")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else form.format(value)


def _change(part: dict[str, Any]) -> str:
    low, high = part["relative_interval"]
    if not math.isfinite(part["relative"]):
        return "-"
    edges = f" ({low:+.1%}, {high:+.1%})" if math.isfinite(low) else ""
    return f"{part['relative']:+.1%}{edges}"
