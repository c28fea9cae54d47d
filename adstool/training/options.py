"""How a training run is asked for, planned and reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from adstool.config import Settings
from adstool.errors import UsageError, choose
from adstool.training.loop_config import LoopConfig

if TYPE_CHECKING:
    from pathlib import Path

    from adstool.device import Device
    from adstool.training.lists import Teach
    from adstool.training.loop import FitResult, Task


class Runner(Protocol):
    """What fits a task as training.loop.fit does, elsewhere."""

    def __call__(
        self,
        task: Task,
        config: LoopConfig,
        device: Device,
        run_dir: Path,
        fingerprint: str,
        resume: bool = True,
    ) -> FitResult: ...


@dataclass(frozen=True)
class TrainOptions:
    """What a `train` command was given; None and "" leave the choice to presets and settings."""

    preset: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)  # --set key=value
    epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    resume: bool | None = None  # None: go on if nothing changed; True: say so when that fails; False: never
    runner: Runner | None = None  # None: this process
    warm_start: bool = False  # from the weights of the run in use, as far as they fit
    teach: Teach | None = None  # makes the heavy ranker's lessons for the lightweight one


@dataclass(frozen=True)
class Plan:
    """The loop's config, and what differs from the defaults of the model's and the task's config."""

    loop: LoopConfig
    model: dict[str, Any]
    task: dict[str, Any]


@dataclass
class TrainResult:
    """What training gave; `metrics` has the keys valid and test."""

    model: str
    metrics: dict[str, Any]
    parameters: int
    rows_per_second: float
    seconds: float
    epochs: int
    best_epoch: int
    resumed: bool = False
    run_id: str = ""
    before: dict[str, Any] = field(default_factory=dict)  # the run that was in use: run_id, and ne by head

    def to_json(self) -> dict[str, Any]:
        """The result as the command prints it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


Preset = Mapping[str, Any]
DERIVED = (
    "inputs",
    "outputs",
    "aside",
    "items",
    "loss_parts",
)  # keys of a model's config that follow from the data


def make_plan(
    settings: Settings,
    options: TrainOptions,
    presets: Mapping[str, Preset],
    model_config: type,
    task_config: type,
) -> Plan:
    """Defaults < preset < adstool.toml or environment < --set < the command's own flags.

    Raises UsageError for an unknown preset or key (naming the nearest known one) or a value of a wrong type.
    """
    name = options.preset or next(iter(presets))
    if name not in presets:
        raise UsageError(f"There is no preset '{name}'.", choose(name, presets))
    kinds = {
        "loop": get_type_hints(LoopConfig),
        "model": {k: v for k, v in get_type_hints(model_config).items() if k not in DERIVED},
        "task": get_type_hints(task_config),
    }
    chosen: dict[str, dict[str, Any]] = {"loop": {}, "model": {}, "task": {}}

    def put(key: str, value: Any) -> None:
        for part, hints in kinds.items():
            if key in hints:
                chosen[part][key] = _parse(key, value, hints[key])
                return
        known = sorted(key for hints in kinds.values() for key in hints)
        raise UsageError(f"--set: there is no '{key}' to set.", choose(key, known))

    training = settings.training
    for key in ("epochs", "batch_size", "learning_rate", "seed", "patience"):
        put(key, getattr(training, key))
    for key, value in presets[name].items():
        put(key, value)
    for key in ("epochs", "batch_size", "learning_rate", "seed", "patience"):
        if f"training.{key}" in settings.origins:
            put(key, getattr(training, key))
    for key, value in options.overrides.items():
        put(key, value)
    for key in ("epochs", "batch_size", "seed"):
        if getattr(options, key) is not None:
            put(key, getattr(options, key))
    loop = LoopConfig(**chosen["loop"])
    loop.validate()
    return Plan(loop, chosen["model"], chosen["task"])


def _parse(key: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`: int, float, str, bool, or a tuple of integers or words written a,b,c."""
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _boolean(str(value))
        if kind in (int, float):
            return kind(value)
        if kind is str:
            return str(value)
        parts = value.replace("[", "").replace("]", "").split(",") if isinstance(value, str) else value
        inner = int if "int" in str(kind) else str
        return tuple(inner(part) for part in parts if str(part).strip())
    except ValueError:
        wanted = getattr(kind, "__name__", str(kind))
        raise UsageError(
            f"--set {key}={value}: that is not a {wanted}.", "Write --set key=value; lists as 128,64."
        ) from None


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError
