"""adstool quota: how many candidates each source may bring, learned and compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, say, table


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("quota")(quota)


def quota(
    context: typer.Context,
    budget_ms: Annotated[
        float | None,
        typer.Option(min=0.001, help="Milliseconds for sources and lightweight ranker; else a count."),
    ] = None,
    requests: Annotated[int, typer.Option(min=20, help="Logged requests that are asked again.")] = 400,
) -> None:
    """Learn from logged requests how deep each source is worth asking, for as many candidates as [funnel]
    retrieve says or in a budget of time."""
    workspace, settings = open_workspace(context)
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
