"""adstool quota: how many candidates each source may bring, learned and compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        quota,
        "adstool quota --requests 100",
        "adstool quota --budget-ms 5",
    )


def quota(
    context: typer.Context,
    budget_ms: Annotated[
        float | None,
        option(
            Group.LIMITS,
            "Milliseconds that sources and lightweight ranker may take.",
            "--budget-ms",
            min=0.001,
            metavar="MS",
            default="as many candidates as setting funnel.retrieve",
        ),
    ] = None,
    requests: Annotated[
        int,
        option(Group.LIMITS, "Logged requests that are asked again.", "--requests", min=20, metavar="N"),
    ] = 400,
    dry_run: _options.DryRun = False,
) -> None:
    """Learn how many candidates each source may bring.

    Logged requests are asked again at full depth; depths are learned by segment of requests and compared,
    on requests held out, with equal and hand-set quotas. Not a stage of `run`: run it after `index` when
    sources or models change. Setting funnel.quotas goes before what was learned.
    """
    workspace, settings = open_workspace(context)
    if dry_run:
        from adstool.planned import plan_quota

        plan_of_warehouse(context, workspace, settings, lambda con: plan_quota(workspace, con, requests))
        return
    from adstool.evaluation.quota import learn_quota
    from adstool.warehouse import open_warehouse

    with (
        workspace.lock(settings.warehouse.lock_wait_seconds),
        open_warehouse(workspace, settings, read_only=True) as con,
    ):
        result = learn_quota(workspace, settings, con, budget_ms=budget_ms, requests=requests)
    if emit(context, result):
        return
    _show(context, result)
    if settings.funnel.quotas:
        say(context, "[funnel] quotas are set by hand and go before what was learned.")
    next_verb(context, "adstool rank --user USER, adstool report")


def _show(context: typer.Context, result: dict[str, Any]) -> None:
    segments = result["segments"]
    names = list(result["quotas"])
    rows = [("overall", result["data"]["learned_from"], *result["quotas"].values())]
    rows += [(name, one["requests"], *one["quotas"].values()) for name, one in segments.items()]
    table(context, ["requests of", "learned from", *names], rows, "Depth of every source")
    rows = []
    for row in result["compared"]:
        for name, one in row["policies"].items():
            against = row["learned_against"].get(name)
            rows.append(
                (
                    row["budget"] if name == "learned" else "",
                    name,
                    one["slate"],
                    _range(one["slate_interval"], "{:.4g}"),
                    f"{one['of_the_best_slate']:.2%}",
                    one["candidates"],
                    one["ms"],
                    f"{against['slate']:+.2%}" if against else "",
                    _range(against["slate_interval"], "{:+.2%}") if against else "",
                )
            )
    unit = "candidates" if result["budget_ms"] is None else "ms"
    columns = [
        unit,
        "quotas",
        "slate utility",
        "95 %",
        "of the best",
        "candidates",
        "ms",
        "learned: more",
        "95 %",
    ]
    table(context, columns, rows, f"On {result['data']['compared_on']} requests held out")
    say(context, f"Quota {result['run_id']} is in use, learned in {result['seconds']:.1f} s.")


def _range(interval: list[float], form: str) -> str:
    return "–".join(form.format(edge) for edge in interval)
