"""The report's section about conversions: rates by kind, calibration and money of matured clicks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adstool.evaluation.charts import number, percent, reliability_chart
from adstool.evaluation.page import Html, figure, grid, paragraph, ranged, section, table

Figures = Mapping[str, Any]
NAN = float("nan")


def conversion_section(stage: Figures | None) -> Html:
    """AUC, NE and calibration by kind beside the advertiser's own rate, with reliability and money."""
    if not stage:
        return Html("")
    rows = []
    for name, head in [*stage["heads"].items(), ("any kind", stage["any"])]:
        rows.append(_row(name, "model", head))
        rows.append(_row("", "advertiser's rate", head["popularity"]))
        if head.get("truth"):
            rows.append(_row("", "true rates", head["truth"]))
    joint = [_row(name, "model", head) for name, head in stage["joint"].items()]
    columns = ["kind", "predicted by", ">AUC", ">NE", ">calibration", ">rows", ">positives"]
    chart = reliability_chart(
        "Reliability of a conversion of any kind", stage["any"].get("reliability") or []
    )
    caption = f"{stage['clicks']:,} clicks; bars are 95 % intervals"
    return section(
        "conversion",
        "Conversions",
        f"Predictions of run {stage['run_id']}, trained with what was known on {stage['cut'][:10]}, of "
        f"conversions reported within {number(stage['horizon_days'], 2)} days of {stage['clicks']:,} later "
        f"clicks that have matured since. {stage['attributed']:,} of {stage['counted']:,} conversions in the "
        "log are credited to an impression. Calibration is predicted over observed; ranges are 95 % ones.",
        table(columns, rows),
        _money(stage),
        grid([figure(chart, caption, "Any conversion")]) if chart else "",
        paragraph("Click and conversion together, of all impressions:"),
        table(columns, joint),
    )


def _row(name: str, by: str, figures: Figures) -> list[Any]:
    ranges = figures.get("intervals") or {}
    return [
        name,
        by,
        *(ranged(figures.get(m), ranges.get(m)) for m in ("auc", "ne", "calibration")),
        figures.get("rows"),
        figures.get("positives"),
    ]


def _money(stage: Figures) -> Html:
    money = stage["value"]
    if not money["observed"] or not math.isfinite(money.get("calibration", NAN)):
        return paragraph("The log names no money for these conversions.")
    low, high = (number(edge, 3) for edge in money["intervals"]["calibration"])
    return paragraph(
        f"Expected money of these clicks is {number(money['expected'])}, observed "
        f"{number(money['observed'])}: a ratio of {number(money['calibration'], 3)} ({low} to {high}). The "
        f"tenth of clicks expected to bring most brought {percent(money['top_tenth'])} of it."
    )
