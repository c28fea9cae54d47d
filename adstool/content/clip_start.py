"""The CLIP that a training starts from: a new one for the catalogue, or one that exists."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adstool.config import Settings
from adstool.content.clip import (
    CONFIG,
    WEIGHTS,
    ClipModel,
    ClipSource,
    load_clip,
    load_folder,
    resolve_source,
)
from adstool.content.clip_data import catalogue_pairs
from adstool.content.clip_options import ClipTrainOptions
from adstool.content.presets import small_config
from adstool.content.vocabulary import MERGES, catalogue_merges, write_merges
from adstool.errors import AdstoolError
from adstool.workspace import Workspace, write_json

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Start:
    """The model to train, where it comes from (None: it is new) and notes for run.json."""

    clip: ClipModel
    source: ClipSource | None
    notes: dict[str, Any]

    @property
    def identity(self) -> str:
        """Changes when what is started from does."""
        return self.source.identity if self.source else ""


def start_model(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    run_dir: Path,
    options: ClipTrainOptions,
) -> Start:
    """The model to train; its config and vocabulary are written into `run_dir`.

    From scratch the vocabulary is made for the catalogue; a CLIP that is started from keeps its own. Raises
    AdstoolError for one that cannot be had, or whose folder could not be loaded again.
    """
    (run_dir / WEIGHTS).unlink(missing_ok=True)
    if options.init:
        content = dataclasses.replace(settings.content, model=options.init, pretrained=options.pretrained)
        source = resolve_source(ws, dataclasses.replace(settings, content=content))
        config = _named_config(source) if source.folder is None else {}
        clip = load_clip(source)
        if source.folder is None:
            shaping = {"preprocess_cfg": dict(clip.model.visual.preprocess_cfg)}
            write_json(run_dir / CONFIG, {"model_cfg": config, **shaping})
        else:
            for name in (CONFIG, MERGES):
                if (source.folder / name).is_file():
                    shutil.copyfile(source.folder / name, run_dir / name)
        return Start(clip, source, {"init": source.name, "init_identity": source.identity})
    pairs = catalogue_pairs(con)
    merges = catalogue_merges([f"{pair.text} {pair.category}" for pair in pairs])
    write_merges(run_dir / MERGES, merges)
    write_json(run_dir / CONFIG, small_config(options.preset, len(merges) + 514, options.dim))
    torch.manual_seed(options.seed)
    return Start(load_folder(run_dir), None, {"init": "", "merges": len(merges)})


def _named_config(source: ClipSource) -> dict[str, Any]:
    """The config of a model that open_clip knows by name, empty if it knows none: loading says so better."""
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(source.name.replace("/", "-")) or {}
    text = config.get("text_cfg", {})
    if text.get("hf_tokenizer_name") or text.get("hf_model_name") or "siglip" in source.name.lower():
        raise AdstoolError(
            f"{source.name} cannot be tuned: its text vocabulary is not a file that a run could keep.",
            "Start from a CLIP with CLIP's own vocabulary, such as ViT-B-32 or RN50.",
        )
    if "timm_model_name" in config.get("vision_cfg", {}):
        config["vision_cfg"]["timm_model_pretrained"] = False  # the run's own weights are loaded
    return config
