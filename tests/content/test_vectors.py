"""The vector tables against numpy, and that reading them needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adstool.config import FeatureSettings, Settings
from adstool.content.vectors import (
    ActiveModel,
    ItemVectors,
    VectorTable,
    feature_vectors,
    load_vectors,
    set_active_model,
    slugify,
)
from adstool.errors import AdstoolError
from adstool.workspace import Workspace


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Random unit vectors, float32 [count, dim]."""
    drawn = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def rows_of(vectors: np.ndarray) -> list[ItemVectors]:
    """Rows named out of order; every third has no picture."""
    return [
        ItemVectors(
            f"it'em{97 * i % 101:03d}", "h", f"t{i}", None if i % 3 == 0 else f"i{i}", None,
            None if i % 3 == 0 else vector, vector, vector,
        )
        for i, vector in enumerate(vectors)
    ]  # fmt: skip


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_before_anything_is_embedded_there_are_no_vectors(ws: Workspace) -> None:
    ids, vectors = load_vectors(ws, "ad")
    assert ids == []
    assert vectors.shape == (0, 0)


def test_vectors_come_back_sorted_by_item_and_only_where_the_side_exists(ws: Workspace) -> None:
    vectors = unit(60, 12)
    rows = rows_of(vectors)
    table = VectorTable.create(ws, "ad", "m", 12)
    table.write(rows[:40], replacing=False)
    table.write(rows[40:], replacing=False)
    set_active_model(ws, ActiveModel("m", "m", "", 12))
    ids, joint = load_vectors(ws, "ad")
    by_id = {row.item_id: row.joint for row in rows}
    assert ids == sorted(by_id)
    np.testing.assert_array_equal(joint, np.stack([by_id[item_id] for item_id in ids]))
    with_image, images = load_vectors(ws, "ad", column="image")
    assert with_image == sorted(row.item_id for row in rows if row.image is not None)
    assert images.shape == (40, 12)
    pins, none = load_vectors(ws, "pin")
    assert pins == []
    assert none.shape == (0, 12)


def test_features_can_do_without_vectors(ws: Workspace) -> None:
    table = VectorTable.create(ws, "pin", "m", 12)
    table.write(rows_of(unit(5, 12)), replacing=False)
    set_active_model(ws, ActiveModel("m", "m", "", 12))
    given = feature_vectors(ws, Settings())
    assert {kind: vectors.shape for kind, (_, vectors) in given.items()} == {"ad": (0, 12), "pin": (5, 12)}
    assert feature_vectors(ws, Settings(features=FeatureSettings(content=False))) == {}


def test_nearest_ranks_as_brute_force_does(ws: Workspace) -> None:
    vectors = unit(200, 24)
    table = VectorTable.create(ws, "pin", "m", 24)
    table.write(
        [ItemVectors(f"p{i}", "h", None, None, None, None, None, v) for i, v in enumerate(vectors)],
        replacing=False,
    )
    for query in unit(5, 24, seed=9):
        cosine = vectors @ query
        expected = np.argsort(-cosine)[:7]
        found = table.nearest(query, 7)
        assert [item_id for item_id, _ in found] == [f"p{i}" for i in expected]
        np.testing.assert_allclose([score for _, score in found], cosine[expected], atol=1e-5)


def test_replacing_and_removing_touch_only_the_named_rows(ws: Workspace) -> None:
    vectors = unit(30, 8)
    rows = rows_of(vectors)
    table = VectorTable.create(ws, "ad", "m", 8)
    table.write(rows, replacing=False)
    changed = ItemVectors(rows[4].item_id, "new", "t", None, None, None, None, vectors[0])
    table.write([changed], replacing=True)
    table.remove([rows[7].item_id, rows[8].item_id, "never there"])
    stored = table.columns("item_id", "content_hash").to_pydict()
    hashes = dict(zip(stored["item_id"], stored["content_hash"], strict=True))
    expected = {row.item_id: "h" for row in rows} | {rows[4].item_id: "new"}
    del expected[rows[7].item_id], expected[rows[8].item_id]
    assert hashes == expected


def test_compaction_merges_fragments_and_loses_nothing(ws: Workspace) -> None:
    table = VectorTable.create(ws, "ad", "m", 8)
    rows = rows_of(unit(30, 8))
    for row in rows:
        table.write([row], replacing=False)
    before = table.vectors("joint")
    table.maintain()
    after = table.vectors("joint")
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
    assert table._table.stats()["fragment_stats"]["num_fragments"] == 1


def test_sides_gives_known_vectors_by_hash(ws: Workspace) -> None:
    rows = rows_of(unit(9, 8))
    table = VectorTable.create(ws, "ad", "m", 8)
    table.write(rows, replacing=False)
    assert table.sides("image", {"i1", "i3", "unheard"}).keys() == {"i1"}  # i3 has no picture
    np.testing.assert_array_equal(table.sides("text", {"t2"})["t2"], rows[2].text)


def test_wrong_names_and_dimensions_are_refused(ws: Workspace) -> None:
    VectorTable.create(ws, "ad", "m", 8)
    with pytest.raises(AdstoolError, match="8 numbers"):
        VectorTable.create(ws, "ad", "m", 9)
    with pytest.raises(AdstoolError, match="not an item type"):
        load_vectors_of(ws, "advert")
    with pytest.raises(AdstoolError, match="not a vector column"):
        load_vectors(ws, "ad", column="sound")
    assert slugify("../hf-hub:org/model") == "hf-hub-org-model"


def load_vectors_of(ws: Workspace, kind: str) -> None:
    set_active_model(ws, ActiveModel("m", "m", "", 8))
    load_vectors(ws, kind)


def test_reading_vectors_imports_no_torch() -> None:
    check = (
        "import sys, adstool.content.vectors; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0
