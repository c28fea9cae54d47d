"""Weights and checkpoints of CLIP training; nothing is pickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from adstool import __version__
from adstool.content.clip import WEIGHTS
from adstool.workspace import whole_file

CHECKPOINT = (
    "checkpoint/state.safetensors"  # in a folder of its own: open_clip loads what lies beside the config
)


def save_weights(folder: Path, model: torch.nn.Module) -> None:
    """The finished weights in half precision, under open_clip's names, written whole or not at all.

    The model's own weights become what was written, so that figures of it are those of the file.
    """
    state = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    _write(folder / WEIGHTS, state, {})
    model.load_state_dict(state)


def save(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: str,
    curve: list[dict[str, float]],
) -> None:
    """Keep weights and optimizer state after an epoch; `plan` says what is trained on what."""
    state = model.state_dict()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    whole = len(trained) == sum(1 for _ in model.parameters())  # frozen towers need not be kept again
    tensors = {f"model.{name}": value for name, value in state.items() if whole or name in trained}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    kept = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    _write(folder / CHECKPOINT, kept, {"plan": plan, "curve": json.dumps(curve)})


def load(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, plan: str
) -> list[dict[str, float]]:
    """Restore the checkpoint of `plan` and return its curve; an empty curve when there is none of it."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return []
    with safe_open(path, framework="pt") as stored:
        notes = stored.metadata()
        if notes["plan"] != plan:
            return []
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    model.load_state_dict(weights, strict=False)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    curve: list[dict[str, float]] = json.loads(notes["curve"])
    return curve


def forget(folder: Path) -> None:
    """Delete the checkpoint of a finished training."""
    shutil.rmtree((folder / CHECKPOINT).parent, ignore_errors=True)


def versions() -> dict[str, str]:
    """Versions of what the weights depend on."""
    import open_clip

    return {"adstool": __version__, "torch": torch.__version__, "open_clip": open_clip.__version__}


def _write(path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(to_bytes(dict(tensors), metadata={"format": "pt", **notes}))
