"""What the last evaluation found, in reports/evaluation.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adstool.progress import log
from adstool.workspace import Workspace, read_json, write_json

NAME = "evaluation.json"
FORMAT = 1  # raised when a stage's figures change their names or their meaning


def results_path(ws: Workspace) -> Path:
    """Where the results of a workspace lie."""
    return ws.reports / NAME


def read_results(ws: Workspace) -> dict[str, Any]:
    """The last results by stage; empty when nothing was evaluated, or by another version in another form.

    A figure that could not be measured is nan, as it was before JSON made it null.
    """
    path = results_path(ws)
    if not path.is_file():
        return {}
    found = dict(read_json(path))
    if (found.get("about") or {}).get("format") != FORMAT:
        log.warning("%s was written by another version of adstool: adstool evaluate makes it again.", path)
        return {}
    return dict(_unknown_as_nan(found))


def _unknown_as_nan(value: Any) -> Any:
    if value is None:
        return float("nan")
    if isinstance(value, dict):
        return {key: _unknown_as_nan(inner) for key, inner in value.items()}
    return [_unknown_as_nan(inner) for inner in value] if isinstance(value, list) else value


def write_results(ws: Workspace, results: dict[str, Any], stages: list[str]) -> None:
    """Keep `results` of `stages`; those of other stages stay as they were. Written whole or not at all."""
    kept = read_results(ws)
    skipped = {k: v for k, v in (kept.get("skipped") or {}).items() if k not in stages}
    for stage in stages:
        kept.pop(stage, None)
    merged = {**kept, **results, "skipped": {**skipped, **(results.get("skipped") or {})}}
    write_json(results_path(ws), merged)
