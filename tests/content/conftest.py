"""A small catalogue with pictures, and a small CLIP with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from adstool.config import Settings, load_settings
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

WORDS = ("red", "blue", "green", "black", "dress", "shoe", "lamp", "chair")


@dataclass
class Shop:
    """A workspace whose catalogue the tests write directly."""

    ws: Workspace
    settings: Settings
    images: Path
    con: duckdb.DuckDBPyConnection

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """The warehouse is closed for the length of the block, in which something else opens it."""
        self.con.close()
        try:
            yield
        finally:
            self.con = duckdb.connect(str(self.ws.warehouse))

    def picture(self, name: str, seed: int, size: int = 40) -> Path:
        """A PNG of noise over a colour, different for each seed."""
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 90, (size, size, 3)) + rng.integers(0, 160, 3)
        path = self.images / name
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path.resolve()

    def ad(self, item_id: str, title: str | None, image: Path | str | None, category: str = "") -> None:
        """Add an ad to the catalogue."""
        self.con.execute(
            "insert into ads (ad_id, title, image, category) values (?, ?, ?, ?)",
            [item_id, title, None if image is None else str(image), category or None],
        )

    def pin(self, item_id: str, title: str | None, image: Path | str | None, category: str = "") -> None:
        """Add a pin to the catalogue."""
        self.con.execute(
            "insert into pins (pin_id, title, image, category) values (?, ?, ?, ?)",
            [item_id, title, None if image is None else str(image), category or None],
        )

    def log(self, events: Sequence[tuple[str, str, str, datetime, str]]) -> None:
        """Add events: (user, item type, item, time, action)."""
        columns = list(zip(*events, strict=True))
        names = ("user_id", "item_type", "item_id", "ts", "action")
        table = pa.table(
            {"event_id": [f"e{n}" for n in range(len(events))]} | dict(zip(names, columns, strict=True))
        )
        self.con.register("given_events", table)
        self.con.execute("insert into events by name select * from given_events")
        self.con.unregister("given_events")

    def fill(self, count: int, kind: str = "ad") -> None:
        """`count` items with pictures of their own; every fourth has none."""
        for number in range(count):
            title = f"{WORDS[number % 4]} {WORDS[4 + number // 4 % 4]} number {number}"
            image = self.picture(f"{kind}{number}.png", number) if number % 4 else None
            getattr(self, kind)(f"{kind}{number:03d}", title, image, WORDS[4 + number // 4 % 4])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """These models are too small to gain from threads, which only wait for each other when it is busy."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def shop(tmp_path: Path, tiny_clip: Path) -> Iterator[Shop]:
    """An empty catalogue in a workspace that embeds with the small random CLIP in fp32."""
    root = (tmp_path / "shop").resolve()
    (root / "images").mkdir(parents=True)
    (root / "adstool.toml").write_text(
        f'[content]\nmodel = "local-dir:{tiny_clip}"\nprecision = "fp32"\nbatch_size = 8\n', encoding="utf-8"
    )
    ws = Workspace(root)
    settings = load_settings(ws.config, environment={})
    with open_warehouse(ws, settings) as con:
        made = Shop(ws, settings, root / "images", con)
        yield made
        made.con.close()


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: 32-pixel pictures, vectors of 16 numbers, its own vocabulary."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from adstool.content.vocabulary import MERGES, catalogue_merges, write_merges

    folder = tmp_path_factory.mktemp("tiny") / "clip"
    folder.mkdir()
    merges = catalogue_merges([" ".join(WORDS)], common=50)
    write_merges(folder / MERGES, merges)
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"context_length": 16, "vocab_size": len(merges) + 514, "width": 32, "heads": 2, "layers": 1}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    config = {"model_cfg": model, "preprocess_cfg": {"size": 32, "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(5)
    weights = open_clip.create_model(f"local-dir:{folder}").state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    return folder.resolve()
