"""Options, starting weights and checkpoints of CLIP training; nothing is pickled."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from adstool import __version__
from adstool.config import Settings
from adstool.content.clip import CONFIG, WEIGHTS, ClipModel, load_folder, resolve_source
from adstool.content.clip_data import catalogue_pairs
from adstool.content.presets import small_config
from adstool.content.vocabulary import MERGES, catalogue_merges, write_merges
from adstool.errors import AdstoolError, UsageError
from adstool.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    import duckdb

PICTURES_SHOWN = 60_000  # in a training of default length
CHECKPOINT = (
    "checkpoint/state.safetensors"  # in a folder of its own: open_clip loads what lies beside the config
)


@dataclass(frozen=True)
class ClipTrainOptions:
    """What can be set for `train clip`; --set key=value changes one."""

    preset: str = "conv"  # conv | vit, the picture tower when training from scratch
    epochs: int = 0  # 0: as many as show about PICTURES_SHOWN pictures
    batch_size: int = 64  # small catalogues gain more from steps than from more negatives a step
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    views: float = 1.0  # weight of telling pictures apart by what no text says, in the second half
    augment: float = 0.2  # how far pictures are zoomed and moved; 0: not at all
    dim: int = 128  # length of the vectors, from scratch
    seed: int = 0
    init: str = ""  # start from this CLIP: adstool-small, clip@r1, local-dir:PATH; empty: from scratch

    @classmethod
    def from_given(cls, overrides: Mapping[str, Any], flags: Mapping[str, Any]) -> ClipTrainOptions:
        """Options from `--set` values, which may be text, and flags, which win. Raises UsageError."""
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for key, value in {**overrides, **flags}.items():
            if key not in hints:
                near = difflib.get_close_matches(key, hints, n=1, cutoff=0.4)
                hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(hints)}."
                raise UsageError(f"train clip has no option '{key}'.", hint)
            try:
                values[key] = hints[key](value)
            except (TypeError, ValueError):
                raise UsageError(
                    f"--set {key}={value} is not a {hints[key].__name__}.", "Mend the value."
                ) from None
        options = cls(**values)
        if options.epochs < 0 or options.batch_size < 2 or options.dim < 1:
            raise UsageError(
                "epochs cannot be negative, dim must be at least 1, batch_size at least 2.",
                "Mend the option.",
            )
        return options

    def for_catalogue(self, pictures: int) -> ClipTrainOptions:
        """These options with the number of epochs settled for a catalogue of that many pictures."""
        epochs = self.epochs or max(4, round(PICTURES_SHOWN / pictures))
        return dataclasses.replace(self, epochs=epochs)

    def identity(self) -> str:
        """A hash of all options, by which a checkpoint is known to be of the same training."""
        return hashlib.blake2b(json.dumps(dataclasses.asdict(self)).encode(), digest_size=8).hexdigest()


def start_model(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    run_dir: Path,
    options: ClipTrainOptions,
) -> tuple[ClipModel, int, dict[str, Any]]:
    """The model to train, the side of its pictures in pixels, and notes for run.json.

    Writes the config and vocabulary into `run_dir`. From scratch the vocabulary is made for the catalogue; a
    CLIP that is started from keeps its own. Raises AdstoolError for a start that is no model folder.
    """
    if options.init:
        content = dataclasses.replace(settings.content, model=options.init, pretrained="")
        source = resolve_source(ws, dataclasses.replace(settings, content=content))
        if source.folder is None:
            raise AdstoolError(
                f"'{options.init}' is no model folder to start from.",
                "Use adstool-small, clip@r1 or local-dir:PATH.",
            )
        for name in (CONFIG, MERGES, WEIGHTS):
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, run_dir / name)
        return load_folder(run_dir), _pixels(run_dir), {"init": source.name, "init_identity": source.identity}
    pairs = catalogue_pairs(con)
    merges = catalogue_merges([f"{pair.text} {pair.category}" for pair in pairs])
    write_merges(run_dir / MERGES, merges)
    write_json(run_dir / CONFIG, small_config(options.preset, len(merges) + 514, options.dim))
    (run_dir / WEIGHTS).unlink(missing_ok=True)
    torch.manual_seed(options.seed)
    return load_folder(run_dir), _pixels(run_dir), {"init": "", "merges": len(merges)}


def _pixels(folder: Path) -> int:
    size = read_json(folder / CONFIG)["model_cfg"]["vision_cfg"]["image_size"]
    return int(size if isinstance(size, int) else size[0])


def save_weights(folder: Path, model: torch.nn.Module) -> None:
    """The finished weights in half precision, under open_clip's names, written whole or not at all."""
    state = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    _write(folder / WEIGHTS, state, {})


def save(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: str,
    curve: list[dict[str, float]],
) -> None:
    """Keep weights and optimizer state after an epoch; `plan` says what is trained on what."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
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
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
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
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as handle:
        handle.write(to_bytes(dict(tensors), metadata={"format": "pt", **notes}))
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
