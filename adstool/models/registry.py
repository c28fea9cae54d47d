"""The models by name, and how a run's folder becomes a model again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from adstool.content.weights import check_weights
from adstool.errors import AdstoolError
from adstool.models.cold import Cold, ColdConfig
from adstool.models.conversion import ConversionConfig, ConversionModel
from adstool.models.engagement import EngagementConfig, EngagementModel
from adstool.models.inputs import config_to_json, spec_from_json
from adstool.models.inttower import IntTower, IntTowerConfig
from adstool.models.two_tower import TwoTower, TwoTowerConfig
from adstool.models.user_sequence import UserSequence, UserSequenceConfig
from adstool.workspace import read_json, whole_file, write_json

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class Kind:
    """A model class with its config class; a new architecture is a new file and a row in KINDS."""

    config: Callable[..., Any]
    model: Callable[[Any], nn.Module]


KINDS: dict[str, Kind] = {
    "two_tower": Kind(TwoTowerConfig, TwoTower),
    "inttower": Kind(IntTowerConfig, IntTower),
    "cold": Kind(ColdConfig, Cold),
    "engagement": Kind(EngagementConfig, EngagementModel),
    "conversion": Kind(ConversionConfig, ConversionModel),
    "user_sequence": Kind(UserSequenceConfig, UserSequence),
}


def build_model(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """A model of `kind` from the JSON of its config, with fresh weights."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    if "inputs" in values:
        values["inputs"] = spec_from_json(values["inputs"])
    return KINDS[kind].model(KINDS[kind].config(**values))


def save_model(run_dir: Path, kind: str, model: nn.Module, **facts: Any) -> None:
    """Write config.json and model.safetensors; `facts` are kept in config.json beside the config."""
    config = config_to_json(model.config)
    write_json(run_dir / CONFIG, {"kind": kind, "config": config, **facts})
    with whole_file(run_dir / WEIGHTS) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, temporary)


def load_model(run_dir: Path) -> nn.Module:
    """The trained model of a run, on the CPU, in evaluation mode.

    Raises AdstoolError when the folder's config or weights are missing, damaged or do not fit each other.
    """
    document = read_json(run_dir / CONFIG)
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise AdstoolError(
            f"{run_dir / CONFIG} names the model kind {kind!r}; known: {', '.join(KINDS)}.",
            "Train it again with this version.",
        )
    try:
        config = document["config"]
        check_weights(run_dir / WEIGHTS, config, lambda: build_model(kind, config))
        model = build_model(kind, config)
        model.load_state_dict(load_file(run_dir / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise AdstoolError(f"{run_dir / WEIGHTS} cannot be loaded: {error}", "Train it again.") from None
    except Exception as error:  # a config that is not ours fails anywhere in the model's constructor
        reason = f"{type(error).__name__}: {error}"
        raise AdstoolError(f"The model in {run_dir} cannot be built: {reason}", "Train it again.") from None
    return model.eval()


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())
