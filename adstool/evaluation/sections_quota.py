"""Report section of quotas: what each source adds by depth, and learned quotas beside others."""

from __future__ import annotations

import math
from typing import Any

from adstool.evaluation.charts import Bar, Series, interval_chart, line_chart, number, percent
from adstool.evaluation.page import Html, figure, grid, ranged, section, table
from adstool.funnel.quota import FILE, MODEL
from adstool.workspace import Workspace, read_json

DRAWN = 4  # sources whose curves are drawn: a chart tells no more lines apart
STYLES = ("a", "b", "d", "e")


def quota_section(ws: Workspace) -> Html:
    """The run of `quota` in use; empty without one."""
    run = ws.current_run(MODEL)
    return quota_figures(read_json(run / FILE)) if run is not None else Html("")


def quota_figures(found: dict[str, Any]) -> Html:
    """The section of what quota.json holds."""
    data, last = found["data"], found["compared"][-1]
    unit = "candidates" if found["budget_ms"] is None else "ms"
    names = list(found["quotas"])
    depths = [("overall", data["learned_from"], *found["quotas"].values())]
    depths += [(name, one["requests"], *one["quotas"].values()) for name, one in found["segments"].items()]
    return section(
        "quota",
        "Quotas of the sources",
        f"Learned from {data['learned_from']:,} logged requests, asked again as of {data['as_of']} with "
        f"every source {data['depth']:,} deep, and compared on {data['compared_on']:,} of other users. "
        "Utility is the heavy ranker's score of the slate, in money.",
        table(
            ["requests of", ">learned from", *(f">{name}" for name in names)], depths, "Depth of every source"
        ),
        table(
            [f">{unit}", "quotas", ">slate utility", ">of the best slate", ">learned brings more"],
            _rows(found),
            "Utility of the slate at the same cost",
        ),
        grid(
            [
                figure(_curves(found, "alone"), "Each source by itself.", "Share of the winners' utility"),
                figure(
                    _curves(found, "added"),
                    "What each adds to the others at their quotas.",
                    "Marginal utility by depth",
                ),
                figure(
                    _budgets(found, unit),
                    "Against the best slate of all that any source brings.",
                    f"Slate utility by {unit}",
                ),
                figure(
                    interval_chart(f"Slate at {number(last['budget'])} {unit}", _bars(last)),
                    title=f"What learned quotas add at {number(last['budget'])} {unit}",
                ),
            ]
        ),
    )


def _rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for row in found["compared"]:
        for place, (name, one) in enumerate(row["policies"].items()):
            more = row["learned_against"].get(name)
            low, high = more["slate_interval"] if more else (None, None)
            known = more is not None and low is not None and high is not None
            gain = (
                Html(f'{more["slate"]:+.2%}<span class="range">{low:+.2%} – {high:+.2%}</span>')
                if known
                else ""
            )
            rows.append(
                (
                    number(row["budget"]) if place == 0 else "",
                    name,
                    ranged(one["slate"], one["slate_interval"]),
                    percent(one["of_the_best_slate"]),
                    gain,
                )
            )
    return rows


def _curves(found: dict[str, Any], kind: str) -> str:
    """The largest sources' curves over ln(1 + depth)."""
    depths, sources = found["curves"]["depths"], found["curves"]["sources"]
    largest = sorted(sources, key=lambda name: -max(sources[name][kind]))[:DRAWN]
    series = [
        Series(name, [(math.log1p(d), v) for d, v in zip(depths, sources[name][kind], strict=True)], style)
        for name, style in zip(largest, STYLES, strict=False)
    ]
    marks = [(math.log1p(d), f"{d:,}") for d in (0, 3, 10, 30, 100, 300, 1000, 3000) if d <= depths[-1]]
    return line_chart(f"Utility by depth, {kind}", series, "candidates of the source", "", marks)


def _budgets(found: dict[str, Any], unit: str) -> str:
    styles = {"learned": "a", "equal": "b", "by hand": "d"}
    series = [
        Series(
            name,
            [
                (math.log2(row["budget"]), row["policies"][name]["of_the_best_slate"])
                for row in found["compared"]
            ],
            style,
        )
        for name, style in styles.items()
    ]
    marks = [(math.log2(row["budget"]), number(row["budget"], 3)) for row in found["compared"]]
    return line_chart("Share of the best slate by budget", series, unit, "of the best slate", marks)


def _bars(row: dict[str, Any]) -> list[Bar]:
    bars = []
    for name, more in row["learned_against"].items():
        low, high = (math.nan if edge is None else 100 * edge for edge in more["slate_interval"])
        value = math.nan if more["slate"] is None else 100 * more["slate"]
        bars.append(Bar(f"against {name}, %", value, low, high, f"{value:+.2f} %"))
    return bars
