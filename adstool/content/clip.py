"""Which CLIP is meant by the settings, and loading it through open_clip on the device at hand."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.content.vectors import slugify
from adstool.content.vocabulary import load_tokenizer
from adstool.device import pick_device
from adstool.documents import user_path
from adstool.errors import AdstoolError
from adstool.progress import log
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    import torch
    from PIL import Image

SMALL = "adstool-small"
CONFIG = "open_clip_config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ClipSource:
    """A CLIP to load, found without importing torch.

    Either `folder` is set (a model folder: open_clip_config.json, model.safetensors, merges.txt.gz) or
    `name` is an open_clip name and `pretrained` its weights, a tag or a file.
    """

    name: str
    pretrained: str
    folder: Path | None
    identity: str  # changes when the weights do
    slug: str  # names its vector tables


def resolve_source(ws: Workspace, settings: Settings) -> ClipSource:
    """The CLIP that settings.content means.

    `adstool-small` is the workspace's own CLIP in use (models/clip/current, made by `train clip`) and, where
    none was trained, the one that ships with adstool; `adstool-small` with pretrained = "shipped" is always
    the latter, `clip@r3` a run of this workspace, `local-dir:PATH` a model folder. Any other name is
    open_clip's and needs `pretrained`, a tag or a checkpoint file. Raises AdstoolError when nothing is there.
    """
    name, pretrained = settings.content.model, settings.content.pretrained
    if name == SMALL and pretrained in ("", "shipped"):
        run = None if pretrained else ws.current_run("clip")
        return _folder_source(f"clip@{run.name}", run) if run else _folder_source(SMALL, shipped_folder())
    if name.startswith("clip@"):
        run_id = name.removeprefix("clip@")
        run = ws.current_run("clip") if run_id == "current" else ws.models / "clip" / run_id
        if run is None or not run.is_dir():
            known = ", ".join(f"clip@{found.name}" for found in ws.runs("clip")) or "none yet"
            raise AdstoolError(f"This workspace has no CLIP '{name}'.", f"There are: {known}.")
        return _folder_source(f"clip@{run.name}", run)
    if name.startswith("local-dir:"):
        return _folder_source(name, user_path(name.removeprefix("local-dir:")).resolve())
    return _open_clip_source(name if name != SMALL else "", pretrained)


def shipped_folder() -> Path:
    """The model folder of the small CLIP that ships with adstool."""
    return Path(str(files("adstool.sample_data").joinpath("clip")))


def _folder_source(name: str, folder: Path) -> ClipSource:
    for needed in (CONFIG, WEIGHTS):
        if not (folder / needed).is_file():
            raise AdstoolError(
                f"{folder} holds no {needed}, so it is no CLIP model folder.",
                "Train one with: adstool train clip; or name a model with --model NAME --pretrained FILE.",
            )
    identity = file_hash(folder / WEIGHTS)
    return ClipSource(name, "", folder, identity, f"{slugify(name.split(':')[0])}-{identity[:8]}")


def _open_clip_source(name: str, pretrained: str) -> ClipSource:
    if not name:
        raise AdstoolError(
            f"{SMALL} takes no checkpoint '{pretrained}'.",
            "Name the checkpoint's model: --model ViT-B-32 --pretrained FILE.",
        )
    if not pretrained:
        raise AdstoolError(
            f"The model {name} needs weights.", "Add --pretrained with a checkpoint file or an open_clip tag."
        )
    path = user_path(pretrained)
    if path.is_file():
        identity, label = file_hash(path), path.stem
        pretrained = str(path.resolve())
    elif os.sep in pretrained or path.suffix in (".pt", ".bin", ".safetensors", ".pth"):
        raise AdstoolError(f"The checkpoint {path} does not exist.", "Mend --pretrained.")
    else:
        identity, label = hashlib.blake2b(f"{name}|{pretrained}".encode()).hexdigest(), pretrained
    return ClipSource(name, pretrained, None, identity, f"{slugify(f'{name}-{label}')}-{identity[:8]}")


def file_hash(path: Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class ClipModel:
    """A loaded CLIP: pictures and texts to unit vectors."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any) -> None:
        import torch

        self._torch = torch
        self.device = pick_device()
        self.model = model.eval().requires_grad_(False).to(self.device.torch)
        # open_clip shapes a picture, then does to_tensor and Normalize in float. Those two are done here a
        # batch at a time: they take half of the time that a picture costs outside the model.
        *self._shape, _, normalise = preprocess.transforms
        self.mean, self.deviation = tuple(normalise.mean), tuple(normalise.std)
        self._mean = torch.tensor(normalise.mean).to(self.device.torch)
        self._std = torch.tensor(normalise.std).to(self.device.torch)
        self.tokenizer = tokenizer
        self.precision = "fp32"
        self.dtype = torch.float32
        tokens = self.tokenizer([""]).to(self.device.torch)
        with torch.inference_mode():
            self.dim = int(self.model.encode_text(tokens).shape[-1])

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the pictures it takes."""
        size = self.model.visual.image_size
        return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @property
    def preparation(self) -> str:
        """How pictures are shaped; equal words, equal pixels."""
        config = self.model.visual.preprocess_cfg
        shaping = {
            name: config.get(name) for name in ("size", "mode", "interpolation", "resize_mode", "fill_color")
        }
        return json.dumps(shaping | {"pixels": self.pixels}, sort_keys=True, default=str)

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """A picture shaped as the model takes it: uint8 [height, width, 3]."""
        for step in self._shape:
            picture = step(picture)
        return self._torch.from_numpy(np.array(picture, np.uint8))

    def encode_images(self, pictures: Sequence[torch.Tensor]) -> np.ndarray:
        """Unit vectors float32 [n, dim] of prepared pictures, uint8 [height, width, 3] each."""
        torch = self._torch
        with torch.inference_mode():
            batch = torch.stack(list(pictures)).to(self.device.torch).float()
            batch = batch.div_(255).sub_(self._mean).div_(self._std).to(self.dtype).permute(0, 3, 1, 2)
            return self._unit(self.model.encode_image(batch))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 [n, dim] of texts."""
        torch = self._torch
        with torch.inference_mode():
            return self._unit(self.model.encode_text(self.tokenizer(list(texts)).to(self.device.torch)))

    def _unit(self, features: torch.Tensor) -> np.ndarray:
        vectors: np.ndarray = self._torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        return vectors

    def in_bf16(self) -> ClipModel:
        """A copy of this model that computes in bfloat16."""
        import copy

        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).to(self._torch.bfloat16)
        _sequence_first(other.model)
        other.precision, other.dtype = "bf16", self._torch.bfloat16
        return other


def _sequence_first(model: Any) -> None:
    """Let open_clip's text transformer keep its sequences first, which changes no result.

    With batches first, torch's attention turns them itself and multiplies what is not contiguous: in bf16
    on a CPU that copies the weights for every text. ViT-B-32, one thread, 16 texts: 2.16 s, so .32 s; in fp32
    1.07 s.
    """
    from torch.nn import MultiheadAttention

    stack: Any = getattr(getattr(model, "text", model), "transformer", None)
    attentions: list[Any] = [getattr(block, "attn", None) for block in getattr(stack, "resblocks", ())]
    if getattr(stack, "batch_first", False) and all(isinstance(a, MultiheadAttention) for a in attentions):
        for part in (stack, *attentions):
            part.batch_first = False


def load_clip(source: ClipSource) -> ClipModel:
    """The model in fp32, on the fastest device present. Raises AdstoolError when it cannot be had."""
    return load_folder(source.folder) if source.folder is not None else _load_named(source)


def load_folder(folder: Path) -> ClipModel:
    """The CLIP of a model folder, with random weights where it holds only the config. Raises AdstoolError."""
    import open_clip

    from adstool.content.weights import check_weights  # needs torch

    config = read_json(folder / CONFIG)
    name = f"local-dir:{folder}"
    try:
        _refuse_downloads(config["model_cfg"])
        context = int(config["model_cfg"]["text_cfg"].get("context_length", 77))
        with _QuietOpenClip():
            if (folder / WEIGHTS).is_file():

                def build() -> torch.nn.Module:
                    made: torch.nn.Module = open_clip.create_model(name, load_weights=False, device="meta")
                    return made

                check_weights(folder / WEIGHTS, config, build)
            model, _, preprocess = open_clip.create_model_and_transforms(name)
            return ClipModel(model, preprocess, load_tokenizer(folder, context))
    except Exception as error:  # a config that is not ours fails anywhere in open_clip
        raise AdstoolError(
            f"The CLIP in {folder} cannot be loaded: {_reason(error)}", "Train it again: adstool train clip"
        ) from None


def _refuse_downloads(config: dict[str, Any]) -> None:
    """Raises ValueError for a config by which open_clip would fetch a part of the model from elsewhere."""
    for tower in (config, config.get("text_cfg") or {}, config.get("vision_cfg") or {}):
        named = [key for key in ("hf_model_name", "hf_tokenizer_name") if tower.get(key)]
        named += ["timm_model_pretrained"] if tower.get("timm_model_pretrained") else []
        named += ["timm_model_name"] if re.search("[:/]", str(tower.get("timm_model_name") or "")) else []
        if named:
            raise ValueError(f"its {named[0]} asks for something that is not in the folder")


def _load_named(source: ClipSource) -> ClipModel:
    import open_clip

    known = open_clip.list_models()
    if ":" not in source.name and source.name.replace("/", "-") not in known:
        near = difflib.get_close_matches(source.name, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See open_clip.list_models()."
        raise AdstoolError(f"open_clip knows no model '{source.name}'.", hint)
    tags = open_clip.list_pretrained_tags_by_model(source.name)
    is_file = Path(source.pretrained).is_file()
    if not is_file and source.pretrained not in tags:
        raise AdstoolError(
            f"'{source.pretrained}' is neither a file nor a tag of {source.name}.",
            f"Tags: {', '.join(tags)}." if tags else "Give a checkpoint file.",
        )
    if not is_file:
        log.info(
            "fetching the weights '%s' of %s unless they are on this machine", source.pretrained, source.name
        )
    try:
        with _QuietOpenClip():
            model, _, preprocess = open_clip.create_model_and_transforms(
                source.name, pretrained=source.pretrained
            )
        return ClipModel(model, preprocess, open_clip.get_tokenizer(source.name))
    except Exception as error:  # downloads and checkpoints fail in many ways; all need the same answer
        what = "cannot be loaded" if is_file else "cannot be fetched"
        reason = _reason(error)
        raise AdstoolError(
            f"The weights '{source.pretrained}' of {source.name} {what}: {reason}",
            "Check that the checkpoint belongs to the model."
            if is_file
            else "Fetch the file where there is a network and give it: --pretrained FILE.",
        ) from None


def _reason(error: Exception) -> str:
    """What an error says, in one line of some length; a key error says but the key."""
    said = (str(error).strip().splitlines() or [""])[0].split("Last error: ")[-1][:300]
    return said if said and not isinstance(error, LookupError) else f"{type(error).__name__} {said}".strip()


class _QuietOpenClip:
    """open_clip tells its steps through the root logger; ours are told by our own."""

    def __enter__(self) -> None:
        self._level = logging.root.level
        logging.root.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._level)
