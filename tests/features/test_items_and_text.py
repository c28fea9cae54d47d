"""The item table, and words of queries in the texts of items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from features.conftest import SMALL, Built
from features.logs import at, catalogue, insert, random_events, semantic_ids, vectors, warehouse
from hypothesis import given
from hypothesis import strategies as st

from adstool.config import FeatureSettings, Settings
from adstool.content.text import CategoryWords, TokenIndex, normalise, tokens
from adstool.errors import AdstoolError
from adstool.features.corpus import corpus_type
from adstool.features.items import NO_TIME, ItemTable, build_items


def test_rows_are_found_by_id_and_type(built: Built) -> None:
    items = built.items
    assert items.ids[:3] == ["a0", "a1", "a10"]
    assert items.rows(["a1", "p2", "nothing"]).tolist() == [1, items.ids.index("p2"), -1]
    assert items.rows(["a1", "p2"], "pin").tolist() == [-1, items.ids.index("p2")]
    assert items.of_type("ad").sum() == 12
    assert items.keys[1].as_py() == "ad:a1"
    advertiser = dict(built.con.execute("select item_id, advertiser_id from catalog").fetchall())
    numbers, names = items.advertisers
    found = {i: names[n] if n >= 0 else None for i, n in zip(items.ids, numbers, strict=True)}
    assert found == advertiser
    assert None in advertiser.values()


def test_an_ad_and_a_pin_of_the_same_id_stay_apart(tmp_path: Path) -> None:
    with warehouse(tmp_path / "shop", SMALL) as (_, con):
        insert(con, "ads", [{"ad_id": "x", "title": "ad"}])
        insert(con, "pins", [{"pin_id": "x", "title": "pin", "created_at": at(1)}])
        items = build_items(con, {"pin": (["x"], np.asarray([[0.6, 0.8]], dtype=np.float32))})
        assert items.rows(["x"]).tolist() == [0]
        assert items.rows(["x"], "pin").tolist() == [1]
        assert items.content.tolist() == [[0.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)]]
        assert items.times("created_at")[0] == NO_TIME
        assert np.isnan(items.numbers("price")[1])


def test_content_goes_to_its_item_and_unknown_ids_are_left_out(built: Built) -> None:
    ids, array = vectors(built.con)["ad"]
    items = build_items(built.con, {"ad": (["gone", *ids], np.concatenate([array[:1], array]))})
    np.testing.assert_array_equal(items.content[items.rows(ids, "ad")], array)
    assert not items.content[items.of_type("pin")].any()
    with pytest.raises(AdstoolError, match="different widths"):
        build_items(built.con, {"ad": (ids, array), "pin": (["p0"], np.ones((1, 3), dtype=np.float32))})


def test_the_cosine_with_knowledge_is_the_mean_of_both_and_ids_stay(built: Built) -> None:
    plain = built.items
    ids = plain.ids[:2]
    sides = np.asarray([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
    items = build_items(built.con, vectors(built.con), semantic_ids(built.con), {"ad": (ids, sides)})
    assert items.content.shape[1] == plain.content.shape[1] + 2
    want = (plain.content[0] @ plain.content[1] + 0.6) / 2
    assert items.content[0] @ items.content[1] == pytest.approx(want, abs=1e-6)
    np.testing.assert_allclose(items.content[2, :-2], plain.content[2], atol=1e-6)  # nothing is known of it
    np.testing.assert_array_equal(items.codes, plain.codes)
    assert items.codes.shape[1] > 0
    bare = build_items(built.con, {}, None, {"ad": (ids, sides)})
    np.testing.assert_allclose(bare.content[0], [0.0, 0.6, 0.8], atol=1e-6)


def test_a_saved_table_is_the_same_and_a_damaged_one_is_named(built: Built, tmp_path: Path) -> None:
    built.items.save(tmp_path)
    loaded = ItemTable.load(tmp_path)
    assert loaded.fingerprint() == built.items.fingerprint()
    assert loaded.table.equals(built.items.table)
    (tmp_path / "items.parquet").write_bytes(b"no")
    with pytest.raises(AdstoolError, match="no whole item table"):
        ItemTable.load(tmp_path)


def test_the_fingerprint_sees_a_changed_title_and_a_changed_vector(built: Built) -> None:
    items = built.items
    moved = np.asarray(items.content).copy()
    moved[0, 0] += 1e-3
    retitled = items.table.set_column(
        items.table.column_names.index("title"),
        "title",
        pa.array(["new", *items.column("title").to_pylist()[1:]]),
    )
    prints = {
        items.fingerprint(),
        ItemTable(items.table, moved).fingerprint(),
        ItemTable(retitled, items.content).fingerprint(),
    }
    assert len(prints) == 3
    again = build_items(built.con, vectors(built.con), semantic_ids(built.con))
    assert again.fingerprint() == items.fingerprint()


def test_ads_are_ranked_as_soon_as_there_is_one(tmp_path: Path) -> None:
    with warehouse(tmp_path / "shop", SMALL) as (_, con):
        assert corpus_type(con, SMALL) == "pin"
        catalogue(con, ads=0)
        assert corpus_type(con, SMALL) == "pin"
        events = random_events(np.random.default_rng(0), 9)
        insert(con, "events", [{**e, "item_type": "pin"} for e in events])
        assert corpus_type(con, SMALL) == "pin"
        insert(con, "events", [{**events[0], "item_type": "ad", "action": "impression"}])
        assert corpus_type(con, SMALL) == "ad"
        assert corpus_type(con, Settings(features=FeatureSettings(item_type="pin"))) == "pin"
        with pytest.raises(AdstoolError, match="item_type"):
            corpus_type(con, Settings(features=FeatureSettings(item_type="shop")))


@given(
    titles=st.lists(st.none() | st.text(alphabet="ab ÄäÉ-9_", max_size=8), min_size=1, max_size=8),
    queries=st.lists(st.text(alphabet="ab ÄäÉ-9_", max_size=8), min_size=1, max_size=5),
    data=st.data(),
)
def test_overlap_is_the_share_of_the_words_of_the_query(
    titles: list[str | None], queries: list[str], data: st.DataObject
) -> None:
    index = TokenIndex.of([pa.array(titles, type=pa.string())])
    size = data.draw(st.integers(0, 12))
    pick = st.lists(st.integers(-1, len(queries) - 1), min_size=size, max_size=size)
    query = np.asarray(data.draw(pick), dtype=np.int32)
    rows = data.draw(st.lists(st.integers(0, len(titles) - 1), min_size=size, max_size=size))
    found = index.overlap([tokens(text) for text in queries], query, np.asarray(rows, dtype=np.int64))
    for share, number, row in zip(found, query, rows, strict=True):
        words = set(tokens(queries[number])) if number >= 0 else set()
        wanted = len(words & set(tokens(titles[row]))) / len(words) if words else np.nan
        np.testing.assert_allclose(share, wanted)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red  DRESS, red!", ("red", "dress")),
        ("size-42_b", ("size", "42", "b")),
        ("Straße ÜBER ИВАН", ("strasse", "über", "иван")),
        ("", ()),
        (None, ()),
        ("?!", ()),
    ],
)
def test_words(text: str | None, words: tuple[str, ...]) -> None:
    assert tokens(text) == words
    assert normalise(text) == (" ".join(words) or None)


def test_a_query_fits_the_category_whose_items_hold_its_words() -> None:
    texts = ["red mug", "blue beaker", "beaker of glass", "looking glass", "wall mirror glass", "thing"]
    category = np.asarray([0, 0, 0, 1, 1, -1])
    fit = CategoryWords.of(TokenIndex.of([pa.array(texts)]), category, 2)
    queries = [tokens(text) for text in ("Beaker", "looking glass", "unheard", "")]
    rows = [(0, 0), (0, 1), (1, 1), (2, 0), (3, 0), (-1, 0), (0, -1)]
    query, asked = (np.asarray(column) for column in zip(*rows, strict=True))
    found = fit.fit(queries, query, asked)

    def posterior(holding: list[list[int]], which: int) -> float:
        """By hand: prior times the smoothed share of 3 and 2 items that hold each word."""
        size, total = (3, 2), 5.2
        weight = [(size[c] + 0.1) / total for c in (0, 1)]
        for counts in holding:
            weight = [w * (counts[c] + 0.1) / (size[c] + 0.2) for c, w in enumerate(weight)]
        return float(np.log(weight[which] / sum(weight)))

    beaker, looking_glass = [[2, 0]], [[0, 1], [1, 2]]
    wanted = [posterior(beaker, 0), posterior(beaker, 1), posterior(looking_glass, 1)]
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-5)
    assert np.isnan(found[3:]).all()
    assert found[0] > np.log(0.9) > found[1]


def test_without_categories_or_words_nothing_fits() -> None:
    empty = CategoryWords.of(TokenIndex.of([pa.array([None, ""], type=pa.string())]), np.asarray([-1, -1]), 0)
    assert np.isnan(empty.fit([("red",)], np.asarray([0, 0]), np.asarray([-1, -1]))).all()
