"""How the loss of a ranker falls with compute: one trunk at several sizes, and a power law through them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adstool.config import Settings
from adstool.progress import log
from adstool.training.data import Examples

# Width and depth grow together, as in the scaling runs of Wukong (Zhang et al. 2024, section 5).
SIZES: dict[str, dict[str, Any]] = {
    "4 x 8, 1 layer": {"tokens": 4, "token_dim": 8, "trunk_layers": 1, "embedding_dim": 4, "hidden": (16,)},
    "8 x 8, 1 layer": {"tokens": 8, "token_dim": 8, "trunk_layers": 1, "embedding_dim": 8, "hidden": (32,)},
    "16 x 16, 2 layers": {"tokens": 16, "token_dim": 16, "trunk_layers": 2, "hidden": (128, 64)},
    "24 x 24, 3 layers": {"tokens": 24, "token_dim": 24, "trunk_layers": 3, "hidden": (256, 64)},
    "32 x 32, 4 layers": {"tokens": 32, "token_dim": 32, "trunk_layers": 4, "hidden": (256, 128)},
}


@dataclass(frozen=True)
class Point:
    """One size, trained until its validation loss stopped falling."""

    name: str
    parameters: int  # of the dense layers
    rows: int  # trained on up to the best epoch
    loss: float  # of the validation split, summed over heads

    @property
    def compute(self) -> float:
        """Floating-point operations: 6 a parameter and row (Kaplan et al. 2020, 2.1)."""
        return 6.0 * self.parameters * self.rows


@dataclass(frozen=True)
class PowerLaw:
    """loss = floor + scale · (compute / unit)^-exponent (Hoffmann et al. 2022, eq. 2, in compute)."""

    floor: float
    scale: float
    exponent: float
    unit: float  # the compute of the smallest size
    explained: float  # share of the losses' variance that the law explains

    def at(self, compute: float) -> float:
        """The loss that the law expects."""
        return float(self.floor + self.scale * (compute / self.unit) ** -self.exponent)


@dataclass(frozen=True)
class Scaling:
    """Points in the order of compute, and the law through them."""

    points: tuple[Point, ...]
    law: PowerLaw

    def to_json(self) -> dict[str, Any]:
        """What the report reads."""
        points = [{**asdict(point), "compute": point.compute} for point in self.points]
        return {"points": points, "law": asdict(self.law)}


def fit_power_law(compute: Sequence[float], loss: Sequence[float]) -> PowerLaw:
    """The law of least squared error: a grid over exponents, the rest by linear least squares, floor >= 0.

    With so few points a search over the one non-linear number cannot end in a local optimum.
    """
    x, y = np.asarray(compute, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    unit = float(x.min())
    best: tuple[float, float, float, float] | None = None
    for exponent in np.geomspace(0.01, 4.0, 3000):
        falling = (x / unit) ** -exponent
        design = np.stack([np.ones_like(falling), falling], axis=1)
        (floor, scale), *_ = np.linalg.lstsq(design, y, rcond=None)
        if floor < 0:
            floor, scale = 0.0, float(falling @ y / (falling @ falling))
        error = float(np.sum((floor + scale * falling - y) ** 2))
        if scale >= 0 and (best is None or error < best[0] - 1e-15):
            best = (error, float(floor), float(scale), float(exponent))
    spread = float(np.sum((y - y.mean()) ** 2))
    if best is None:  # the loss does not fall at all
        return PowerLaw(float(y.mean()), 0.0, 0.0, unit, 0.0)
    error, floor, scale, exponent = best
    return PowerLaw(floor, scale, exponent, unit, 1.0 - error / spread if spread > 0 else 0.0)


def measure_scaling(settings: Settings, examples: Examples, spec: Any) -> Scaling:
    """Train the wukong trunk at every size on these examples and fit the law. Weights are not kept."""
    from adstool.models.engagement import EngagementConfig
    from adstool.models.registry import count_parameters
    from adstool.training.engagement import PRESETS, EngagementTask, EngagementTaskConfig, build_engagement
    from adstool.training.loop import fit
    from adstool.training.options import TrainOptions, make_plan
    from adstool.training.record import training_device

    points = []
    for name, size in SIZES.items():
        presets = {"size": {**PRESETS["wukong"], **size}}
        plan = make_plan(settings, TrainOptions(), presets, EngagementConfig, EngagementTaskConfig)
        model = build_engagement(spec, plan, examples)
        task = EngagementTask(name, model, examples, EngagementTaskConfig(**plan.task))
        with tempfile.TemporaryDirectory() as folder:
            fitted = fit(task, plan.loop, training_device(), Path(folder), name, resume=False)
        dense = count_parameters(model) - model.embedding.table.weight.numel()
        points.append(Point(name, dense, task.rows * fitted.best_epoch, fitted.best_loss))
        log.info(f"scaling: {name}, {dense:,} parameters, validation loss {fitted.best_loss:.4f}")
    points.sort(key=lambda point: point.compute)
    law = fit_power_law([point.compute for point in points], [point.loss for point in points])
    return Scaling(tuple(points), law)
