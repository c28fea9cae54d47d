"""Searches in the report: the texts people ask for, their kept vectors, and the items that are nearest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from adstool.config import Settings
from adstool.content.queries import Asked, asked_texts, keep_queries, known_queries
from adstool.content.vectors import ActiveModel, ItemVectors, VectorTable, set_active_model
from adstool.evaluation.sections_search import search_section
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

MODEL = ActiveModel("fake-1", "local-dir:/nowhere", "", 3)
NASTY = "<script>alert(1)</script>"
TITLES = {"a1": "Red dress", "a2": "Red shoe", "a3": f"Blue shoe {NASTY}", "a4": "Lamp"}
VECTORS = {"a1": (1.0, 0.1, 0.0), "a2": (0.9, 0.5, 0.0), "a3": (0.0, 1.0, 0.1), "a4": (0.0, 0.0, 1.0)}
TEXTS = {"red": (1.0, 0.0, 0.0), "shoes": (0.1, 1.0, 0.0), "lamps": (0.0, 0.0, 1.0)}


class FakeClip:
    """Knows the vectors of three texts; notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([TEXTS[text] for text in texts], np.float32)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Workspace, Settings, duckdb.DuckDBPyConnection]]:
    """Four ads with pictures and hand-made vectors, and a log with queries."""
    ws, settings = Workspace(tmp_path.resolve()), Settings()
    image = tmp_path.resolve() / "a.png"
    Image.new("RGB", (30, 20), (10, 120, 90)).save(image)
    with open_warehouse(ws, settings) as con:
        for item_id, title in TITLES.items():
            category = "Lamps" if item_id == "a4" else "Shoes"
            con.execute(
                "insert into ads (ad_id, title, image, category) values (?, ?, ?, ?)",
                [item_id, title, None if item_id == "a4" else str(image), category],
            )
        asked = [("Red ", "r1"), ("red", "r1"), ("red", "r2"), ("shoes", "r3"), (NASTY, "r4"), (" ", "r5")]
        for number, (query, request) in enumerate(asked):
            con.execute(
                "insert into events (event_id, ts, user_id, item_type, action, query, request_id)"
                " values (?, ?, 'u', 'query', 'query', ?, ?)",
                [f"e{number}", datetime(2026, 11, 1), query, request],
            )
        yield ws, settings, con


def embed(ws: Workspace) -> None:
    """Write the vectors as `embed` would."""
    unit = {item_id: np.array(v, np.float32) / np.linalg.norm(v) for item_id, v in VECTORS.items()}
    rows = [ItemVectors(item_id, "h", None, None, None, v, v, v) for item_id, v in unit.items()]
    VectorTable.create(ws, "ad", MODEL.slug, 3).write(rows, replacing=False)
    set_active_model(ws, MODEL)


def test_queries_are_counted_by_request_and_followed_by_categories(shop: Any) -> None:
    con = shop[2]
    expected = [Asked("red", 2), Asked(NASTY, 1), Asked("shoes", 1), Asked("lamps", None)]
    assert asked_texts(con) == expected  # shoes is asked for, so it is no category here
    assert asked_texts(con, 1) == [Asked("red", 2), Asked("shoes", None)]
    con.execute("delete from events")
    assert asked_texts(con) == [Asked("shoes", None), Asked("lamps", None)]


def test_vectors_of_queries_are_made_once(tmp_path: Path) -> None:
    ws, clip = Workspace(tmp_path), FakeClip()
    made = keep_queries(ws, "m", clip, ["red", "shoes"])  # type: ignore[arg-type]
    again = keep_queries(ws, "m", clip, ["shoes", "lamps", "red"])  # type: ignore[arg-type]
    assert clip.asked == ["red", "shoes", "lamps"]
    assert list(again) == ["shoes", "lamps", "red"]
    np.testing.assert_array_equal(again["red"], made["red"])
    assert {name: tuple(v) for name, v in known_queries(ws, "m").items()} == {
        name: tuple(np.float32(v)) for name, v in TEXTS.items()
    }
    assert known_queries(ws, "other") == {}


def test_the_section_shows_the_nearest_items_of_each_query(shop: Any) -> None:
    ws, settings, con = shop
    assert search_section(ws, settings, con) == ""  # nothing is embedded
    embed(ws)
    assert search_section(ws, settings, con) == ""  # no vector of a text, and no model to make one
    keep_queries(ws, MODEL.slug, FakeClip(), ["shoes", "red", "lamps"])  # type: ignore[arg-type]
    html = search_section(ws, settings, con)
    red, shoes = html.split("<h3>")[1:]
    assert red.startswith("red ")
    assert "2 requests" in red
    assert shoes.startswith("shoes ")
    for block, order in ((red, ["a1", "a2", "a3", "a4"]), (shoes, ["a3", "a2", "a1", "a4"])):
        places = [block.index(f"<figcaption>{TITLES[item].split(' <')[0]}") for item in order]
        assert places == sorted(places)
        assert block.count("data:image/webp") == 3
        assert block.count('class="blank"') == 1
    assert "<br>1.30</figcaption>" in red  # 1 / sqrt(1.01), and .3 for the word
    assert "<br>1.17</figcaption>" in red  # .9 / sqrt(1.06), and .3
    assert "<br>0.00</figcaption>" in red  # no word of it
    assert NASTY not in html
    assert "&lt;script&gt;" in html


def test_without_queries_the_largest_categories_are_shown(shop: Any) -> None:
    ws, settings, con = shop
    embed(ws)
    con.execute("delete from events")
    keep_queries(ws, MODEL.slug, FakeClip(), ["shoes", "lamps"])  # type: ignore[arg-type]
    html = search_section(ws, settings, con)
    assert [block.split(" <")[0] for block in html.split("<h3>")[1:]] == ["shoes", "lamps"]
    assert "Categories, each with" in html
