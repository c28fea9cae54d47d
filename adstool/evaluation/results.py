"""What the last evaluation found, in reports/evaluation.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adstool.workspace import Workspace, read_json, write_json

NAME = "evaluation.json"


def results_path(ws: Workspace) -> Path:
    """Where the results of a workspace lie."""
    return ws.reports / NAME


def read_results(ws: Workspace) -> dict[str, Any]:
    """The last results by stage; empty when nothing was evaluated."""
    path = results_path(ws)
    return dict(read_json(path)) if path.is_file() else {}


def write_results(ws: Workspace, results: dict[str, Any], stages: list[str]) -> None:
    """Keep `results` of `stages`; those of other stages stay as they were. Written whole or not at all."""
    kept = read_results(ws) if results_path(ws).is_file() else {}
    skipped = {k: v for k, v in (kept.get("skipped") or {}).items() if k not in stages}
    for stage in stages:
        kept.pop(stage, None)
    merged = {**kept, **results, "skipped": {**skipped, **(results.get("skipped") or {})}}
    write_json(results_path(ws), merged)
