"""Report section of growth: time and memory of every verb by the size of the log, as `bench --only growth`
measured it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adstool.evaluation.charts import Series, line_chart, number
from adstool.evaluation.growth import Measured, exponent, pairs
from adstool.evaluation.page import Html, figure, grid, paragraph, section, table
from adstool.workspace import Workspace, read_json

NAME = "growth.json"  # in the workspace's reports
# Verbs whose lines share a chart; one that is in none is left to the table.
GROUPS: dict[str, tuple[str, ...]] = {
    "Data in": ("sample", "ingest", "interests"),
    "Vectors": ("embed", "train semantic", "index"),
    "Training": ("train retrieval", "train lightweight", "train engagement", "train conversion"),
    "Models to serve": ("calibrate", "quantize", "rank"),
    "Judgement": ("evaluate", "simulate", "report"),
}
STYLES = "abcde"


def growth_section(ws: Workspace) -> Html:
    """Charts and table; empty before the measurement."""
    path = ws.reports / NAME
    if not path.is_file():
        return Html("")
    return growth_figures([Measured(**one) for one in read_json(path)["measured"]])


def growth_json(measured: Sequence[Measured]) -> dict[str, Any]:
    """What the report reads."""
    return {"measured": [asdict(one) for one in measured]}


def growth_figures(measured: Sequence[Measured]) -> Html:
    """The section: seconds and peak memory against events, both by decades, and every figure in a table."""
    charts = []
    for title, verbs in GROUPS.items():
        charts += [
            _chart(f"{title}: seconds", measured, verbs, "seconds"),
            _chart(f"{title}: peak MB", measured, verbs, "peak_mb"),
        ]
    rows = [_row(before, one) for before, one in pairs(measured)]
    columns = ("verb", ">events", ">seconds", ">CPU seconds", ">peak MB", ">rows/s",
               ">exponent", ">of CPU", ">of memory")  # fmt: skip
    return section(
        "growth",
        "Growth",
        "Worlds of ten times the size through the whole funnel, each verb a process of its own. Users, ads "
        "and pins grow with the log as in the sample world. An exponent is that of the cost from the size "
        "before to this one: 1 is linear, less shows what does not grow, such as loading libraries.",
        grid(charts, pairs=True),
        paragraph("Rows are events, for embed, train semantic and index items, for rank requests.", "note"),
        table(columns, rows),
    )


def _row(before: Measured | None, one: Measured) -> tuple[Any, ...]:
    grown = [exponent(before, one, of) if before else None for of in ("seconds", "cpu_seconds", "peak_mb")]
    return (
        one.verb if before is None else "",
        one.events,
        number(one.seconds, 3),
        "–" if one.cpu_seconds is None else number(one.cpu_seconds, 3),
        "–" if one.peak_mb is None else number(one.peak_mb, 3),
        number(one.rows / one.seconds, 3),
        *("–" if value is None else f"{value:.2f}" for value in grown),
    )


def _chart(title: str, measured: Sequence[Measured], verbs: Sequence[str], of: str) -> Html:
    """Both axes are logarithms, so that a power of the size is a straight line."""
    lines, sizes = [], set()
    for style, verb in zip(STYLES, verbs, strict=False):
        known = [(one.events, getattr(one, of)) for one in measured if one.verb == verb and getattr(one, of)]
        points = [(math.log10(x), math.log10(y)) for x, y in known]
        lines.append(Series(verb.removeprefix("train "), points, style))
        sizes |= {x for x, _ in known}
    places = [y for line in lines for _, y in line.points]
    if len(sizes) < 2:
        return Html("")
    x_marks = [(math.log10(size), f"{size / 1000:,.0f}k") for size in sorted(sizes)]
    drawn = line_chart(title, lines, "events", "", x_marks, _marks(min(places), max(places)))
    return figure(drawn, title=title)


def _marks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers between two logarithms, coarse ones where two of them fit."""
    found: list[float] = []
    for steps in ((1, 2, 5), range(1, 10), [tenth / 10 for tenth in range(10, 100, 2)]):
        powers = range(math.floor(low), math.ceil(high) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        found = [value for value in values if low <= math.log10(value) <= high]
        if len(found) >= 2:
            break
    return [(math.log10(value), f"{value:,.4g}" if value < 1000 else f"{value:,.0f}") for value in found]
