"""In which precision a CLIP embeds: bfloat16 where hardware computes it and the vectors stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from adstool.content.clip import ClipModel, ClipSource
from adstool.device import cpu_has_bf16
from adstool.errors import UsageError, choose
from adstool.progress import log
from adstool.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16")
MIN_COSINE = 0.999  # of every sampled vector to its fp32 self
SAMPLE = 32


def check_precision(wanted: str) -> None:
    """Raise UsageError for a precision that does not exist."""
    if wanted not in PRECISIONS:
        raise UsageError(f"There is no precision '{wanted}'.", choose(wanted, PRECISIONS))


def in_precision(
    ws: Workspace,
    source: ClipSource,
    clip: ClipModel,
    wanted: str,
    pictures: Sequence[torch.Tensor],
    texts: Sequence[str],
) -> ClipModel:
    """`clip` in the precision wanted; the log says why.

    auto takes bf16 when the device computes it in hardware and every vector of the sample (prepared
    `pictures`, `texts`) has a cosine of at least MIN_COSINE to its fp32 self. What auto found for a model is
    kept beside its tables, so that all vectors of one table are made alike, also after a kill.
    """
    check_precision(wanted)
    if wanted != "auto":
        log.info("precision %s, as asked for", wanted)
        return clip.in_bf16() if wanted == "bf16" else clip
    path = ws.vectors / f"{source.slug}.json"
    if path.is_file():
        kept = read_json(path)
        log.info("precision %s, as for the vectors already made: %s", kept["precision"], kept["reason"])
        return clip.in_bf16() if kept["precision"] == "bf16" else clip
    chosen, reason = _try_bf16(clip, pictures, texts)
    log.info("precision %s: %s", chosen.precision, reason)
    write_json(path, {"precision": chosen.precision, "reason": reason})
    return chosen


def _try_bf16(
    clip: ClipModel, pictures: Sequence[torch.Tensor], texts: Sequence[str]
) -> tuple[ClipModel, str]:
    device = clip.device
    if device.name == "cpu" and not cpu_has_bf16():
        return clip, "this CPU has no bfloat16 instructions"
    if device.name == "mps":
        return clip, "bfloat16 is not quicker on Apple's GPU"
    if not pictures and not texts:
        return clip, "there was nothing to compare bf16 with fp32 on"
    other = clip.in_bf16()
    cosines = []
    for encode, items in (("encode_images", pictures), ("encode_texts", texts)):
        if items:
            exact, rough = getattr(clip, encode)(items), getattr(other, encode)(items)
            cosines.append((exact * rough).sum(axis=1))
    worst = float(np.concatenate(cosines).min())
    seen = f"cosine to fp32 at least {worst:.5f} on {len(pictures)} pictures and {len(texts)} texts"
    if worst < MIN_COSINE:
        return clip, f"bf16 changes the vectors too much ({seen}, {MIN_COSINE} needed)"
    return other, f"{device.name} computes bfloat16 in hardware, {seen}"
