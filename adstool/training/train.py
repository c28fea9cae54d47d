"""Training by name: what the `train` command and the pipeline both call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.errors import UsageError, choose
from adstool.training.conversion import train_conversion
from adstool.training.engagement import train_engagement
from adstool.training.flat import train_flat
from adstool.training.flat_table import FlatRequest
from adstool.training.lightweight import train_lightweight
from adstool.training.options import TrainOptions, TrainResult
from adstool.training.retrieval import train_retrieval
from adstool.training.users import train_users
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    import duckdb

__all__ = ["TRAINERS", "Export", "TrainOptions", "TrainResult", "train_flat_model", "train_model"]

Export = Callable[[Path], object]  # writes a run's ONNX files (adstool.serving.export.export_run)


# How each model is trained; a new model is a new file with such a function, and a row here.
TRAINERS: dict[
    str, Callable[[Workspace, Settings, duckdb.DuckDBPyConnection, Path, TrainOptions], TrainResult]
] = {
    "retrieval": train_retrieval,
    "lightweight": train_lightweight,
    "engagement": train_engagement,
    "conversion": train_conversion,
    "users": train_users,
}


def train_model(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    name: str,
    options: TrainOptions,
    *,
    export: Export,
) -> TrainResult:
    """Train model `name` on the workspace's log, export it and make it the run in use.

    Killed in the middle, the same call goes on from its last checkpoint. Raises UsageError for a name that
    is no model.
    """
    if name not in TRAINERS:
        raise UsageError(f"There is no model '{name}' to train.", choose(name, TRAINERS))
    if options.warm_start and name != "engagement":
        raise UsageError(f"--warm-start is of engagement, not of {name}.", "Leave out --warm-start.")
    before = ws.current_run(name)
    with ws.new_run(name) as run_dir:
        result = TRAINERS[name](ws, settings, con, run_dir, options)
        export(run_dir)
    result.before = entropies_before(before, result)
    return _published(ws, name, result)


def entropies_before(run: Path | None, result: TrainResult) -> dict[str, Any]:
    """The test NE by head of the run that was in use before, where it was judged on as many rows as `result`.

    So what a new head, or anything else, does to the other heads is seen. Empty when there is nothing to
    compare.
    """
    if run is None or not (run / "metrics.json").is_file():
        return {}
    known, test = read_json(run / "metrics.json").get("test", {}), result.metrics.get("test", {})
    heads = {
        head: figures["ne"]
        for head, figures in known.items()
        if isinstance(figures, dict) and isinstance(test.get(head), dict)
        if "ne" in figures and figures.get("rows") == test[head].get("rows")
    }
    return {"run_id": run.name, "ne": heads} if heads else {}


def train_flat_model(
    ws: Workspace, settings: Settings, request: FlatRequest, options: TrainOptions, *, export: Export
) -> TrainResult:
    """Train the engagement model on a flat table, as a run of the model `flat`."""
    with ws.new_run("flat") as run_dir:
        result = train_flat(ws, settings, request, run_dir, options)
        export(run_dir)
    return _published(ws, "flat", result)


def _published(ws: Workspace, name: str, result: TrainResult) -> TrainResult:
    run = ws.current_run(name)
    assert run is not None
    result.run_id = run.name
    return result
