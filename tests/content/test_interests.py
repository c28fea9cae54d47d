"""Interests against the same computed one event at a time, and what must hold whatever the numbers."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from content.interest_logs import CATEGORIES, START, add_events, brute_force, changed, fill
from support import cli_json, run_cli

from adstool.config import Action, Settings
from adstool.content import interests
from adstool.content.interest_kinds import semantic_prefixes
from adstool.content.interest_views import user_interests
from adstool.content.interests import load_catalogue, refresh, snapshot, stale
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

END = START + timedelta(days=15)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse file with a small random log; do not change it, copy it."""
    ws = Workspace(tmp_path_factory.mktemp("filled"))
    with open_warehouse(ws, Settings()) as opened:
        opened.execute("begin")
        fill(opened)
        opened.execute("commit")
    return ws.warehouse


@pytest.fixture
def con(filled: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse of one's own with a small random log."""
    shutil.copy(filled, tmp_path)
    (tmp_path / "adstool.toml").write_text("", encoding="utf-8")
    with open_warehouse(Workspace(tmp_path), Settings()) as opened:
        yield opened


def micros(moment) -> int:  # type: ignore[no-untyped-def]
    return int((moment - START.replace(year=1970, month=1, day=1)) / timedelta(microseconds=1))


def at(con: duckdb.DuckDBPyConnection, settings: Settings, moment) -> dict[tuple[str, str], float]:  # type: ignore[no-untyped-def]
    with snapshot(con, settings, micros(moment)) as found:
        rows = found.interests.select(["user_id", "value", "weight"]).to_pylist()
    return {(row["user_id"], row["value"]): row["weight"] for row in rows}


def stored(con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return con.execute(
        "select user_id, kind, level, value, weight, lift, certainty, last_ts, len(evidence) from interests"
        " order by user_id, kind, level, value"
    ).fetchall()


def same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    """Equal rows; weights but for the order in which numbers were added."""
    assert len(found) == len(wanted) > 30
    for one, other in zip(found, wanted, strict=True):
        assert one[:4] + one[7:] == other[:4] + other[7:]
        assert one[4:7] == pytest.approx(other[4:7], rel=1e-9)


def build(con: duckdb.DuckDBPyConnection, settings: Settings, tmp_path: Path, **how: bool):  # type: ignore[no-untyped-def]
    return refresh(con, settings, load_catalogue(Workspace(tmp_path), settings, con), **how)


@pytest.mark.parametrize(
    "values",
    [{}, {"offsite": False}, {"profile": False}, {"half_life_days": 2.0, "power": 1.0, "prior": 3.0}],
)
@pytest.mark.parametrize("days", [5.5, 15])
def test_weights_are_those_of_one_event_at_a_time(
    con: duckdb.DuckDBPyConnection, values: dict[str, object], days: float
) -> None:
    settings, moment = changed(Settings(), **values), START + timedelta(days=days)
    wanted = brute_force(con, settings, moment)
    found = at(con, settings, moment)
    assert len(wanted) > 30
    assert found == {key: pytest.approx(value, rel=1e-9, abs=1e-12) for key, value in wanted.items()}


def test_a_click_a_half_life_old_counts_half(con: duckdb.DuckDBPyConnection) -> None:
    # One click on a lamp now and one on a bag 14 days ago, no prior: 1 / (1 + .5) and .5 / (1 + .5).
    for table in ("events", "conversions"):
        con.execute(f"delete from {table}")
    for item, ts in (("i0", END), ("i1", END - timedelta(days=14))):
        con.execute(
            "insert into events (event_id, ts, user_id, item_type, item_id, action)"
            " values (?, ?, 'u0', 'ad', ?, 'click')",
            [item, ts, item],
        )
    found = at(con, changed(Settings(), prior=1e-12), END + timedelta(microseconds=1))
    assert found == {("u0", "lamps"): pytest.approx(2 / 3), ("u0", "bags"): pytest.approx(1 / 3)}


def test_nothing_from_the_moment_on_is_seen(con: duckdb.DuckDBPyConnection) -> None:
    moment = START + timedelta(days=7)
    before = at(con, Settings(), moment)
    con.execute("delete from events where ts >= $cut", {"cut": moment})
    con.execute("delete from conversions where coalesce(reported_at, ts) >= $cut", {"cut": moment})
    assert at(con, Settings(), moment) == {key: pytest.approx(w, rel=1e-12) for key, w in before.items()}


def test_a_hide_lowers_its_category_and_no_other(con: duckdb.DuckDBPyConnection) -> None:
    before = at(con, Settings(), END)
    con.execute(
        "insert into events (event_id, ts, user_id, item_type, item_id, action)"
        " values ('h', $ts, 'u1', 'ad', 'i0', 'hide')",
        {"ts": END - timedelta(hours=1)},
    )
    after = at(con, Settings(), END)
    assert after["u1", "lamps"] < before["u1", "lamps"] - 0.01
    for key in before:
        if key != ("u1", "lamps"):
            assert after[key] == pytest.approx(before[key], rel=1e-9)


def test_an_unwanted_action_counts_against_whatever_the_sign_of_its_weight(
    con: duckdb.DuckDBPyConnection,
) -> None:
    def with_hide(weight: float) -> Settings:
        actions = (Action("click"), Action("hide", weight=weight, positive=False))
        return dataclasses.replace(Settings(), actions=actions)

    against = at(con, with_hide(-4.0), END)
    assert at(con, with_hide(4.0), END) == {key: pytest.approx(w, rel=1e-9) for key, w in against.items()}


def test_without_off_site_data_conversions_change_nothing(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    private = changed(Settings(), offsite=False)
    build(con, private, tmp_path)
    before = stored(con)
    sources = "select distinct source from interest_sums"
    assert {row[0] for row in con.execute(sources).fetchall()} == {"on_site", "query"}
    con.execute("update conversions set advertiser_id = 'a1', user_id = 'stranger'")
    build(con, private, tmp_path, full=True)
    same(stored(con), before)
    build(con, Settings(), tmp_path)
    assert "offsite_online" in {row[0] for row in con.execute(sources).fetchall()}


def test_adding_up_what_is_new_equals_adding_up_everything(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    build(con, Settings(), tmp_path)
    random = np.random.default_rng(9)
    add_events(con, random, 5, 40, first=5000)  # u0 to u2 only; older and newer than what is known
    con.execute("delete from events where user_id = 'u3'")
    con.execute("delete from conversions where user_id = 'u3'")
    con.execute("insert into files values ('new', 'x', 'events', 40, 40, 0, 0, now()::timestamp)")
    done = build(con, Settings(), tmp_path)
    assert done.recomputed == 4
    incremental = stored(con)
    whole = build(con, Settings(), tmp_path, full=True)
    assert whole.recomputed == whole.users == 9
    same(incremental, stored(con))


def test_parts_of_the_users_together_are_the_whole(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> list[tuple[Any, ...]]:
        refresh(con, Settings(), load_catalogue(Workspace(tmp_path), Settings(), con), full=True)
        return stored(con)

    whole = made()
    monkeypatch.setattr(interests, "PART_ROWS", 40)
    same(made(), whole)


def test_what_is_up_to_date_is_left_alone(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    settings = Settings()
    assert stale(con, settings) == "never made"
    assert build(con, settings, tmp_path).reason == "never made"
    assert stale(con, settings) == ""
    assert build(con, settings, tmp_path).recomputed == 0
    assert stale(con, changed(settings, query=3.0)) == "the settings changed"
    other = build(con, changed(settings, query=3.0), tmp_path)  # weighs again, adds nothing up
    assert (other.recomputed, stale(con, changed(settings, query=3.0))) == (0, "")
    con.execute("update ads set category = 'bags' where ad_id = 'i0'")
    assert build(con, changed(settings, query=3.0), tmp_path).recomputed > 5


def test_contributions_sum_to_the_weight_and_name_their_source(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    build(con, Settings(), tmp_path)
    found = user_interests(con, "u0", limit=100)
    categories = [one for one in found if one["kind"] == "category"]
    assert [one["value"] for one in found if one["kind"] == "topic" and one["level"] == 0]
    for one in found:
        assert sum(part["contribution"] for part in one["evidence"]) == pytest.approx(one["weight"])
    sources = {part["source"] for one in categories for part in one["evidence"]}
    assert sources >= {"on_site", "query", "offsite_online", "profile"}
    click = "select count(*), max(ts) from events join ads on ads.ad_id = events.item_id and item_type = 'ad'"
    click += " where user_id = 'u0' and action = 'save' and ads.category = 'bags'"
    pins = click.replace("ads on ads.ad_id", "pins on pins.pin_id").replace("'ad'", "'pin'")
    pins = pins.replace("ads.category", "pins.category")
    both = [con.execute(sql).fetchall()[0] for sql in (click, pins)]
    (bags,) = [one for one in categories if one["value"] == "bags"]
    (saves,) = [part for part in bags["evidence"] if part["action"] == "save"]
    assert saves["count"] == sum(count for count, _ in both)
    assert saves["last_seen"] == f"{max(ts for _, ts in both if ts):%Y-%m-%dT%H:%M:%SZ}"


def test_a_user_who_did_nothing_wants_what_his_like_want(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    build(con, Settings(), tmp_path)
    found = [one for one in user_interests(con, "u11", limit=100) if one["kind"] == "category"]
    assert sum(one["weight"] for one in found) == pytest.approx(1.0)
    assert {one["certainty"] for one in found} == {0.0}


def test_semantic_ids_are_a_kind_like_any_other(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    # Codes that say the category at the first level and the item at the second; pins have no ids.
    ads = con.execute("select ad_id, category from ads order by ad_id").fetchall()
    codes = np.array([(CATEGORIES.index(category), place, 7) for place, (_, category) in enumerate(ads)])
    codes[0] = -1
    table = semantic_prefixes("ad", [ad for ad, _ in ads], codes)
    assert table.num_rows == 2 * 15
    catalogue = dataclasses.replace(load_catalogue(Workspace(tmp_path), Settings(), con), semantic=table)
    con.execute("delete from events where item_type = 'pin' or item_id = $item", {"item": ads[0][0]})
    con.execute("delete from conversions")
    con.execute("delete from events where query is not null")
    refresh(con, Settings(), catalogue)
    rows = con.execute(
        "select user_id, kind, value, weight from interests"
        " where level = 0 and kind in ('category', 'semantic')"
    ).fetchall()
    weights = {(user, kind, value): weight for user, kind, value, weight in rows}
    assert len(weights) > 40
    for (user, kind, value), weight in weights.items():
        if kind == "category":
            code = str(CATEGORIES.index(value))
            assert weights[user, "semantic", code] == pytest.approx(weight, rel=1e-9)
    deep = con.execute(
        "select distinct value from interests where kind = 'semantic' and level = 1"
    ).fetchall()
    assert all(value.count("-") == 1 for (value,) in deep)


def test_the_verb_shows_users_and_refuses_strangers(filled: Path, tmp_path: Path) -> None:
    shutil.copy(filled, tmp_path)
    (tmp_path / "adstool.toml").write_text("", encoding="utf-8")
    done = cli_json("--workspace", tmp_path, "interests", "u1", "--limit", "2")
    assert [one["kind"] for one in done["interests"]][:2] == ["category", "category"]
    assert (done["offsite"], done["stale"], done["refresh"]["reason"]) == (True, "", "never made")
    refused = run_cli("--workspace", tmp_path, "interests", "nobody")
    assert refused.returncode == 1
    assert "'nobody'" in refused.stderr
    env = {"ADSTOOL_INTERESTS_OFFSITE": "false"}
    shown = run_cli("--workspace", tmp_path, "interests", "--refresh", env=env)
    assert shown.returncode == 0, shown.stderr
    assert "on-site only" in shown.stdout
    assert "kites" in shown.stdout
