"""Report sections about what went in and what was made of it: tables, refused rows, the log, model runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.evaluation.charts import Series, column_chart, line_chart, number
from adstool.evaluation.page import Html, figure, grid, paragraph, section, table
from adstool.features.corpus import corpus_type
from adstool.warehouse import load_sql
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    import duckdb

MODELS = ("clip", "users", "retrieval", "lightweight", "engagement")
REASONS = 12  # reasons of refused rows that are listed
QUANTIZED = (
    ("size_ratio", "size", "{:.0%} of the original", "", ""),
    ("speedup", "speed", "{:.2f} × as fast", "", ""),
    ("delta_ne", "normalized entropy, worst head", "{:+.5f}", "max_ne_loss", "at most {:g}"),
    ("delta_calibration", "calibration ratio, worst head", "{:+.4f}", "max_calibration_shift", "within {:g}"),
    ("topk_overlap", "the same items first", "{:.1%}", "min_topk_overlap", "at least {:.0%}"),
)


def data_section(con: duckdb.DuckDBPyConnection, settings: Settings) -> Html:
    """What the warehouse holds and what was refused."""
    tables = con.execute(load_sql("evaluation_tables")).fetchall()
    parts: list[str] = [
        table(
            ["table", ">rows", ">read", ">duplicate", ">refused"],
            [row for row in tables if row[1] or row[2]],
        )
    ]
    refused = con.execute(load_sql("evaluation_rejects"), {"limit": REASONS}).fetchall()
    if refused:
        parts.append(table(["refused rows of", "reason", ">rows"], refused))
    parts.append(_orphans(con))
    parts.append(_log(con, settings))
    total = sum(row[4] for row in tables)
    lead = (
        "Every row that was read is in a table, known as a duplicate, or kept with the reason it was refused."
    )
    if not total:
        lead += " None was refused."
    return section("data", "Data", lead, *parts)


def _orphans(con: duckdb.DuckDBPyConnection) -> Html:
    found = con.execute(load_sql("evaluation_orphans")).fetchall()
    lost = [
        f"{orphans:,} of {events:,} {kind} events name {items:,} items that no catalogue knows"
        for kind, events, orphans, items in found
        if orphans
    ]
    if not found:
        return Html("")
    if not lost:
        return paragraph("Every event names an item that a catalogue knows.", "note")
    return paragraph("; ".join(lost) + ". They are kept, and left out of training.", "note")


def _log(con: duckdb.DuckDBPyConnection, settings: Settings) -> Html:
    days = con.execute(load_sql("evaluation_days")).fetchall()
    if not days:
        return Html("")
    kind = corpus_type(con, settings)
    actions = con.execute(load_sql("evaluation_actions"), {"item_type": kind}).fetchall()
    label = [(f"{day:%d %b}", day) for day, _, _ in days]
    shown = [(name, float(row[1])) for (name, _), row in zip(label, days, strict=True)]
    acted = [(name, float(row[2])) for (name, _), row in zip(label, days, strict=True)]
    listed = table(
        [f"on {kind}s", ">events", ">users", ">rate"],
        [
            (name, events, users, None if rate is None or name == "impression" else f"{rate:.2%}")
            for name, events, users, rate in actions
        ],
    )
    return grid(
        [
            figure(column_chart("Impressions a day", shown, ""), title="Impressions a day"),
            figure(column_chart("Actions a day", acted, ""), title="Actions a day"),
            f'<div class="card">{listed}</div>',
        ]
    )


def models_section(ws: Workspace) -> Html:
    """The run in use of every model: how it was trained, and how its loss went."""
    cards = [_model_card(name, run) for name in MODELS if (run := ws.current_run(name)) is not None]
    if not cards:
        return Html("")
    return section("models", "Models", "The run in use of each, and its loss after every epoch.", grid(cards))


def _model_card(name: str, run: Path) -> Html:
    about: dict[str, Any] = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    curve = about.get("curve") or []
    lines = [
        Series(label, [(float(p["epoch"]), float(p[key])) for p in curve if p.get(key) is not None], style)
        for key, label, style in (("train_loss", "training", "b"), ("valid_loss", "validation", "a"))
    ]
    svg = line_chart(f"Loss of {name} by epoch", [one for one in lines if one.points], "epoch", "loss")
    facts = []
    if "parameters" in about:
        facts.append(f"{about['parameters']:,} parameters")
    if about.get("rows_per_second"):
        facts.append(f"{about['rows_per_second']:,.0f} rows/s")
    if about.get("seconds"):
        facts.append(f"{number(float(about['seconds']), 3)} s on {about.get('device', 'an unknown device')}")
    if about.get("best_epoch"):
        facts.append(f"best after epoch {about['best_epoch']}")
    facts.append(f"seed {about.get('seed', 'unknown')}")
    return figure(svg or "<p>No curve was recorded.</p>", ", ".join(facts), f"{name} {run.name}")


def quantization_section(ws: Workspace) -> Html:
    """What the gate measured when the engagement model was quantized."""
    run = ws.current_run("engagement")
    path = run / "quantization.json" if run is not None else None
    if path is None or not path.is_file():
        return Html("")
    found = read_json(path)
    limits = found.get("limits") or {}
    rows = [
        (name, form.format(float(found[key])), wanted.format(limits[limit]) if limit in limits else None)
        for key, name, form, limit, wanted in QUANTIZED
        if found.get(key) is not None
    ]
    scheme = found.get("scheme", "int8")
    words = (
        f"The {scheme} model passed its gate and is the one that serves."
        if found.get("accepted")
        else f"The {scheme} model did not pass its gate; the full-precision model serves."
    )
    measured = f"on {found['rows']:,} held-out rows" if found.get("rows") else ""
    parts = [table(["against the original", ">measured", ">limit"], rows, measured)]
    parts += [paragraph(f"Refused: {reason}", "note") for reason in found.get("reasons") or []]
    techniques = [
        (
            row["technique"],
            f"{row['size_ratio']:.0%}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            "" if row["delta_ne"] is None else f"{row['delta_ne']:+.3%}",
            f"{row['topk_overlap']:.1%}",
        )
        for row in found.get("table") or []
    ]
    if techniques:
        names = ["technique", ">size", ">ms p50", ">p99", ">normalized entropy", ">same first"]
        parts.append(table(names, techniques, "a request's candidates, one thread, its own time"))
    return section("quantization", "Quantization", words, *parts)
