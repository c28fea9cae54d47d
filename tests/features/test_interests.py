"""Interests as serving reads them, against the table that the batch leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from adstool.config import Settings
from adstool.content.interest_views import user_interests
from adstool.content.interests import FOREVER, load_catalogue, refresh
from adstool.errors import AdstoolError
from adstool.features.interests import UserInterests
from adstool.features.items import build_items
from adstool.features.state import ServingState
from adstool.features.users import UserTable
from adstool.warehouse import load_sql, open_warehouse
from adstool.workspace import Workspace


def test_serving_reads_what_the_batch_says(shop: Workspace, settings: Settings, tmp_path: Path) -> None:
    shutil.copy(shop.warehouse, tmp_path)
    copy = Workspace(tmp_path)
    with open_warehouse(copy, settings) as con:
        refresh(con, settings, load_catalogue(copy, settings, con))
        items = build_items(con, {})
        names, categories = items.categories[1], {c: i for i, c in enumerate(items.categories[1])}
        table = UserTable(con.sql(load_sql("features_users"), params={"until": FOREVER}).to_arrow_table())
        built = UserInterests.build(con, settings, table, names, FOREVER)
        built.save(tmp_path)
        loaded = UserInterests.load(tmp_path)
        assert len(table) == 120
        for number, user in enumerate(table.column("user_id").to_pylist()):
            wanted = np.zeros(len(names))
            for one in user_interests(con, user, limit=1000):
                if one["kind"] == "category":
                    wanted[categories[one["value"]]] = one["weight"]
            assert loaded.of(number) == pytest.approx(wanted, abs=1e-6)
        popular = con.execute("select distinct value, popular from interest_priors where kind = 'category'")
        for value, share in popular.fetchall():
            assert loaded.of(-1)[categories[value]] == pytest.approx(share, abs=1e-6)


def test_a_logged_query_has_the_intents_of_clip_and_any_other_its_words(
    shop: Workspace, settings: Settings, tmp_path: Path
) -> None:
    shutil.copy(shop.warehouse, tmp_path)
    with open_warehouse(Workspace(tmp_path), settings) as con:
        items = build_items(con, {})
        names = items.categories[1]
        paths = dict(
            con.execute(f"select category, topic from ({load_sql('interests_default_topics')})").fetchall()
        )
        con.executemany(
            "insert into query_intents values ('m', 'What  to SIT on', ?, ?)",
            [(paths[names[0]], 0.75), (paths[names[1]], 0.25)],
        )
        table = UserTable(con.sql(load_sql("features_users"), params={"until": FOREVER}).to_arrow_table())
        built = UserInterests.build(con, settings, table, names, FOREVER)
    words = items.category_words
    read = built.of_query("what to sit on", words)
    assert read is not None
    assert read[:2].tolist() == pytest.approx([0.75, 0.25])
    assert read[2:].sum() == 0
    by_words = built.of_query(names[3], words)
    assert by_words is not None
    assert (int(by_words.argmax()), float(by_words.sum())) == (3, pytest.approx(1.0))
    assert built.of_query("xyzzy", words) is None
    assert built.of_query(None, words) is None


def test_nothing_done_leaves_all_categories_alike(tmp_path: Path) -> None:
    with open_warehouse(Workspace(tmp_path), Settings()) as con:
        con.execute("insert into users (user_id) values ('u')")
        con.execute("insert into pins (pin_id, category) values ('a', 'x'), ('b', 'y')")
        table = UserTable(con.sql(load_sql("features_users"), params={"until": FOREVER}).to_arrow_table())
        built = UserInterests.build(con, Settings(), table, ["x", "y"], FOREVER)
    assert built.of(0).tolist() == built.of(-1).tolist() == [0.5, 0.5]


def test_missing_interests_are_told(tmp_path: Path) -> None:
    with pytest.raises(AdstoolError, match="holds no interests"):
        UserInterests.load(tmp_path)


def test_recent_categories_are_the_decayed_engagements(shop: Workspace, settings: Settings) -> None:
    state = ServingState.load(shop.current_run("index") / "state")  # type: ignore[operator]
    half_life = min(state.spec.half_lives)
    later = state.as_of + 3_600_000_000 * 12
    checked = 0
    for number, user in enumerate(state.users.column("user_id").to_pylist()[:60]):
        places = slice(int(state.engagements.offsets[number]), int(state.engagements.offsets[number + 1]))
        wanted = np.zeros(len(state.items.categories[1]))
        for item, ts in zip(state.engagements.item[places], state.engagements.ts[places], strict=True):
            days = (later - int(ts)) / 86_400_000_000
            wanted[state.items.categories[0][item]] += 2 ** (-days / half_life)
        assert state.recent_categories(state.request(user, later)) == pytest.approx(
            wanted, rel=1e-3, abs=1e-5
        )
        checked += wanted.any()
    assert checked > 10
    assert not state.recent_categories(state.request("stranger")).any()
