"""What every training run leaves behind: model, encoder, metrics, held-out predictions and run.json."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from adstool.device import Device, pick_device
from adstool.models.inputs import config_to_json
from adstool.models.registry import count_parameters, save_model
from adstool.progress import log
from adstool.training.calibration import GROUPS
from adstool.training.checkpoint import NAME as CHECKPOINT
from adstool.training.checkpoint import clear_run, load_checkpoint
from adstool.training.data import Examples, happened
from adstool.training.loop import FitResult, Task, fit
from adstool.training.loop_config import LoopConfig
from adstool.training.metrics import amount_metrics, head_metrics, sigmoid
from adstool.training.options import TrainOptions, TrainResult
from adstool.training.predict import PREDICTIONS, predict_amounts, predict_logits, save_predictions
from adstool.workspace import write_json


class Described(Protocol):
    """What a run says of its data."""

    @property
    def splits(self) -> Mapping[str, slice]: ...
    @property
    def fingerprint(self) -> str: ...


if TYPE_CHECKING:
    from adstool.features.dataset import Dataset
    from adstool.models.engagement import EngagementModel
    from adstool.models.inputs import InputSpec

PACKAGES = ("adstool", "torch", "numpy", "duckdb")


def training_device() -> Device:
    """The device to train on: Apple's GPU is passed over, since it has no sparse gradients."""
    device = pick_device()
    if device.name == "mps":
        return Device("cpu", "Apple's GPU has no sparse gradients")
    return device


def fingerprint_of(examples: Described, model: nn.Module, loop: LoopConfig, task: Any) -> str:
    """A hash of all that decides the outcome: the data, the model's config, the loop's and the task's."""
    described = {
        "data": examples.fingerprint,
        "model": config_to_json(model.config),
        "loop": asdict(loop),
        "task": asdict(task),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fit_run(
    task: Task, loop: LoopConfig, options: TrainOptions, run_dir: Path, fingerprint: str
) -> tuple[FitResult, Device]:
    """Fit in the run's folder, going on from its checkpoint when that is of the same run."""
    elsewhere = options.runner is not None
    device = Device("cpu", "workers of Ray train on processors") if elsewhere else training_device()
    found = load_checkpoint(run_dir, fingerprint) is not None and options.resume is not False
    if not found:
        if options.resume:
            log.info(
                f"No unfinished run of {task.name} with this data, configuration and seed: from the start."
            )
        clear_run(run_dir)
    run = options.runner or fit
    return run(task, loop, device, run_dir, fingerprint, resume=found), device


def probability_metrics(
    model: nn.Module, examples: Examples, run_dir: Path, context: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Metrics of every head on valid and test; the predictions behind them are kept for `calibrate`.

    context: columns [N] to keep beside the predictions, of calibration_context.
    """
    metrics: dict[str, Any] = {}
    held: dict[str, dict[str, NDArray[Any]]] = {}
    for split in ("valid", "test"):
        rows = examples.splits[split]
        logits = predict_logits(model, examples, rows)
        labels = happened(np.asarray(examples.labels[rows]))
        names = tuple(action.name for action in examples.actions)
        metrics[split] = head_metrics(labels, sigmoid(logits), names)
        held[split] = {"logits": logits, "labels": labels}
        if getattr(model, "amounts", None) is not None:
            _add_amounts(model, examples, rows, held[split], metrics[split])  # type: ignore[arg-type]
        held[split] |= {name: np.asarray(values[rows]) for name, values in context.items()}
    save_predictions(run_dir / PREDICTIONS, held)
    return metrics


def calibration_context(dataset: Dataset, spec: InputSpec) -> dict[str, NDArray[Any]]:
    """What calibration reads of every example beside its prediction: codes of the surface and the vertical, a
    number for its request and the campaign's bid (nan without one), [N] each."""
    found: dict[str, NDArray[Any]] = {
        name: np.asarray(dataset.categorical[:, spec.field(name)], dtype=np.int32)
        for name in GROUPS
        if spec.field(name) >= 0
    }
    bids = dataset.items.numbers("bid")
    if np.isfinite(bids).any():
        found["request"] = np.asarray(dataset.request)
        found["bid"] = bids[np.asarray(dataset.item_row)].astype(np.float32)
    return found


def _add_amounts(
    model: EngagementModel,
    examples: Examples,
    rows: slice,
    held: dict[str, NDArray[Any]],
    metrics: dict[str, dict[str, Any]],
) -> None:
    """The expected amounts of a split, what was logged, and their metrics under each action's "amount"."""
    columns = model.amounts.columns  # type: ignore[union-attr]
    held["amounts"] = predict_amounts(model, examples, rows)
    held["amount_labels"] = np.asarray(examples.labels[rows])[:, columns].astype(np.float32)
    for place, column in enumerate(columns):
        figures = amount_metrics(held["amount_labels"][:, place], held["amounts"][:, place])
        metrics[examples.actions[column].name]["amount"] = figures


def finish_run(
    run_dir: Path,
    name: str,
    kind: str,
    model: nn.Module,
    fitted: FitResult,
    device: Device,
    loop: LoopConfig,
    metrics: dict[str, Any],
    examples: Described,
    encoder: Any,
    **facts: Any,
) -> TrainResult:
    """Write the run's files, take the checkpoint away and say how it went."""
    save_model(run_dir, kind, model, name=name, outputs=list(model.output_names), **facts)  # type: ignore[arg-type]
    encoder.save(run_dir)
    write_json(run_dir / "metrics.json", metrics)
    parameters = count_parameters(model)
    rows = {split: part.stop - part.start for split, part in examples.splits.items()}
    write_json(
        run_dir / "run.json",
        {
            "model": name,
            "seed": loop.seed,
            "loop": asdict(loop),
            "data": examples.fingerprint,
            "rows": rows,
            "parameters": parameters,
            "embedding": str(getattr(getattr(model, "embedding", None), "storage", "none")),
            "device": device.name,
            "device_reason": device.reason,
            "precision": fitted.precision,
            "seconds": fitted.seconds,
            "rows_per_second": fitted.rows_per_second,
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch,
            "curve": fitted.curve,
            "versions": {package: _version(package) for package in PACKAGES}
            | {"python": sys.version.split()[0], "platform": platform.platform()},
        },
    )
    (run_dir / CHECKPOINT).unlink(missing_ok=True)
    return TrainResult(
        model=name,
        metrics=metrics,
        parameters=parameters,
        rows_per_second=fitted.rows_per_second,
        seconds=fitted.seconds,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        resumed=fitted.resumed,
    )


def _version(package: str) -> str:
    return version(package)
