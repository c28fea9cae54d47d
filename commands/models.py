"""adstool models: every model run of the workspace, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, say, table


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        models,
        "adstool models",
        "adstool models --json",
    )


def models(
    context: typer.Context,
) -> None:
    """List every model run with its figures, and the one in use.

    Its data, duration, test metrics, size and the form that serves: full precision or quantized.
    """
    from adstool.workspace import read_json

    workspace, _ = open_workspace(context)
    rows: list[dict[str, Any]] = []
    names = sorted(path.name for path in workspace.models.iterdir()) if workspace.models.is_dir() else []
    for name in names:
        current = workspace.current_run(name)
        for run in workspace.runs(name):
            about = read_json(run / "run.json") if (run / "run.json").is_file() else {}
            quantized = run / "quantization.json"
            small = read_json(quantized) if quantized.is_file() else {}
            metrics = read_json(run / "metrics.json") if (run / "metrics.json").is_file() else {}
            rows.append(
                {
                    "model": name,
                    "run_id": run.name,
                    "current": run == current,
                    "bytes": sum(file.stat().st_size for file in run.rglob("*") if file.is_file()),
                    "run": about,
                    "metrics": metrics,
                    "serves": _served(run, small),
                }
            )
    if emit(context, {"models": rows}):
        return
    if not rows:
        say(context, "No model has been trained yet.")
        next_verb(context, "adstool run, or adstool train engagement")
        return
    shown = [
        (
            row["model"],
            row["run_id"],
            ", ".join(filter(None, ("in use", row["serves"]))) if row["current"] else "",
            round(row["bytes"] / 1e6, 2),
            row["run"].get("seconds"),
            ", ".join(f"{k} {v:.4f}" for k, v in _plain_figures(row["metrics"].get("test"))),
        )
        for row in rows
    ]
    table(context, ["model", "run", "", "MB", "seconds", "test"], shown)
    next_verb(context, "adstool evaluate")


def _served(run: Path, quantized: dict[str, Any]) -> str:
    """The form that serves, empty for what is served by no graph."""
    if not any(run.glob("*.onnx")):
        return ""
    return str(quantized["scheme"]) if quantized.get("in_use") else "fp32"


def _plain_figures(metrics: Any, prefix: str = "") -> list[tuple[str, float]]:
    if not isinstance(metrics, dict):
        return []
    found: list[tuple[str, float]] = []
    for key, value in metrics.items():
        if isinstance(value, dict):
            found += _plain_figures(value, f"{prefix}{key} ")
        elif isinstance(value, float):
            found.append((f"{prefix}{key}", value))
    return found[:4]
