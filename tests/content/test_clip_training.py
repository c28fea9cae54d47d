"""train_clip: what it writes, that it learns, and that a cut-off run ends as an undisturbed one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from PIL import Image
from safetensors.torch import load_file

from adstool.content import clip_checkpoint
from adstool.content.clip import load_folder, resolve_source
from adstool.content.clip_data import load_clip_data
from adstool.content.clip_loop import held_out_metrics
from adstool.content.clip_towers import RunningTowers
from adstool.content.clip_training import ClipTrainResult, train_clip
from adstool.content.embedding import embed_items
from adstool.errors import AdstoolError, DataError, UsageError
from adstool.workspace import read_json

Shop = Any
COLOURS = {"red": (200, 30, 30), "green": (30, 170, 40), "blue": (40, 60, 210), "black": (20, 20, 20)}


@pytest.fixture
def coloured(shop: Shop) -> Shop:
    """120 pins: a colour named in the title fills the picture, with noise."""
    rng = np.random.default_rng(0)
    for number in range(120):
        colour = list(COLOURS)[number % 4]
        pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 25, (36, 36, 3)), 0, 255)
        path = shop.images.resolve() / f"pin{number}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        shop.pin(f"pin{number}", f"a {colour} card", path, colour)
    return shop


def train(shop: Shop, folder: Path, tiny: Path, epochs: int = 4) -> ClipTrainResult:
    """Train the small random CLIP a little on the shop's catalogue."""
    overrides = {"init": f"local-dir:{tiny}", "learning_rate": "3e-3", "batch_size": 25}
    return train_clip(shop.ws, shop.settings, shop.con, folder, epochs=epochs, seed=3, overrides=overrides)


def test_a_cut_off_training_ends_as_an_undisturbed_one(
    coloured: Shop, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(coloured, tmp_path / "whole", tiny_clip)
    assert [point["epoch"] for point in whole.curve] == [1, 2, 3, 4]
    kept = clip_checkpoint.save
    monkeypatch.setattr(clip_checkpoint, "save", _then_fail(kept, epoch=2))
    with pytest.raises(KeyboardInterrupt):
        train(coloured, tmp_path / "cut", tiny_clip)
    assert (tmp_path / "cut" / clip_checkpoint.CHECKPOINT).is_file()
    monkeypatch.setattr(clip_checkpoint, "save", kept)
    resumed = train(coloured, tmp_path / "cut", tiny_clip)
    assert resumed.curve == whole.curve
    assert resumed.metrics == whole.metrics
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name].numpy(), other[name].numpy()) for name in one)
    assert not (tmp_path / "cut" / clip_checkpoint.CHECKPOINT).exists()


def _then_fail(save: Any, epoch: int) -> Any:
    def saving(folder: Path, model: Any, optimizer: Any, plan: str, curve: list[Any]) -> None:
        save(folder, model, optimizer, plan, curve)
        if len(curve) == epoch:
            raise KeyboardInterrupt

    return saving


def test_it_learns_what_pictures_show_and_writes_a_folder_open_clip_loads(
    coloured: Shop, tiny_clip: Path, tmp_path: Path
) -> None:
    data = load_clip_data(coloured.ws, coloured.con, load_folder(tiny_clip))
    before = held_out_metrics(RunningTowers(load_folder(tiny_clip), data), data, "train")
    folder = tmp_path / "run"
    result = train(coloured, folder, tiny_clip, epochs=20)
    after = held_out_metrics(RunningTowers(load_folder(folder), data), data, "train")
    assert before["zero_shot_category"] < 0.6
    assert after["zero_shot_category"] > 0.95
    assert result.metrics["test"]["zero_shot_category"] > 0.9
    assert result.metrics["test"]["n"] == len(data.splits["test"]) > 0
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"]
    notes = read_json(folder / "run.json")
    assert notes["options"]["seed"] == 3
    assert notes["init"].startswith("local-dir:")
    assert len(notes["curve"]) == 20
    model = open_clip.create_model(f"local-dir:{folder}")
    assert sum(weight.numel() for weight in model.parameters()) == result.parameters


def test_from_scratch_the_run_becomes_the_workspaces_clip(coloured: Shop) -> None:
    with coloured.ws.new_run("clip") as folder:
        result = train_clip(
            coloured.ws, coloured.settings, coloured.con, folder, preset="vit", epochs=1, batch_size=64,
            overrides={"dim": "24"},
        )  # fmt: skip
    assert result.rows_per_second > 0
    content = dataclasses.replace(coloured.settings.content, model="adstool-small")
    settings = dataclasses.replace(coloured.settings, content=content)
    assert resolve_source(coloured.ws, settings).name == "clip@r1"
    done = embed_items(coloured.ws, settings, coloured.con)
    assert (done.model, done.dim, done.embedded) == ("clip@r1", 24, 120)


def test_unreadable_pictures_are_left_out_of_training(coloured: Shop, tiny_clip: Path) -> None:
    shaper = load_folder(tiny_clip)
    whole = load_clip_data(coloured.ws, coloured.con, shaper)
    (coloured.images / "pin0.png").write_bytes(b"damaged")
    (coloured.images / "pin1.png").unlink()
    data = load_clip_data(coloured.ws, coloured.con, shaper)
    assert len(data.pairs) == len(whole.pairs) - 2
    by_image = {pair.image: picture for pair, picture in zip(whole.pairs, whole.pictures, strict=False)}
    for pair, picture in zip(data.pairs, data.pictures, strict=False):
        np.testing.assert_array_equal(picture, by_image[pair.image])
    assert [path.name for path in (coloured.ws.cache / "clip").iterdir()] == [data.fingerprint]


def test_what_cannot_be_trained_is_said(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="both a picture file and a text"):
        train_clip(shop.ws, shop.settings, shop.con, tmp_path / "run")
    for overrides, message in (
        ({"learningrate": 1}, "no 'learningrate' to set"),
        ({"epochs": "many"}, "is not a whole number"),
        ({"preset": "huge"}, "no CLIP preset"),
        ({"init": "clip@r7"}, "no CLIP 'clip@r7'"),
    ):
        shop.pin("one", "red card", shop.picture("one.png", 1))
        with pytest.raises((UsageError, AdstoolError), match=message):
            train_clip(shop.ws, shop.settings, shop.con, tmp_path / "run", overrides=overrides)
