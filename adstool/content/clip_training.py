"""Training the small CLIP on a workspace's own catalogue, from scratch or from a CLIP that exists.

The loss is CLIP's, a softmax over the batch in both directions, with one change: a text is a positive of
every picture of the batch it is true of (see clip_data.true_of), as in supervised contrastive learning
(Khosla et al. 2020, equation 2), where targets share their weight evenly. Beside it, each with its weight:

- naming the category of pictures and of titles by the names' own vectors, as search by category will;
- finding, among the joint vectors of the batch, the item that the same users engaged with, as PinCLIP aligns
  an item with its neighbours (see coengagement for who is a neighbour);
- a contrast between two views of the same picture (SLIP, Mu et al. 2021) in the second half of the epochs, in
  batches half of which is of one category: texts name a product, and all that they leave unsaid, style above
  all, would be trained away. From the first epoch on it is in the way of what texts say. Measured on a
  synthetic catalogue, share of pictures whose category is named without training after five epochs: .52 with
  it, .99 without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adstool.config import Settings
from adstool.content import clip_checkpoint
from adstool.content.clip_data import ClipData, load_clip_data
from adstool.content.clip_loop import ClipLoop, held_out_metrics
from adstool.content.clip_options import ClipTrainOptions
from adstool.content.clip_start import Start, start_model
from adstool.content.clip_towers import FrozenTowers, RunningTowers, Towers, trains_in_bf16
from adstool.content.coengagement import (
    LaterEngagements,
    Neighbours,
    co_engagement_metrics,
    find_neighbours,
    later_engagements,
)
from adstool.errors import DataError
from adstool.progress import log
from adstool.workspace import Workspace, write_json

if TYPE_CHECKING:
    import duckdb

SPLITS = ("valid", "test")


@dataclass
class ClipTrainResult:
    """What a training run gave."""

    metrics: dict[str, dict[str, float]]
    parameters: int
    rows_per_second: float
    seconds: float
    epochs: int
    curve: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The keys that `train --json` prints, less the run's id."""
        return {"model": "clip", **asdict(self)}


def train_clip(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    run_dir: Path,
    *,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ClipTrainResult:
    """Train on the catalogue's pictures and texts; `run_dir` becomes a model folder open_clip can load.

    A checkpoint is kept every epoch; when `run_dir` holds one of the same options and catalogue, training
    goes on from it and ends with the same weights as if it had not been cut off. `overrides` sets fields of
    ClipTrainOptions. Raises DataError when the catalogue has no pictures with texts, or the log no
    engagements where neighbours are asked for, AdstoolError for options that do not exist.
    """
    given = {"preset": preset, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    options = ClipTrainOptions.from_given(
        {"seed": settings.training.seed, **(overrides or {})},
        {k: v for k, v in given.items() if v is not None},
    )
    started = time.monotonic()
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    start = start_model(ws, settings, con, run_dir, options)
    data = load_clip_data(ws, con, start.clip)
    options = options.for_catalogue(len(data.splits["train"]))
    neighbours = _neighbours(con, settings, data, options)
    measure = _CoEngagement(con, settings, data, options)
    towers = _towers(ws, start, data, options)
    before = measure.vectors(towers) if start.source else None
    loop = ClipLoop(towers, data, neighbours, options, run_dir)
    loop.run(f"{options.identity()}-{data.fingerprint}-{start.identity}-{len(neighbours)}")
    clip_checkpoint.save_weights(run_dir, start.clip.model)
    start.clip.model.eval()
    metrics = {name: held_out_metrics(towers, data, name) for name in SPLITS}
    for name, figures in measure.metrics(before, measure.vectors(towers)).items():
        metrics[name] |= figures
    parameters = sum(weight.numel() for weight in start.clip.model.parameters())
    rate = loop.rows / max(loop.seconds, 1e-9)
    result = ClipTrainResult(metrics, parameters, rate, time.monotonic() - started, options.epochs)
    result.curve = loop.curve
    _write_notes(run_dir, result, options, start, data, neighbours)
    clip_checkpoint.forget(run_dir)
    return result


def _towers(ws: Workspace, start: Start, data: ClipData, options: ClipTrainOptions) -> Towers:
    if options.tune == "projection" and start.source:
        return FrozenTowers(start.clip, data, ws.cache / "towers" / start.source.slug)
    start.clip.model.requires_grad_(True).to(memory_format=torch.channels_last)
    return RunningTowers(start.clip, data, options.augment)


def _neighbours(
    con: duckdb.DuckDBPyConnection, settings: Settings, data: ClipData, options: ClipTrainOptions
) -> Neighbours:
    if options.neighbours <= 0:
        return Neighbours(np.zeros((0, 2), np.int64), np.zeros(0), len(data.pairs))
    found = find_neighbours(
        con, settings, data, window_hours=options.window_hours, half_life_days=options.half_life_days
    )
    if not len(found):
        raise DataError(
            "--set neighbours: no user of the log engaged with two pictures, so none are neighbours.",
            "Ingest events of saves or clicks, or train without: --set neighbours=0",
        )
    log.info("%d pairs of pictures that the same users engaged with", len(found))
    return found


class _CoEngagement:
    """Recall of co-engaged items before and after training; no figures where the log has none."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, settings: Settings, data: ClipData, options: ClipTrainOptions
    ) -> None:
        self.data, self.resamples = data, settings.evaluation.bootstrap
        self.later: dict[str, LaterEngagements] = {}
        for split in SPLITS:
            later = later_engagements(con, settings, data, split, window_hours=options.window_hours)
            if later is not None:
                self.later[split] = later

    def vectors(self, towers: Towers) -> np.ndarray | None:
        """The joint vectors of all pictures as `embed` makes them; None where nothing is measured."""
        if not self.later:
            return None
        towers.clip.model.eval()
        image = towers.plain_images(np.arange(len(self.data.pairs)))
        both = image + towers.plain_texts([pair.text for pair in self.data.pairs])
        unit: np.ndarray = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
        return unit

    def metrics(self, before: np.ndarray | None, after: np.ndarray | None) -> dict[str, dict[str, float]]:
        """co_engagement_metrics by split."""
        given = {"": after, "_before": before}
        vectors = {name: matrix for name, matrix in given.items() if matrix is not None}
        return {
            split: co_engagement_metrics(vectors, later, resamples=self.resamples)
            for split, later in self.later.items()
        }


def _write_notes(
    run_dir: Path,
    result: ClipTrainResult,
    options: ClipTrainOptions,
    start: Start,
    data: ClipData,
    neighbours: Neighbours,
) -> None:
    bf16 = trains_in_bf16(start.clip)
    catalogue = {"fingerprint": data.fingerprint, **{k: len(v) for k, v in data.splits.items()}}
    write_json(run_dir / "metrics.json", result.metrics)
    write_json(
        run_dir / "run.json",
        {
            "options": asdict(options),
            "catalogue": catalogue | {"neighbour_pairs": len(neighbours)},
            "device": {
                "name": start.clip.device.name,
                "reason": start.clip.device.reason,
                "precision": "bf16, computed in hardware here" if bf16 else "fp32, no bf16 hardware here",
            },
            "versions": clip_checkpoint.versions(),
            "duration": result.seconds,
            "rows_per_second": result.rows_per_second,
            "curve": result.curve,
            **start.notes,
        },
    )
