"""`train conversion`: conversions after clicks, over all impressions, however late they are reported."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.features.conversions import ConversionLabels, build_conversions
from adstool.features.dataset import Dataset
from adstool.models.conversion import ConversionConfig, ConversionModel
from adstool.models.inputs import InputSpec, input_spec
from adstool.progress import log
from adstool.training.calibration import GROUPS
from adstool.training.conversion_data import ConversionData, conversion_data, known_outcome, windows_of
from adstool.training.conversion_metrics import conversion_metrics, output_names, split_outputs
from adstool.training.conversion_task import ConversionTask, ConversionTaskConfig, aside_groups
from adstool.training.data import load_training_data
from adstool.training.delay import DAY
from adstool.training.engagement import set_bins
from adstool.training.metrics import sigmoid
from adstool.training.options import Plan, TrainOptions, TrainResult, make_plan
from adstool.training.predict import PREDICTIONS, predict_logits, save_predictions
from adstool.training.record import calibration_context, fingerprint_of, finish_run, fit_run
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

# The first is the default: conversions are a hundred times fewer than impressions, and a smaller trunk does
# as well on tens of thousands of those. A preset is a row here.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "average": 0.99,
        "hidden": (64,),
        "cross_layers": 1,
        "cross_rank": 16,
        "history_used": 5,
        "epochs": 5,
    },
    "base": {"average": 0.99, "cross_rank": 64},
    "large": {"hidden": (400, 400), "cross_layers": 3, "embedding_dim": 16},
}


def build_conversion(
    spec: InputSpec, plan: Plan, dataset: Dataset, data: ConversionData, config: ConversionTaskConfig
) -> ConversionModel:
    """A model with fresh weights, its bins at the quantiles of training and its biases at the base rates."""
    torch.manual_seed(plan.loop.seed)
    groups = aside_groups(config)
    aside = tuple(f"{name}:{kind}" for name in groups for kind in data.kinds)
    model = ConversionModel(
        ConversionConfig(inputs=spec, **plan.model, outputs=output_names(data.kinds), aside=aside)
    )
    set_bins(model, dataset.numeric, data.train.row)
    starts = {"late": data.late_share, "imputed": data.base_rates[1:]}
    # Of buckets the logits are those of a softmax, so that logit(p) is to be the logarithm of the share.
    starts |= {f"delay{number}": share / (1 + share) for number, share in enumerate(data.delay_shares)}
    values = np.full(len(data.kinds), 0.5)
    parts = [data.base_rates, values, *(starts.get(name, values) for name in groups)]
    model.set_biases(torch.from_numpy(np.concatenate(parts)))
    return model


def start_scales(data: ConversionData) -> NDArray[np.float64]:
    """The mean money of a conversion of each kind, 1 where none is known."""
    value = data.train.value
    known = (value > 0).sum(axis=0)
    mean = np.nansum(value, axis=0, dtype=np.float64) / np.maximum(known, 1)
    return np.asarray(np.where(known > 0, mean, 1.0))


def train_conversion(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the conversion model on the workspace's impressions of ads, into `run_dir`."""
    plan = make_plan(settings, options, PRESETS, ConversionConfig, ConversionTaskConfig)
    config = ConversionTaskConfig(**plan.task)
    config.validate()
    dataset = load_training_data(ws, settings, con)
    labels = build_conversions(con, ws, settings, dataset)
    windows = windows_of(dataset, labels, config.test_share, config.wait_hours)
    if windows.horizon < labels.horizon:
        log.info(
            f"The log is short: conversions are counted up to {windows.days:.1f} days after a click, not "
            f"{labels.horizon / DAY:.1f}."
        )
    data = conversion_data(dataset, labels, windows, config.delay, config.valid_share)
    spec = input_spec(dataset)
    model = build_conversion(spec, plan, dataset, data, config)
    task = ConversionTask(model, dataset, data, config, start_scales(data))
    fingerprint = fingerprint_of(data, model, plan.loop, config)
    fitted, device = fit_run(task, plan.loop, options, run_dir, fingerprint)
    scales = task.calibrate()
    metrics = judge(model, dataset, labels, data, scales, run_dir)
    return finish_run(
        run_dir,
        "conversion",
        "conversion",
        model,
        fitted,
        device,
        plan.loop,
        metrics,
        data,
        dataset.encoder,
        kinds=list(data.kinds),
        value_scales=scales.tolist(),
        windows=windows.to_json(),
        task=asdict(config),
    )


def judge(
    model: ConversionModel,
    dataset: Dataset,
    labels: ConversionLabels,
    data: ConversionData,
    scales: NDArray[np.float64],
    run_dir: Path,
) -> dict[str, Any]:
    """Metrics on the parts of valid and test of which all is known; predictions are kept for `calibrate`."""
    metrics: dict[str, Any] = {}
    held: dict[str, dict[str, NDArray[Any]]] = {}
    context = calibration_context(dataset, model.config.inputs)
    windows = data.windows
    for split, rows, moment in (
        ("valid", data.valid_rows, windows.cut),
        ("test", data.test_rows, windows.end),
    ):
        logits = predict_logits(model, dataset, rows)
        known = known_outcome(labels, rows, moment, windows.horizon)
        metrics[split] = conversion_metrics(split_outputs(sigmoid(logits), scales), known, data.kinds)
        given = np.where(known.clicked[:, None], known.converted, np.nan)
        unknown = np.full(given.shape, np.nan)
        labelled = np.concatenate([known.clicked[:, None], given, unknown], axis=1).astype(np.float32)
        held[split] = {"logits": logits, "labels": labelled}
        held[split] |= {name: values[rows] for name, values in context.items() if name in GROUPS}
    save_predictions(run_dir / PREDICTIONS, held)
    return metrics
