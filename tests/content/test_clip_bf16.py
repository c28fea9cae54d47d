"""bf16 texts: as quick as they can be, and what open_clip itself gives."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from adstool.content.clip import load_folder


def test_texts_in_bf16_are_those_of_open_clip_with_sequences_kept_first(tiny_clip: Path) -> None:
    clip = load_folder(tiny_clip)
    texts = ["red dress", "blue", "a black lamp and a green chair"]
    plain = copy.deepcopy(clip.model).to(torch.bfloat16)
    with torch.inference_mode():
        expected = plain.encode_text(clip.tokenizer(texts), normalize=True).float().numpy()
    exact = clip.encode_texts(texts)
    other = clip.in_bf16()
    found = other.encode_texts(texts)
    assert (found * expected).sum(axis=1).min() > 0.9999
    assert (found * exact).sum(axis=1).min() > 0.999
    attentions = [block.attn for block in other.model.transformer.resblocks]
    assert not any(attention.batch_first for attention in attentions)
    assert not other.model.transformer.batch_first
    assert clip.model.transformer.batch_first  # the fp32 model stays as it was
    np.testing.assert_array_equal(clip.encode_texts(texts), exact)
    pictures = [torch.full((32, 32, 3), value, dtype=torch.uint8) for value in (0, 200)]
    assert (other.encode_images(pictures) * clip.encode_images(pictures)).sum(axis=1).min() > 0.999
