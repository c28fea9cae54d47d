"""Report section of scaling: validation loss against compute, as `bench --only scaling` measured it."""

from __future__ import annotations

import math
from typing import Any

from adstool.evaluation.charts import Series, line_chart, number
from adstool.evaluation.page import Html, figure, grid, section, table
from adstool.training.scaling import PowerLaw
from adstool.workspace import Workspace, read_json

NAME = "scaling.json"  # in the workspace's reports
STEPS = 24  # points of the drawn curve


def scaling_section(ws: Workspace) -> Html:
    """The curve and its points; empty before the measurement."""
    path = ws.reports / NAME
    return scaling_figures(read_json(path)) if path.is_file() else Html("")


def scaling_figures(found: dict[str, Any]) -> Html:
    """The section of a measurement: {points: [{name, parameters, rows, loss, compute}], law}."""
    points, law = found["points"], found["law"]
    places = [(math.log10(point["compute"]), point["loss"]) for point in points]
    first, last = places[0][0], places[-1][0]
    curve = []
    for step in range(STEPS + 1):
        x = first + (last - first) * step / STEPS
        curve.append((x, PowerLaw(**law).at(10.0**x)))
    lines = [Series("measured", places, "a"), Series("fitted", curve, "b")]
    whole = range(math.ceil(first), math.floor(last) + 1)
    marks = [(float(power), f"1e{power}") for power in whole]
    chart = line_chart("Loss against compute", lines, "floating-point operations", "validation loss", marks)
    rows = [
        (point["name"], point["parameters"], point["rows"], f"{point['compute']:.1e}", f"{point['loss']:.4f}")
        for point in points
    ]
    columns = ("tokens x numbers, depth", ">parameters", ">rows", ">operations", ">loss")
    return section(
        "scaling",
        "Scaling",
        f"Wukong at {len(points)} sizes, each trained until its validation loss stopped falling. Fitted: "
        f"{number(law['floor'])} + {number(law['scale'], 3)} · (compute / {law['unit']:.1e})^-"
        f"{number(law['exponent'], 3)}, which explains {law['explained']:.0%} of the variance.",
        grid(
            [figure(chart, title="Loss against compute"), f'<div class="card">{table(columns, rows)}</div>']
        ),
    )
