"""The report's section on the utility: what other weights would have brought."""

from __future__ import annotations

from typing import Any

from adstool.evaluation.charts import Dots, plane_chart
from adstool.evaluation.compare import percent
from adstool.evaluation.page import Html, figure, grid, section, table
from adstool.evaluation.utility import along_front

WEIGHTS = ("utility_weight", "wanted", "unwanted")


def utility_section(found: dict[str, Any] | None) -> Html:
    """Two plots of advertiser value against what users do, and the front; nothing before it was evaluated."""
    if not found:
        return Html("")
    actions, judged = found["actions"], found["judged"]
    lead = (
        f"{found['auctions']['choosing']:,} logged auctions held again under {len(found['settings'])} "
        f"settings of the utility; outcomes are {found['outcomes']}. Chosen is the most advertiser value "
        f"that costs no more than {found['max_loss']:.0%} of {actions['wanted']}s, {actions['unwanted']}s or "
        "revenue. On "
        f"{found['auctions']['judging']:,} auctions of users who did not choose it brings advertiser value "
        f"{percent(judged['value'])}, revenue {percent(judged['revenue'])}, {actions['wanted']}s "
        f"{percent(judged['wanted_actions'])}, {actions['unwanted']}s {percent(judged['unwanted_actions'])}."
    )
    plots = [
        figure(
            _plot(found, f"{side}_actions", f"{actions[side]}s"),
            f"Advertiser value against {actions[side]}s, one dot a setting: green the Pareto front, "
            "orange in use, violet chosen.",
        )
        for side in ("wanted", "unwanted")
    ]
    return section("utility", "Utility", lead, grid(plots, pairs=True), _front(found))


def _plot(found: dict[str, Any], key: str, label: str) -> str:
    def points(some: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
        return [(one[key], one["value"], _words(found, one)) for one in some]

    listed = found["settings"]
    rest = Dots(points([one for one in listed if not one["front"]]), "e")
    front = Dots(points([one for one in listed if one["front"]]), "a")
    marked = [Dots(points(_of(found, name)), style) for name, style in (("current", "b"), ("chosen", "c"))]
    return plane_chart(f"Advertiser value against {label}", [rest, front, *marked], label, "advertiser value")


def _of(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [one for one in found["settings"] if all(one[key] == found[name][key] for key in WEIGHTS)]


def _words(found: dict[str, Any], one: dict[str, Any]) -> str:
    actions = found["actions"]
    return (
        f"utility_weight {one['utility_weight']:g}, {actions['wanted']} {one['wanted']:g}, "
        f"{actions['unwanted']} {one['unwanted']:g}"
    )


def _front(found: dict[str, Any]) -> Html:
    actions = found["actions"]
    rows = [
        (
            mark or "front",
            *(f"{one[key]:g}" for key in WEIGHTS),
            *(f"{one[key]:,.1f}" for key in ("value", "revenue", "wanted_actions", "unwanted_actions")),
        )
        for mark, one in along_front(found)
    ]
    columns = (
        "setting",
        ">utility_weight",
        f">{actions['wanted']}",
        f">{actions['unwanted']}",
        ">value",
        ">revenue",
        f">{actions['wanted']}s",
        f">{actions['unwanted']}s",
    )
    return table(
        columns,
        rows,
        "Along the Pareto front, on the choosing half; value is clicks at their bids",
    )
