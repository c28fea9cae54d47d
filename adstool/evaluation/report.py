"""The report: one HTML file that needs no network, with everything the workspace knows about itself."""

from __future__ import annotations

import math
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool import __version__
from adstool.config import Settings
from adstool.evaluation import page
from adstool.evaluation.charts import number
from adstool.evaluation.page import Html, key_figures, paragraph, text
from adstool.evaluation.results import read_results
from adstool.evaluation.sections_conversion import conversion_section
from adstool.evaluation.sections_data import data_section, models_section, quantization_section
from adstool.evaluation.sections_growth import growth_section
from adstool.evaluation.sections_interests import interests_section
from adstool.evaluation.sections_market import market_section
from adstool.evaluation.sections_quality import (
    engagement_section,
    funnel_section,
    lightweight_section,
    retrieval_section,
)
from adstool.evaluation.sections_quota import quota_section
from adstool.evaluation.sections_scaling import scaling_section
from adstool.evaluation.sections_search import search_section
from adstool.evaluation.sections_semantic import semantic_section
from adstool.evaluation.sections_slates import slates_section
from adstool.evaluation.sections_utility import utility_section
from adstool.evaluation.truth import locate_truth
from adstool.warehouse import load_sql
from adstool.workspace import Workspace, write_text

if TYPE_CHECKING:
    import duckdb


def report_path(ws: Workspace, path: Path | None, now: datetime | None = None) -> Path:
    """Where a report is written: to `path`, else to reports/<date>.html of the workspace."""
    return (path or ws.reports / f"{now or datetime.now(UTC):%Y-%m-%d}.html").resolve()


def write_report(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, path: Path | None
) -> Path:
    """Write the report to `path`, else to reports/<date>.html of the workspace; returns where it is.

    It shows what there is: data alone when nothing was trained, figures as of the last `evaluate`.
    """
    now = datetime.now(UTC)
    target = report_path(ws, path, now)
    results = read_results(ws)
    logged = con.execute(load_sql("evaluation_stages")).fetchall()
    found: list[tuple[str, str, Html]] = [
        ("data", "Data", data_section(con, settings)),
        ("models", "Models", models_section(ws)),
        ("semantic", "Semantic ids", semantic_section(ws)),
        ("interests", "Interests", interests_section(settings, con, results.get("interests"))),
        ("engagement", "Engagement", engagement_section(results.get("engagement"))),
        ("conversion", "Conversions", conversion_section(results.get("conversion"))),
        ("retrieval", "Sources", retrieval_section(results.get("retrieval"))),
        ("quota", "Quotas", quota_section(ws)),
        ("lightweight", "Lightweight", lightweight_section(results.get("lightweight"))),
        ("funnel", "Funnel", funnel_section(results.get("funnel"), logged)),
        ("market", "Market", market_section(ws)),
        ("utility", "Utility", utility_section(results.get("utility"))),
        ("quantization", "Quantization", quantization_section(ws)),
        ("scaling", "Scaling", scaling_section(ws)),
        ("growth", "Growth", growth_section(ws)),
        ("slates", "Slates", slates_section(ws, settings, con)),
        ("search", "Search", search_section(ws, settings, con)),
    ]
    sections = [entry for entry in found if entry[2]]
    header = _header(ws, settings, con, results, now)
    document = page.document(f"{ws.root.name} – adstool report", header, sections, _footer(results, now))
    write_text(target, document)
    return target


def _header(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    results: dict[str, Any],
    now: datetime,
) -> Html:
    parts = [
        f"<h1>{text(ws.root.name)}</h1>",
        paragraph(f"adstool report of {now.day} {now:%B %Y}, {now:%H:%M} UTC", "meta"),
        key_figures(_headline(results)),
    ]
    if results.get("synthetic") or locate_truth(con, settings) is not None:
        words = "This is a synthetic world: nothing here was measured on real people."
        parts.append(f'<div class="notice">{text(words)}</div>')
    if not results:
        words = "Nothing has been evaluated yet: adstool run, or adstool evaluate once there are models."
        parts.append(f'<div class="notice">{text(words)}</div>')
    run = ws.current_run("engagement")
    measured = (results.get("engagement") or {}).get("run_id")
    if run is not None and measured is not None and measured != run.name:
        words = (
            f"Figures are of engagement {measured}; {run.name} is in use now: adstool evaluate measures it."
        )
        parts.append(f'<div class="notice">{text(words)}</div>')
    for stage, reason in (results.get("skipped") or {}).items():
        parts.append(f'<div class="notice">{text(f"{stage} was not evaluated: {reason}")}</div>')
    return Html("".join(parts))


def _headline(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures to look at first, each with what it stands beside; unknown ones are left out."""
    figures: list[tuple[str, str, str]] = []

    def add(name: str, value: Any, form: str, under: str) -> None:
        if value is not None and math.isfinite(value):
            figures.append((name, form.format(value), under))

    for name, head in list(((results.get("engagement") or {}).get("heads") or {}).items())[:1]:
        for metric, title in (("auc", "AUC"), ("ne", "NE")):
            beside = _beside(metric, popularity=head["popularity"], true_rates=head.get("truth"))
            add(f"{title}, {name}", head.get(metric), "{:.3f}", beside)
    retrieval = results.get("retrieval") or {}
    if retrieval:
        depth = f"recall@{100 if 100 in retrieval['ks'] else retrieval['ks'][-1]}"
        popular = retrieval["sources"].get("popular")
        add(depth, retrieval["merged"].get(depth), "{:.3f}", _beside(depth, popular=popular))
    light = results.get("lightweight") or {}
    if light:
        under = (
            f"of the heavy top ten, keeping {number(light['kept'], 3)} of {number(light['candidates'], 3)}"
        )
        add("lightweight keeps", light.get("recall"), "{:.1%}", under)
    funnel = results.get("funnel") or {}
    total = (funnel.get("latency_ms") or {}).get("total") or {}
    if total:
        add(
            "a request takes", total["p50"], "{:.1f} ms", f"p99 {number(total['p99'], 3)} ms, on this machine"
        )
    logged = {"ndcg@10": funnel.get("ndcg@10_logged", math.nan)}
    add("slate NDCG@10", funnel.get("ndcg@10"), "{:.3f}", _beside("ndcg@10", as_shown=logged))
    return figures


def _beside(metric: str, **others: dict[str, Any] | None) -> str:
    """The same metric of others, in words: popularity 0.61, true rates 0.78."""
    found = {name.replace("_", " "): (other or {}).get(metric, math.nan) for name, other in others.items()}
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items() if math.isfinite(value))


def _footer(results: dict[str, Any], now: datetime) -> Html:
    about = results.get("about") or {}
    made = f"evaluated {about['made_at']}, " if about.get("made_at") else ""
    draws = (
        f"{about['bootstrap']} resamples of users behind every interval, " if about.get("bootstrap") else ""
    )
    return Html(
        f"adstool {__version__}, {text(made)}{text(draws)}Python {platform.python_version()} on "
        f"{text(platform.platform())}. Written {now:%Y-%m-%dT%H:%M:%SZ}."
    )
