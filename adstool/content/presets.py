"""The small CLIPs that `train clip` can train from scratch, as open_clip configs."""

from __future__ import annotations

from typing import Any

from adstool.errors import AdstoolError, choose

PIXELS = 64  # side of the pictures the small CLIPs see
CONTEXT = 32  # tokens of a text

# Towers by preset. Figures of both on the same catalogue and time are in sample_data/clip/README.md.
_VISION: dict[str, dict[str, Any]] = {
    "conv": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": PIXELS,
    },
    "vit": {"layers": 4, "width": 192, "head_width": 48, "patch_size": 8, "image_size": PIXELS},
}


def small_config(preset: str, vocab_size: int, dim: int = 128) -> dict[str, Any]:
    """An open_clip_config.json: the model, and how its pictures are prepared.

    `dim` is the length of its vectors. Pictures are squashed to a square, not cropped, so that nothing of a
    product is cut off. Raises AdstoolError for a preset that does not exist.
    """
    if preset not in _VISION:
        raise AdstoolError(f"There is no CLIP preset '{preset}'.", choose(preset, _VISION))
    text = {"context_length": CONTEXT, "vocab_size": vocab_size, "width": 192, "heads": 4, "layers": 2}
    model = {"embed_dim": dim, "vision_cfg": _VISION[preset], "text_cfg": text}
    return {
        "model_cfg": model,
        "preprocess_cfg": {"size": PIXELS, "interpolation": "bicubic", "resize_mode": "squash"},
    }
