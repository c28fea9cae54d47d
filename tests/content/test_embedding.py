"""embed as a library: vectors equal to open_clip's own, only what is new, nothing lost to a bad picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from adstool.bench import figures
from adstool.bench.workbench import Workbench
from adstool.content import embedding
from adstool.content.clip import ClipModel, resolve_source
from adstool.content.embedding import EmbedResult, embed_items
from adstool.content.precision import MIN_COSINE
from adstool.content.queries import known_queries
from adstool.content.search import query_vector, search_items
from adstool.content.vectors import VectorTable, active_model, load_vectors
from adstool.content.vocabulary import load_tokenizer
from adstool.errors import AdstoolError, DataError, UsageError

Shop = Any


class Counted:
    """How many pictures and texts went through the model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = self.texts = 0
        images, texts = ClipModel.encode_images, ClipModel.encode_texts

        def count_images(clip: ClipModel, batch: Sequence[torch.Tensor]) -> np.ndarray:
            self.images += len(batch)
            return images(clip, batch)

        def count_texts(clip: ClipModel, batch: Sequence[str]) -> np.ndarray:
            self.texts += len(batch)
            return texts(clip, batch)

        monkeypatch.setattr(ClipModel, "encode_images", count_images)
        monkeypatch.setattr(ClipModel, "encode_texts", count_texts)

    def take(self) -> tuple[int, int]:
        """(pictures, texts) since the last call."""
        seen = self.images, self.texts
        self.images = self.texts = 0
        return seen


def embed(shop: Shop, *kinds: str, **content: Any) -> EmbedResult:
    settings = dataclasses.replace(
        shop.settings, content=dataclasses.replace(shop.settings.content, **content)
    )
    return embed_items(shop.ws, settings, shop.con, kinds or ("ad", "pin"))


def direct(
    model: Any, preprocess: Any, tokenizer: Any, image: Path | None, text: str
) -> dict[str, np.ndarray]:
    """Vectors of one item by open_clip alone, one at a time, as its README does."""
    with torch.no_grad():
        told = model.encode_text(tokenizer([text]), normalize=True)[0].numpy()
        if image is None:
            return {"text": told, "joint": told}
        shown = model.encode_image(preprocess(Image.open(image)).unsqueeze(0), normalize=True)[0].numpy()
    mean = (shown + told) / 2
    return {"text": told, "image": shown, "joint": mean / np.linalg.norm(mean)}


@pytest.fixture
def named_model(tmp_path: Path) -> str:
    """A small model that open_clip knows by name, with CLIP's own tokenizer and preprocessing."""
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 32, "image_size": 224}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    config = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}
    path = tmp_path / "Small-Test-32.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(path)
    return path.stem


def test_vectors_of_a_named_model_and_checkpoint_are_open_clips_own(
    shop: Shop, named_model: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    checkpoint = tmp_path / "weights.pt"
    torch.save(open_clip.create_model(named_model).state_dict(), checkpoint)
    shop.fill(9)
    Image.new("RGBA", (70, 30), (9, 200, 40, 120)).save(shop.images / "wide.png")
    shop.pin("p", "Glass lamp. In green", shop.images / "wide.png")
    done = embed(shop, model=named_model, pretrained=str(checkpoint))
    assert (done.embedded, done.skipped, done.failed, done.dim) == (10, 0, 0, 48)
    model, _, preprocess = open_clip.create_model_and_transforms(named_model, pretrained=str(checkpoint))
    tools = model.eval(), preprocess, open_clip.get_tokenizer(named_model)
    rows = shop.con.execute("select item_type, item_id, title, image from catalog").fetchall()
    for item_type, item_id, title, image in rows:
        expected = direct(*tools, Path(image) if image else None, title)
        for side in ("image", "text", "joint"):
            ids, vectors = load_vectors(shop.ws, item_type, column=side)
            assert (item_id in ids) == (side in expected)
            if side in expected:
                np.testing.assert_allclose(vectors[ids.index(item_id)], expected[side], atol=1e-5)


def test_only_new_and_changed_items_are_embedded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill(20)
    shop.fill(6, "pin")
    counted = Counted(monkeypatch)
    first = embed(shop)
    assert (first.embedded, first.skipped, first.failed, first.removed) == (26, 0, 0, 0)
    ids, before = load_vectors(shop.ws, "ad")
    monkeypatch.setattr(embedding, "load_clip", pytest.fail)  # unchanged items need no model
    second = embed(shop)
    assert (second.embedded, second.skipped, second.dim) == (0, 26, first.dim)
    monkeypatch.undo()
    counted = Counted(monkeypatch)
    shop.picture("ad5.png", seed=500)  # another picture under the same name
    shop.con.execute("update ads set title = 'blue lamp' where ad_id = 'ad006'")
    shop.con.execute("delete from ads where ad_id = 'ad007'")
    shop.ad("new", "red chair", None)
    third = embed(shop)
    assert (third.embedded, third.skipped, third.removed) == (3, 23, 1)
    assert counted.take() == (1, 2)  # the new picture; the new title and the changed one
    after_ids, after = load_vectors(shop.ws, "ad")
    assert set(after_ids) == set(ids) - {"ad007"} | {"new"}
    for item_id in set(ids) - {"ad007"}:
        same = np.array_equal(after[after_ids.index(item_id)], before[ids.index(item_id)])
        assert same == (item_id not in ("ad005", "ad006"))


def test_equal_pictures_and_texts_go_through_the_model_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = shop.picture("same.png", 1)
    copy = shop.images / "copy.png"
    copy.write_bytes(picture.read_bytes())
    for number in range(30):
        shop.ad(f"a{number}", "red dress", picture if number % 2 else copy.resolve())
        shop.pin(f"p{number}", "red dress" if number % 3 else "blue dress", picture)
    counted = Counted(monkeypatch)
    assert embed(shop).embedded == 60
    assert counted.take() == (1, 2)
    vectors = load_vectors(shop.ws, "ad")[1]
    assert np.array_equal(vectors, np.repeat(vectors[:1], 30, axis=0))


def test_pictures_that_cannot_be_used_are_named_and_their_items_keep_a_text_vector(shop: Shop) -> None:
    shop.fill(5)
    broken = shop.images / "broken.png"
    broken.write_bytes(shop.picture("whole.png", 3).read_bytes()[:200])
    shop.ad("cut", "red shoe", broken.resolve())
    shop.ad("gone", "blue shoe", shop.images.resolve() / "gone.png")
    shop.ad("mute", None, shop.images.resolve() / "gone.png")
    shop.ad("blank", "", None)
    shop.ad("far", "green shoe", "https://shop.example/far.jpg")
    for expected in ((6, 0), (0, 6)):  # the second time nothing is done, and the same is said
        done = embed(shop)
        assert (done.embedded, done.skipped, done.failed) == (*expected, 4)
        reasons = dict(done.failures)
        assert reasons.keys() == {"cut", "gone", "mute", "blank"}
        assert "cannot be decoded" in reasons["cut"]
        assert str(broken) in reasons["cut"]
        assert "is missing" in reasons["gone"]
        assert "neither" in reasons["blank"]
    ids = load_vectors(shop.ws, "ad")[0]
    assert {"cut", "gone", "far"} <= set(ids)
    assert not {"mute", "blank"} & set(ids)
    texts = load_vectors(shop.ws, "ad", column="text")
    joint = load_vectors(shop.ws, "ad")
    np.testing.assert_array_equal(joint[1][joint[0].index("cut")], texts[1][texts[0].index("cut")])
    shop.picture("gone.png", 8)  # found again
    again = embed(shop)
    assert (again.embedded, again.failed) == (2, 2)
    assert {"gone", "mute"} <= set(load_vectors(shop.ws, "ad", column="image")[0])


def test_work_cut_off_goes_on_and_ends_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill(40)
    whole = embed(shop, batch_size=1)
    expected = load_vectors(shop.ws, "ad")
    table = VectorTable.open(shop.ws, "ad", active_model(shop.ws).slug)
    assert table is not None
    table.remove(expected[0])
    (shop.ws.vectors / "current.json").unlink()
    writes = 0
    write = VectorTable.write

    def fail_at_third(table: VectorTable, rows: Any, **how: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError("no space left")
        write(table, rows, **how)

    monkeypatch.setattr(VectorTable, "write", fail_at_third)
    with pytest.raises(OSError, match="no space"):
        embed(shop, batch_size=1)
    assert load_vectors(shop.ws, "ad")[0] == []  # half a catalogue is not put to use
    monkeypatch.undo()
    rest = embed(shop, batch_size=1)
    assert (rest.embedded, rest.skipped) == (whole.embedded - 16, 16)
    resumed = load_vectors(shop.ws, "ad")
    assert resumed[0] == expected[0]
    np.testing.assert_allclose(resumed[1], expected[1], atol=1e-6)


def test_search_ranks_by_the_cosine_of_joint_vectors(shop: Shop) -> None:
    shop.fill(30)
    shop.fill(30, "pin")
    embed(shop)
    ads, pins = load_vectors(shop.ws, "ad"), load_vectors(shop.ws, "pin")
    ids, vectors = ads[0] + pins[0], np.concatenate([ads[1], pins[1]])
    titles = dict(shop.con.execute("select item_id, title from catalog").fetchall())
    source = resolve_source(shop.ws, shop.settings)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{source.folder}")
    tokenizer = load_tokenizer(source.folder, 16)
    parts = direct(model.eval(), preprocess, tokenizer, shop.images / "pin7.png", "red lamp")
    by_vector = dataclasses.replace(
        shop.settings, content=dataclasses.replace(shop.settings.content, words=0.0)
    )
    queries = (({"text": "red lamp"}, parts["text"]), ({"image": shop.images / "pin7.png"}, parts["image"]))
    for query, expected in queries:
        scores = vectors @ expected
        order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:8]
        hits = search_items(shop.ws, by_vector, shop.con, k=8, **query)
        np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-5)
        assert {hit.item_id for hit in hits[:7]} <= {ids[row] for row in order}
        assert all(hit.title == titles[hit.item_id] for hit in hits)
    only = search_items(shop.ws, shop.settings, shop.con, text="red lamp", kinds=("pin",), k=100)
    assert {hit.item_id for hit in only} == set(pins[0])
    plain = {
        hit.item_id: hit.score for hit in search_items(shop.ws, by_vector, shop.con, text="red lamp", k=60)
    }
    for hit in search_items(shop.ws, shop.settings, shop.con, text="red lamp", k=60):
        held = sum(word in (hit.title or "").lower().split() for word in ("red", "lamp"))
        assert hit.score == pytest.approx(plain[hit.item_id] + 0.3 * held / 2, abs=1e-5)


def test_bf16_is_taken_where_hardware_has_it_and_vectors_stay(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop.fill(12)
    monkeypatch.setattr("adstool.content.precision.cpu_has_bf16", lambda: False)
    assert embed(shop, precision="auto").precision == "fp32"
    exact = load_vectors(shop.ws, "ad")[1]
    monkeypatch.setattr("adstool.content.precision.cpu_has_bf16", lambda: True)
    shop.ad("later", "red dress", None)
    assert embed(shop, precision="auto").precision == "fp32"  # as the vectors the table holds
    slug = active_model(shop.ws).slug
    (shop.ws.vectors / f"{slug}.json").unlink()
    shop.con.execute("update ads set title = title || ' now' where ad_id <> 'later'")
    assert embed(shop, precision="auto").precision == "bf16"
    shop.con.execute("update ads set title = replace(title, ' now', '') where ad_id <> 'later'")
    assert embed(shop, precision="bf16").precision == "bf16"
    rough = load_vectors(shop.ws, "ad")[1][:12]
    assert not np.array_equal(rough, exact)
    assert (rough * exact).sum(axis=1).min() >= MIN_COSINE
    with pytest.raises(UsageError, match="int3"):
        embed(shop, precision="int3")


def test_bf16_is_refused_when_it_changes_the_vectors(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill(4)
    monkeypatch.setattr("adstool.content.precision.cpu_has_bf16", lambda: True)
    monkeypatch.setattr("adstool.content.precision.MIN_COSINE", 1.1)
    assert embed(shop, precision="auto").precision == "fp32"


def test_what_is_missing_is_said(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ad or pin"):
        embed(shop)
    shop.fill(2)
    with pytest.raises(AdstoolError, match=r"Nothing .* embedded"):
        search_items(shop.ws, shop.settings, shop.con, text="red")
    for content, message in (
        ({"model": "ViT-B-33", "pretrained": "openai"}, "knows no model"),
        ({"model": "ViT-B-32"}, "needs weights"),
        ({"model": "ViT-B-32", "pretrained": "no-such-tag"}, "neither a file nor a tag"),
        ({"model": "ViT-B-32", "pretrained": "no/such.pt"}, "does not exist"),
        ({"model": "clip@r9"}, "no CLIP 'clip@r9'"),
        ({"model": f"local-dir:{tmp_path}"}, "no CLIP model folder"),
    ):
        with pytest.raises(AdstoolError, match=message):
            embed(shop, **content)
    embed(shop)
    with pytest.raises(UsageError):
        search_items(shop.ws, shop.settings, shop.con)
    with pytest.raises(UsageError):
        search_items(shop.ws, shop.settings, shop.con, text=" ")
    with pytest.raises(DataError, match="is missing"):
        search_items(shop.ws, shop.settings, shop.con, image=shop.images / "none.png")


def test_embed_keeps_the_vectors_of_what_people_ask_for(shop: Any) -> None:
    shop.fill(3)
    shop.log([("u1", "query", "", datetime(2026, 11, 1), "query")])
    shop.con.execute("update events set query = ' Red Lamp '")
    embed_items(shop.ws, shop.settings, shop.con)
    model = active_model(shop.ws)
    assert model is not None
    kept = known_queries(shop.ws, model.slug)
    assert list(kept) == ["red lamp", "dress"]
    expected = query_vector(shop.ws, shop.settings, text="red lamp")
    np.testing.assert_allclose(kept["red lamp"], expected, atol=1e-6)


def test_failures_are_no_figure_of_speed(shop: Any, tmp_path: Path) -> None:
    shop.fill(8)
    (shop.images / "ad1.png").unlink()
    bench = Workbench(tmp_path / "bench", shop.ws, shop.settings)
    bench.folder.mkdir()
    bench.__dict__["workspace"] = shop.ws  # it has no index, which embedding does without
    with shop.left_alone(), pytest.raises(AdstoolError, match="1 picture cannot be used, the first: ad001"):
        figures.embed(bench)
    shop.picture("ad1.png", 1)
    bench.folder = tmp_path / "again"
    bench.folder.mkdir()
    with shop.left_alone():
        assert figures.embed(bench).value > 0
