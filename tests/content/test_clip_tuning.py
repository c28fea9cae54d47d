"""Tuning a CLIP that exists: kept outputs of frozen towers, neighbours from the log, other starts."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from adstool.content import clip_checkpoint, clip_towers
from adstool.content.clip import ClipModel, load_folder
from adstool.content.clip_data import ClipData, load_clip_data
from adstool.content.clip_loop import Batch, ClipLoop
from adstool.content.clip_options import ClipTrainOptions
from adstool.content.clip_towers import FrozenTowers, RunningTowers
from adstool.content.clip_training import ClipTrainResult, train_clip
from adstool.content.coengagement import Neighbours
from adstool.content.presets import small_config
from adstool.errors import AdstoolError, DataError, UsageError
from adstool.workspace import read_json

Shop = Any
COLOURS = {"red": (200, 30, 30), "green": (30, 170, 40), "blue": (40, 60, 210), "black": (20, 20, 20)}
THINGS = ("dress", "shoe", "lamp")


@pytest.fixture
def grouped(shop: Shop) -> Shop:
    """96 pins whose pictures show a colour alone; users each keep to one thing, which titles alone name."""
    rng = np.random.default_rng(0)
    for number in range(96):
        colour, thing = list(COLOURS)[number % 4], THINGS[number // 4 % 3]
        pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 25, (32, 32, 3)), 0, 255)
        path = shop.images.resolve() / f"pin{number}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        shop.pin(f"pin{number}", f"{colour} {rng.choice(list(COLOURS))} {thing}", path, colour)
    rows = []
    for user in range(40):
        mine = [n for n in range(96) if n // 4 % 3 == user % 3]
        for day in range(10):
            for hour, item in enumerate(rng.choice(mine, 5, replace=False)):
                when = datetime(2026, 11, 1) + timedelta(days=day, hours=hour)
                rows += [(f"u{user}", "pin", f"pin{item}", when, action) for action in ("impression", "save")]
    shop.log(rows)
    return shop


def tune(shop: Shop, folder: Path, init: str, **overrides: Any) -> ClipTrainResult:
    """Tune the projections of a CLIP with neighbours."""
    given = {"init": init, "tune": "projection", "neighbours": 4, "learning_rate": 3e-3} | overrides
    return train_clip(
        shop.ws,
        shop.settings,
        shop.con,
        folder,
        epochs=given.pop("epochs", 12),
        batch_size=32,
        seed=3,
        overrides=given,
    )


def model_folder(kind: str, tiny: Path, tmp_path: Path) -> Path:
    """The tiny ViT, or a residual network with random weights and running means of its own."""
    if kind == "vit":
        return tiny
    folder = tmp_path / "conv"
    folder.mkdir()
    config = small_config("conv", 49408, dim=12)
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(1)
    weights = open_clip.create_model(f"local-dir:{folder}").state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_kept_outputs_give_the_losses_and_gradients_of_running_towers(
    kind: str, grouped: Shop, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_towers, "trains_in_bf16", lambda _: False)
    folder = model_folder(kind, tiny_clip, tmp_path)
    options = ClipTrainOptions(neighbours=1.0, batch_size=16, epochs=1, learning_rate=1e-3)
    outcomes = []
    for frozen in (True, False):
        clip = load_folder(folder)
        data = load_clip_data(grouped.ws, grouped.con, clip)
        if frozen:
            towers: Any = FrozenTowers(clip, data, tmp_path / "kept")
        else:
            clip.model.requires_grad_(True)
            towers = RunningTowers(clip, data)
        outcomes.append(_losses_and_gradients(clip, data, towers, options, tmp_path))
    (kept, kept_gradients), (run, run_gradients) = outcomes
    assert kept.keys() == run.keys() == {
        "train_loss", "neighbour_loss", "category_loss", "title_category_loss"
    }  # fmt: skip
    for name, value in run.items():
        assert kept[name] == pytest.approx(value, rel=2e-4), name
    assert len(kept_gradients) == 3 < len(run_gradients)
    for name, gradient in kept_gradients.items():
        torch.testing.assert_close(gradient, run_gradients[name], rtol=2e-3, atol=1e-5)


def _losses_and_gradients(
    clip: ClipModel, data: ClipData, towers: Any, options: ClipTrainOptions, tmp_path: Path
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    rows = data.splits["train"][:16]
    anchors, partners = np.array([1, 5, 9]), data.splits["train"][20:23]
    met = np.stack([rows[anchors], partners], axis=1)
    neighbours = Neighbours(met[np.argsort(met[:, 0])], np.ones(3), len(data.pairs))
    loop = ClipLoop(towers, data, neighbours, options, tmp_path)
    clip.model.eval()  # running means and dropout at rest, as they are behind kept outputs
    texts = [
        data.pairs[row].text if place % 2 else data.pairs[row].category for place, row in enumerate(rows)
    ]
    batch = Batch(rows, texts, rows[:0], anchors, partners)
    losses = loop.losses(batch, np.random.default_rng(0))
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {name: w.grad for name, w in clip.model.named_parameters() if w.grad is not None}
    return {name: float(loss.detach()) for name, loss in losses.items()}, gradients


def test_outputs_are_made_once_and_anew_only_where_a_picture_changed(
    grouped: Shop, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_folder(tiny_clip)
    first = FrozenTowers(clip, load_clip_data(grouped.ws, grouped.con, clip), tmp_path / "kept")
    Image.new("RGB", (32, 32), (9, 200, 200)).save(grouped.images / "pin7.png")
    grouped.con.execute("update pins set title = 'a new lamp' where pin_id = 'pin7'")
    seen: list[int] = []
    run = FrozenTowers._output

    def counted(self: FrozenTowers, encode: Any, inputs: torch.Tensor) -> np.ndarray:
        seen.append(len(inputs))
        return run(self, encode, inputs)

    monkeypatch.setattr(FrozenTowers, "_output", counted)
    data = load_clip_data(grouped.ws, grouped.con, clip)
    again = FrozenTowers(clip, data, tmp_path / "kept")
    assert seen == [1, 1]  # one picture, one text
    rows = np.arange(len(data.pairs))
    changed = [row for row in rows if data.pairs[row].title == "a new lamp"]
    same = np.delete(rows, changed)
    np.testing.assert_array_equal(again.plain_images(same), first.plain_images(same))
    running = RunningTowers(clip, data)
    np.testing.assert_allclose(again.plain_images(rows), running.plain_images(rows), atol=0.03)  # bf16 kept
    (tmp_path / "kept" / "image.npz").write_bytes(b"damaged")
    seen.clear()
    FrozenTowers(clip, data, tmp_path / "kept")
    assert sum(seen) == len(data.pairs)


def test_neighbours_bring_together_what_looks_apart(grouped: Shop, tiny_clip: Path, tmp_path: Path) -> None:
    init = f"local-dir:{tiny_clip}"
    result = tune(grouped, tmp_path / "run", init, epochs=50, learning_rate=1e-2, categories=0)
    for split in ("valid", "test"):
        figures = result.metrics[split]
        before, after = (figures[f"co_engagement_recall_at_10{name}"] for name in ("_before", ""))
        assert after > before + 0.05
        assert figures["co_engagement_gain_at_10_low"] > 0
        assert figures["co_engagement_n"] > 50
    curve = result.curve
    assert curve[-1]["neighbour_loss"] < curve[0]["neighbour_loss"]
    notes = read_json(tmp_path / "run" / "run.json")
    assert notes["options"]["tune"] == "projection"
    assert notes["catalogue"]["neighbour_pairs"] > 100
    towers, tuned = (
        load_file(tiny_clip / "model.safetensors"),
        load_file(tmp_path / "run" / "model.safetensors"),
    )
    changed = {name for name in towers if not torch.equal(towers[name].half().float(), tuned[name].float())}
    assert changed == {"visual.proj", "text_projection", "logit_scale"}


def test_a_cut_off_tuning_ends_as_an_undisturbed_one(
    grouped: Shop, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(grouped, tmp_path / "whole", f"local-dir:{tiny_clip}", epochs=4)
    kept = clip_checkpoint.save

    def failing(folder: Path, model: Any, optimizer: Any, plan: str, curve: list[Any]) -> None:
        kept(folder, model, optimizer, plan, curve)
        if len(curve) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(clip_checkpoint, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        tune(grouped, tmp_path / "cut", f"local-dir:{tiny_clip}", epochs=4)
    assert (tmp_path / "cut" / clip_checkpoint.CHECKPOINT).stat().st_size < 30_000  # the towers are not in it
    monkeypatch.setattr(clip_checkpoint, "save", kept)
    resumed = tune(grouped, tmp_path / "cut", f"local-dir:{tiny_clip}", epochs=4)
    assert (resumed.curve, resumed.metrics) == (whole.curve, whole.metrics)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_open_clip_knows_by_name_is_tuned_from_a_file(
    grouped: Shop, tiny_clip: Path, tmp_path: Path
) -> None:
    config = read_json(tiny_clip / "open_clip_config.json")["model_cfg"]
    config["text_cfg"]["vocab_size"] = 49408
    named = tmp_path / "tiny-named.json"
    named.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(named)
    torch.manual_seed(2)
    weights = {k: v.contiguous() for k, v in open_clip.create_model("tiny-named").state_dict().items()}
    save_file(weights, tmp_path / "tiny.safetensors")
    start = {"pretrained": str(tmp_path / "tiny.safetensors"), "neighbours": 1}
    for tuned in ("towers", "projection"):
        run = tmp_path / tuned
        tune(grouped, run, "tiny-named", tune=tuned, epochs=1, **start)
        after = open_clip.create_model(f"local-dir:{run}").state_dict()
        moved = {name for name, value in weights.items() if (value - after[name]).abs().max() > 2e-3}
        assert ("visual.conv1.weight" in moved) == (tuned == "towers")
        assert "visual.proj" in moved
        assert load_folder(run).encode_texts(["red lamp"]).shape == (1, 16)


def test_what_cannot_be_tuned_is_said(grouped: Shop, tiny_clip: Path, tmp_path: Path) -> None:
    init = f"local-dir:{tiny_clip}"
    for overrides, message in (
        ({"init": ""}, "need a CLIP to start from"),
        ({"tune": "everything"}, "tune=everything is not known"),
        ({"window_hours": 0}, "window_hours=0.0 is not above 0"),
        ({"neighbours": -1}, "neighbours=-1.0 is below 0"),
        (
            {"init": "ViT-B-16-SigLIP", "pretrained": str(tiny_clip / "model.safetensors")},
            "its text vocabulary is not a file",
        ),
    ):
        with pytest.raises((UsageError, AdstoolError), match=message):
            tune(grouped, tmp_path / "run", **({"init": init} | overrides))
    grouped.con.execute("delete from events where action = 'save'")
    with pytest.raises(DataError, match="no user of the log engaged with two pictures"):
        tune(grouped, tmp_path / "run", init)
    alone = tune(grouped, tmp_path / "run", init, neighbours=0, epochs=1)
    assert not any(name.startswith("co_engagement") for name in alone.metrics["test"])
