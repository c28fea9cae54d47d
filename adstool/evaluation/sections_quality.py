"""Report sections about how good the funnel is: engagement, retrieval, lightweight ranker, slates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adstool.evaluation.charts import (
    Bar,
    Series,
    flow_chart,
    interval_chart,
    line_chart,
    number,
    percent,
    reliability_chart,
    share_bar,
)
from adstool.evaluation.page import Html, figure, folded, grid, paragraph, ranged, section, table

Figures = Mapping[str, Any]
NAN = float("nan")
LEAST_POSITIVES = 10  # a slice with fewer has no figure worth drawing


def _bar(label: str, figures: Figures, metric: str, style: str, digits: int = 3) -> Bar:
    low, high = (figures.get("intervals") or {}).get(metric) or (NAN, NAN)
    found = figures.get(metric, NAN)
    text = f"{found:.{digits}f}" if math.isfinite(found) else ""
    return Bar(label, found, low, high, text, style)


def engagement_section(stage: Figures | None) -> Html:
    """AUC, loss and calibration by head, beside popularity and the truth, with reliability and slices."""
    if not stage:
        return Html("")
    heads: Figures = stage["heads"]
    rows = []
    for name, head in heads.items():
        rows.append(_head_row(name, "model", head))
        rows.append(_head_row("", "popularity", head["popularity"]))
        if head.get("truth", {}).get("rows"):
            rows.append(_head_row("", "true rates", head["truth"]))
    columns = [
        "head",
        "predicted by",
        ">AUC",
        ">NE",
        ">log loss",
        ">calibration",
        ">ECE",
        ">rows",
        ">positives",
    ]
    curves = [
        figure(
            reliability_chart(f"Reliability of {name}", head.get("reliability") or []),
            f"{head['rows']:,} rows, {head['positives']:,} positives; bars are 95 % intervals",
            name,
        )
        for name, head in heads.items()
        if head["positives"]  # what never happened has no rate to compare with
    ]
    return section(
        "engagement",
        "Engagement model",
        f"Predicted probabilities of run {stage['run_id']} on the last {stage['rows']:,} impressions of "
        f"{stage['users']:,} users. NE is cross entropy over that of the base rate, lower is better; the "
        "true rates of a synthetic world are the floor that no model can pass. Ranges are 95 % intervals.",
        table(columns, rows),
        grid(curves),
        _slices(stage),
    )


def _head_row(name: str, by: str, figures: Figures) -> list[Any]:
    ranges = figures.get("intervals") or {}
    return [
        name,
        by,
        *(ranged(figures.get(m), ranges.get(m)) for m in ("auc", "ne")),
        ranged(figures.get("log_loss"), None, 4),
        ranged(figures.get("calibration"), ranges.get("calibration")),
        ranged(figures.get("ece"), None, 4),
        figures.get("rows"),
        figures.get("positives"),
    ]


def _slices(stage: Figures) -> Html:
    """AUC and NE by slice as dots on one axis; the first head in sight, the others folded."""
    slices: Figures = stage.get("slices") or {}
    shown: list[Html] = []
    for head, whole in stage["heads"].items():
        for metric, name in (("auc", "AUC"), ("ne", "NE")):
            bars = [_bar("all", whole, metric, "b")]
            for label, one in slices.items():
                found = one["heads"].get(head)
                if found and found.get("positives", 0) >= LEAST_POSITIVES and found.get(metric) is not None:
                    bars.append(_bar(f"{label}  ({found['rows']:,})", found, metric, "a"))
            if len(bars) > 1:
                svg = interval_chart(f"{name} of {head} by slice", bars)
                shown.append(figure(svg, "rows in brackets", f"{head}: {name} by slice"))
    return Html(grid(shown[:2]) + folded("The other heads by slice", grid(shown[2:], pairs=True)))


def retrieval_section(stage: Figures | None) -> Html:
    """Recall of later engagement by candidate source, and what only that source found."""
    if not stage or not stage.get("sources"):
        return Html("")
    shown = {**stage["sources"], "all together": stage["merged"]}
    ks = stage["ks"]
    middle = 100 if 100 in ks else ks[-1]
    bars = [
        _bar(name, source, f"recall@{middle}", "b" if name == "all together" else "a")
        for name, source in shown.items()
    ]
    deep = [
        Series(
            name,
            [(math.log10(k), source[f"recall@{k}"]) for k in ks if source.get(f"recall@{k}") is not None],
            "b" if name == "all together" else "a",
        )
        for name, source in shown.items()
    ]
    rows = []
    converted = stage.get("conversions") or {}
    of_conversions = {**(converted.get("sources") or {}), "all together": converted.get("merged") or {}}
    for name, source in shown.items():
        ranges = source.get("intervals") or {}
        other = of_conversions.get(name, {})
        rows.append(
            [
                name,
                *(ranged(source.get(f"recall@{k}"), ranges.get(f"recall@{k}")) for k in ks),
                ranged(other.get(f"recall@{middle}"), other.get("intervals", {}).get(f"recall@{middle}")),
                ranged(source.get("unique"), ranges.get("unique")),
                ranged(source.get("cold_recall"), ranges.get("cold_recall")),
                ranged(source.get("candidates"), None, 0),
                ranged((source.get("ms") or {}).get("p50"), None, 3),
            ]
        )
    columns = ["source", *(f">recall@{k}" for k in ks), f">conversions@{middle}"]
    columns += [">only here", ">new items", ">candidates", ">ms"]
    marks = [(math.log10(k), str(k)) for k in ks]
    best = deep[-1:] + [one for one in deep[:-1] if one.label == "two_tower"]
    return section(
        "retrieval",
        "Candidate sources",
        f"Of {stage['wanted']:,} items that {stage['requests']:,} users engaged with after the cut, how many "
        f"each source had among its first k of about {number(stage['corpus'], 3)} that could be shown. "
        "“Only here” is the share no other source found, “conversions” that of "
        f"{converted.get('wanted', 0):,} ads that users converted on; {stage['cold_wanted']:,} of the items "
        f"were new to everybody. No source can find more than {percent(stage['reachable'])}: the rest could "
        "not be shown at that time.",
        table(columns, rows),
        grid(
            [
                figure(interval_chart(f"recall@{middle}", bars, start=0.0), title=f"Recall@{middle}"),
                figure(
                    line_chart("Recall by depth", best, "candidates of the source", "recall", marks),
                    title="Recall by depth",
                ),
            ]
        ),
    )


def lightweight_section(stage: Figures | None) -> Html:
    """Whether the lightweight ranker keeps what the heavy one wants."""
    if not stage:
        return Html("")
    ranges = stage.get("intervals") or {}
    rows = [
        (Html(f'{name}<br><span class="meta">{meaning}</span>'), ranged(stage.get(key), ranges.get(key)))
        for key, name, meaning in (
            (
                "recall",
                "recall of the heavy top ten",
                "how much of the best slate survives the cut; 1 is best",
            ),
            ("utility_regret", "utility regret", "utility lost by keeping these and not the best; 0 is best"),
            ("slate_regret", "slate regret", "utility lost in the slate that is shown at last; 0 is best"),
            ("kendall_tau", "Kendall τ", "agreement of the two orders; 1 is best"),
        )
    ]
    parts = [
        (name, *(ranged(part.get(key), part["intervals"].get(key)) for key in ("recall", "utility_regret")))
        for name, part in {**stage.get("sources", {}), **stage.get("slices", {})}.items()
    ]
    curve = stage.get("curve") or []
    lines = [
        Series("kept of heavy top ten", [(100 * p["share"], p["recall"]) for p in curve], "a"),
        Series("utility regret", [(100 * p["share"], p["utility_regret"]) for p in curve], "b"),
    ]
    return section(
        "lightweight",
        "Lightweight ranker",
        f"Over {stage['requests']:,} logged requests, {number(stage['candidates'], 3)} candidates each are "
        f"cut to {number(stage['kept'], 3)} and compared with the order of the heavy ranker.",
        grid(
            [
                f'<div class="card">{table(["", ">measured"], rows)}</div>',
                figure(
                    line_chart("What a cut keeps", lines, "candidates kept, %", ""), title="What a cut keeps"
                ),
            ]
        ),
        table(["of", ">recall", ">regret"], parts, "By source, and by part of the requests or ads"),
    )


def _slate_orders(stage: Figures) -> list[Html]:
    """NDCG of the orders of logged slates; nothing where no slate gives a choice."""
    ranges = stage.get("intervals") or {}
    order = (
        ("ndcg@10", "final utility"),
        ("ndcg@10_logged", "order as it was shown"),
        ("ndcg@10_popularity", "popularity"),
        ("ndcg@10_truth", "true utility"),
    )
    bars = [
        _bar(name, {"value": stage.get(key), "intervals": {"value": ranges.get(key)}}, "value", style)
        for (key, name), style in zip(order, ("a", "e", "e", "b"), strict=True)
        if stage.get(key) is not None
    ]
    if not bars:
        return []
    caption = f"{stage.get('slates', 0):,} logged slates whose order matters"
    return [figure(interval_chart("NDCG@10 of logged slates", bars), caption, "NDCG@10 of logged slates")]


def funnel_section(stage: Figures | None, logged: list[tuple[Any, ...]]) -> Html:
    """Order of logged slates, what is left after each stage, and where the milliseconds go."""
    if not stage:
        return Html("")
    latency = {k: v for k, v in (stage.get("latency_ms") or {}).items() if k != "total"}
    total = (stage.get("latency_ms") or {}).get("total") or {}
    flow = [
        (entry["stage"], float(entry["candidates"]), entry.get("note", ""))
        for entry in stage.get("stages") or []
        if entry["candidates"] > 0
    ]
    caption = (
        f"median of {stage.get('requests', 0):,} requests; whole request p50 {number(total['p50'], 3)} ms, "
        f"p99 {number(total['p99'], 3)} ms"
        if total
        else ""
    )
    cards = [
        *_slate_orders(stage),
        figure(
            flow_chart("Candidates by stage", flow), "candidates a request, mean", "What each stage leaves"
        ),
        figure(
            share_bar("Latency by stage", [(name, float(at["p50"])) for name, at in latency.items()]),
            caption,
            "Latency by stage",
        ),
    ]
    shares = [
        (name, percent(part["candidates"]), percent(part["slate"]))
        for name, part in (stage.get("sources") or {}).items()
    ]
    found = table(["found first by", ">of candidates", ">of slates"], shares)
    rows = [(name, requests, candidates, kept) for name, requests, candidates, kept in logged]
    log = table(["stage", ">requests", ">candidates", ">kept"], rows, "The funnel's own log") if rows else ""
    note = paragraph(
        "Logged slates were ordered by another policy, and people see what is on top first: NDCG compares "
        "orders on the same slates, it is not what a new order would earn.",
        "note",
    )
    return section(
        "funnel",
        "Funnel",
        "From all candidates to a slate, and how well the slate is ordered.",
        grid(cards),
        note,
        found,
        log,
    )
