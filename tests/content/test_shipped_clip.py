"""The weights that ship with adstool, on the committed world, whose items they were not trained on."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path

import duckdb
import numpy as np
import open_clip
import pytest
from sklearn.linear_model import LogisticRegression

from adstool.content.clip import ClipModel, load_folder, shipped_folder
from adstool.content.clip_data import Pair, item_text
from adstool.content.clip_metrics import category_names, clip_metrics
from adstool.content.images import load_image

WORLD = Path(str(files("adstool.sample_data").joinpath("world")))
COUNT = 600


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_folder(shipped_folder())


@pytest.fixture(scope="module")
def items() -> list[dict[str, str]]:
    with open(WORLD / "ads.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))[:COUNT]


@pytest.fixture(scope="module")
def image_vectors(clip: ClipModel, items: list[dict[str, str]]) -> np.ndarray:
    pictures = [clip.prepare(load_image(item["image"], WORLD)) for item in items]
    return np.concatenate([clip.encode_images(pictures[start : start + 64]) for start in range(0, COUNT, 64)])


def test_weights_are_small_half_precision_and_open_clip_loads_them() -> None:
    folder = shipped_folder()
    assert (folder / "model.safetensors").stat().st_size <= 16 * 2**20
    assert json.loads((folder / "run.json").read_text())["options"]["seed"] is not None
    model = open_clip.create_model(f"local-dir:{folder}")
    assert sum(weight.numel() for weight in model.parameters()) < 9_000_000


def test_pictures_are_found_by_title_and_named_by_category(
    clip: ClipModel, items: list[dict[str, str]], image_vectors: np.ndarray
) -> None:
    pairs = [Pair(i["image"], i["title"], i["description"], i["category"]) for i in items]
    texts = clip.encode_texts([item_text(item["title"], item["description"]) for item in items])
    prompts = clip.encode_texts(category_names(pairs))
    figures = clip_metrics(image_vectors, texts, prompts, pairs)
    assert figures["zero_shot_category"] > 0.9 > 10 * figures["chance_category"]
    assert figures["recall_at_10"] > 0.6 > 20 * figures["chance_recall_at_10"]
    assert figures["category_precision_at_10"] > 0.6


def test_style_which_no_text_tells_can_be_read_from_the_picture_vector(
    items: list[dict[str, str]], image_vectors: np.ndarray
) -> None:
    style = _styles([item["ad_id"] for item in items])
    half = COUNT // 2
    probe = LogisticRegression(C=30, max_iter=1000).fit(image_vectors[:half] * 5, style[:half])
    chance = np.bincount(style[half:]).max() / half
    assert probe.score(image_vectors[half:] * 5, style[half:]) > 0.8 > 4 * chance


def _styles(ids: list[str]) -> np.ndarray:
    """The hidden style of these items, as a number each."""
    rows = duckdb.execute(
        "select item_id, style from read_parquet(?)", [str(WORLD / "truth" / "items.parquet")]
    )
    style = dict(rows.fetchall())
    return np.unique([style[item_id] for item_id in ids], return_inverse=True)[1]
