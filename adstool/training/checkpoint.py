"""Checkpoints of the training loop: one safetensors file, replaced as a whole, to go on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from adstool.progress import log
from adstool.training.batches import WINDOW
from adstool.workspace import whole_file

NAME = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far training has come, apart from the tensors."""

    epoch: int = 0  # epochs finished
    step: int = 0  # batches finished in the epoch under way
    loss_sum: float = 0.0  # of those batches, weighted by rows
    loss_rows: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    waited: int = 0  # epochs since the best one
    drops: int = 0  # how often a plateau has lowered the learning rate
    seconds: float = 0.0  # spent on training steps
    trained_rows: int = 0
    finished: bool = False
    curve: list[dict[str, float]] = field(default_factory=list)
    window: int = WINDOW  # of epoch_batches: the order holds wherever training goes on


@dataclass
class State:
    """Everything a checkpoint holds."""

    progress: Progress
    tensors: dict[str, Tensor]  # model/..., best/..., average/..., optimizer<i>/<parameter>/<slot>, rng


def save_checkpoint(run_dir: Path, fingerprint: str, state: State) -> None:
    """Replace the checkpoint of the run as a whole."""
    # The header of safetensors knows only text; infinity (no best loss yet) is written as Python does.
    header = {"fingerprint": fingerprint, "progress": json.dumps(asdict(state.progress))}
    with whole_file(run_dir / NAME) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.tensors.items()}, temporary, header)


def load_checkpoint(run_dir: Path, fingerprint: str) -> State | None:
    """The checkpoint of an unfinished run, or None when there is none that was made for `fingerprint`."""
    path = run_dir / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            if header.get("fingerprint") != fingerprint:
                return None
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a mapping
        return State(Progress(**json.loads(header["progress"])), tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        log.warning(f"{path} cannot be read ({error}); training starts over.")
        return None


def clear_run(run_dir: Path) -> None:
    """Empty the folder of an unfinished run that cannot be gone on with."""
    import shutil

    for path in run_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def pack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix`/name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `pack` put under `prefix`."""
    start = f"{prefix}/"
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors named <parameter>/<slot>; step counts become scalars."""
    result: dict[str, Tensor] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            result[f"{index}/{slot}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return result


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer of the same parameters the state that `optimizer_tensors` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition("/")
        # SparseAdam counts its steps in a plain int, Adam in a tensor.
        plain = slot == "step" and isinstance(optimizer, torch.optim.SparseAdam)
        state.setdefault(int(index), {})[slot] = int(tensor.item()) if plain else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
