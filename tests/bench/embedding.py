"""`embed` beside open_clip called directly on the same checkpoint: items a second, and the vectors.

    python tests/bench/embedding.py [/work/shared/data/fashion] [--model ViT-B-32] [--items 256] [--rounds 3]

Run by hand on an idle machine. The floor is the bare forward: batches in memory, prepared by open_clip
beforehand, through encode_image and encode_text. `embed` also decodes, shapes, writes the vector table and
indexes it. Weights are random, which changes neither time nor what equal vectors prove.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import normalize

from adstool.config import ContentSettings, Settings
from adstool.content.clip_data import item_text
from adstool.content.embedding import embed_items
from adstool.content.vectors import load_vectors
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

BATCH = 64
Array = NDArray[Any]
Item = tuple[str, str, Path]  # id, title, picture


def read(folder: Path, items: int) -> list[Item]:
    """Ids, titles and pictures of the first items."""
    with open(folder / "items.csv", newline="", encoding="utf-8") as handle:
        rows = [row for _, row in zip(range(items), csv.DictReader(handle), strict=False)]
    key = next(name for name in rows[0] if name.endswith("id"))
    title = next(name for name in rows[0] if "title" in name.lower() or "name" in name.lower())
    return [(row[key], f"{row[title]} {row[key]}", folder / "images" / f"{row[key]}.jpg") for row in rows]


class Direct:
    """open_clip, its inputs in memory."""

    def __init__(self, name: str, checkpoint: Path, items: list[Item], dtype: torch.dtype) -> None:
        model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=str(checkpoint))
        self.model = model.eval().to(dtype)
        pictures = [prepare(Image.open(path).convert("RGB")).to(dtype) for _, _, path in items]
        tokens = open_clip.get_tokenizer(name)([item_text(title, None) for _, title, _ in items])
        self.pictures = torch.stack(pictures).split(BATCH)
        self.tokens = tokens.split(BATCH)

    @torch.inference_mode()
    def vectors(self) -> tuple[Array, Array]:
        """Unit vectors of pictures and of titles."""
        images = [normalize(self.model.encode_image(part).float(), dim=-1) for part in self.pictures]
        texts = [normalize(self.model.encode_text(part).float(), dim=-1) for part in self.tokens]
        return torch.cat(images).numpy(), torch.cat(texts).numpy()


def embedded(folder: Path, items: list[Item], settings: Settings) -> tuple[float, Array, Array]:
    """Seconds of `embed` in a new workspace, and its vectors in the order of the items."""
    folder.mkdir()
    ws = Workspace(folder)
    with open_warehouse(ws, settings) as con:
        rows = [(item, title, str(path)) for item, title, path in items]
        con.executemany("insert into pins (pin_id, title, image) values (?, ?, ?)", rows)
        result = embed_items(ws, settings, con)
    sides = []
    for side in ("image", "text"):
        ids, vectors = load_vectors(ws, "pin", column=side)
        place = {item: row for row, item in enumerate(ids)}
        sides.append(vectors[[place[item] for item, _, _ in items]])
    return result.seconds, sides[0], sides[1]


def main() -> None:
    """Print a line a precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    items = read(
        given.folder or Path(os.environ.get("SHARED_DATA", "/work/shared/data")) / "fashion", given.items
    )
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "weights.pt"
        torch.manual_seed(0)
        torch.save(open_clip.create_model(given.model).state_dict(), checkpoint)
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            content = ContentSettings(model=given.model, pretrained=str(checkpoint), precision=precision)
            settings = dataclasses.replace(Settings(), content=dataclasses.replace(content, batch_size=BATCH))
            direct = Direct(given.model, checkpoint, items, dtype)
            direct.vectors()  # kernels are chosen
            ours: list[float] = []
            bare: list[float] = []
            for number in range(given.rounds):
                started = time.perf_counter()
                images, texts = direct.vectors()
                bare.append(time.perf_counter() - started)
                seconds, *made = embedded(Path(scratch) / f"{precision}{number}", items, settings)
                ours.append(seconds)
            apart = max(np.abs(made[0] - images).max(), np.abs(made[1] - texts).max())
            ratios = [one / other for one, other in zip(bare, ours, strict=True)]
            print(
                f"{given.model} {precision}: embed {given.items / median(ours):.1f} items/s, bare forward "
                f"{given.items / median(bare):.1f}, ratio {median(bare) / median(ours):.3f} (rounds "
                f"{min(ratios):.3f}-{max(ratios):.3f}), largest difference of a vector {apart:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
