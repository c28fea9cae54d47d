"""The report's section about the simulated market: arms, what lies between them, delivery by campaign."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from adstool.evaluation.charts import Bar, Dots, interval_chart, number, percent, scatter_chart
from adstool.evaluation.page import Html, figure, folded, grid, paragraph, section, table
from adstool.marketplace.simulation import SUMS
from adstool.workspace import Workspace, read_json

NAME = "simulation.json"  # in the workspace's reports
NAN = float("nan")
METRICS = ("revenue", "value", "roas", "conversions", "clicks", "hides")
FARTHEST = 8.0  # times the target, or a part of it: what is beyond is drawn at the edge
MOST_ROWS = 40


def market_section(ws: Workspace) -> Html:
    """What the last `simulate` found; empty before the first."""
    path = ws.reports / NAME
    return market_figures(read_json(path)) if path.is_file() else Html("")


def market_figures(found: Mapping[str, Any]) -> Html:
    """The section of a result of `simulate`."""
    about, arms = found["about"], found["arms"]
    columns = ["arm", ">revenue", ">value", ">RoAS", ">predicted/true", ">budgets used", ">clicks", ">hides"]
    columns += [">met, predicted", ">met", ">met and used"]
    cards = [_changes(name, parts) for name, parts in found["differences"].items()]
    return section(
        "market",
        "Market",
        _lead(about),
        table(columns, [_row(name, arm) for name, arm in arms.items()]),
        paragraph(
            "A target counts as met from 95 % of it on: by what was predicted of the clicks, which is all "
            "that a bidder knows, and by what they brought. Used: 95 % of the budget was spent, or the "
            "return is within 5 % of the target. Predicted/true is the money that predictions expected of "
            "all clicks over theirs."
        ),
        *(_formats(name, arm["blocks"]) for name, arm in arms.items() if len(arm["blocks"]) > 1),
        grid(cards) if cards else "",
        grid([_delivery(name, rows) for name, rows in found["campaigns"].items()]),
        *(_gains(name, parts) for name, parts in found["differences"].items()),
        *(_campaigns(name, rows) for name, rows in found["campaigns"].items()),
    )


def _lead(about: Mapping[str, Any]) -> str:
    repeated = (
        f" ({about['funnel_requests']:,} requests of the log, repeated with noise on their rates)"
        if about["repeated"]
        else ""
    )
    return (
        f"{about['requests']:,} requests{repeated} over {about['days']} simulated days, through the funnel "
        f"as it serves. Outcomes are {about['outcomes']}. Arms share {about['arms_share']}. Revenue is what "
        "campaigns paid, value the expected money of the clicks they got; ranges are 95 % ones over "
        "resamples of users."
    )


def _row(name: str, arm: Mapping[str, Any]) -> list[Any]:
    targets = arm["targets"]
    return [
        name,
        arm["revenue"],
        arm["value"],
        _known(arm["roas"]),
        number(_known(arm["value_calibration"]), 3),
        percent(_known(arm["budget_utilisation"])),
        round(arm["clicks"]),
        round(arm["hides"]),
        percent(_known(targets["met_as_predicted"])),
        f"{percent(_known(targets['met']))} of {targets['campaigns']}",
        percent(_known(targets["met_and_used"])),
    ]


def _known(value: float | None) -> float:
    return NAN if value is None else float(value)


def _changes(name: str, parts: Mapping[str, Any]) -> Html:
    bars = []
    for metric in METRICS:
        part = parts.get(metric)
        if part is None or part["relative"] is None:
            continue
        low, high = (100 * _known(edge) for edge in part["relative_interval"])
        value = 100 * part["relative"]
        title = "RoAS" if metric == "roas" else metric
        bars.append(Bar(title, value, low, high, f"{value:+.1f} %"))
    title = f"{name} against {parts['against']}"
    return figure(interval_chart(title, bars, zero=True), "change in %, with 95 % intervals", title)


def _delivery(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    """Every campaign with a target: its budget used against what it delivered of the target."""
    aimed = [row for row in rows if row["target"] and row["spend"] > 0 and row["used"] is not None]
    points = []
    for row in aimed:
        ratio = min(max(row["delivered"] / row["target"], 1 / FARTHEST), FARTHEST)
        hint = f"{row['campaign_id']}: {number(row['delivered'], 3)} of {number(row['target'], 3)}"
        points.append((min(row["used"], 1.0), math.log2(ratio), hint))
    marks = [(math.log2(part), f"{part:g}×") for part in (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)]
    edge = math.log2(FARTHEST)
    title, across, up = f"Delivery of {name}", "budget used", "delivered of target"
    chart = scatter_chart(title, [Dots(points)], across, up, (-edge - 0.15, edge + 0.5), marks)
    return figure(chart, f"{len(aimed)} campaigns with a target", name) if aimed else Html("")


def _formats(name: str, blocks: Mapping[str, Mapping[str, float]]) -> Html:
    rows = []
    for block, sums in blocks.items():
        views = sums["views"]
        others = [action for action in sums if action not in SUMS]
        rates = [percent(sums[action] / views if views else NAN) for action in ("clicks", *others)]
        rows.append([block, round(views), sums["spend"], sums["value"], *rates])
    columns = ["format", ">views", ">revenue", ">value", ">clicks", *(f">{action}" for action in others)]
    return Html(paragraph(f"{name}, by format; actions are shares of views:") + table(columns, rows))


def _gains(name: str, parts: Mapping[str, Any]) -> Html:
    sides = parts["campaigns"]
    rows = [
        [row["campaign_id"], row["spend"], row["value"], row["surplus"]]
        for row in (*sides["best"], *reversed(sides["worst"]))
    ]
    listed = table(["campaign", ">pays more by", ">value more by", ">value less spend"], rows)
    words = (
        f"{name} against {parts['against']}: {sides['gain']} campaigns gain, {sides['lose']} lose, "
        f"of {sides['campaigns']} that differ"
    )
    return folded(words, listed)


def _campaigns(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    largest = sorted(rows, key=lambda row: -row["spend"])[:MOST_ROWS]
    listed = [
        [
            row["campaign_id"],
            row["pays_for"],
            row["budget"],
            row["spend"],
            percent(_known(row["used"])),
            _known(row["target"]) if row["target"] else None,
            _known(row["delivered"]),
            round(row["clicks"]),
        ]
        for row in largest
    ]
    columns = ["campaign", "pays for", ">budget", ">spend", ">used", ">target", ">delivered", ">clicks"]
    return folded(f"Campaigns of {name} that spent most", table(columns, listed))
