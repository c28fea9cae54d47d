"""What doctor finds of the data and of a whole workspace: each problem is made, finding and mend seen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from findings import is_fault, is_fit, is_odd, of
from support import held_by_another

from adstool.config import Action, Settings
from adstool.doctor import data, examine
from adstool.doctor.finding import Check, guarded
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

Patch = pytest.MonkeyPatch


def filled(ws: Workspace, *statements: str) -> None:
    with open_warehouse(ws, Settings()) as con:
        for statement in statements:
            con.execute(statement)


def data_of(ws: Workspace, settings: Settings | None = None) -> dict[str, Check]:
    checks = guarded("warehouse", lambda: data.data_checks(ws, settings or Settings()))
    return {check.name: check for check in checks}


EVENT = "insert into events (event_id, ts, user_id, item_type, item_id, action) "


def test_a_warehouse_of_another_schema(ws: Workspace) -> None:
    filled(ws, "insert into schema_version values (99, now()::timestamp)")
    is_fault(data_of(ws)["warehouse"], "newer adstool (schema 99", "Install the newer")
    with duckdb.connect(str(ws.warehouse)) as con:
        con.execute("update schema_version set version = 1")
    before = ws.warehouse.read_bytes()
    is_odd(data_of(ws)["warehouse"], "schema 1, of an older adstool", "adstool status")
    assert ws.warehouse.read_bytes() == before


def test_a_damaged_warehouse(ws: Workspace) -> None:
    ws.warehouse.write_bytes(b"no database" * 1000)
    is_fault(data_of(ws)["warehouse"], "cannot be opened", "ingest the files again")


def test_a_warehouse_that_another_process_holds(ws: Workspace) -> None:
    filled(ws)
    with held_by_another(ws.warehouse, "duckdb.connect(path)") as holder:
        is_odd(data_of(ws)["warehouse"], f"in use by process {holder}", "stop it")


def test_rejects_and_unknown_items_above_a_share(ws: Workspace) -> None:
    filled(
        ws,
        EVENT + "select 'e' || i, now()::timestamp, 'u', 'ad', 'a', 'click' from range(10) r(i)",
        "insert into rejects (table_name, file, line, reason, row) "
        "select 'events', 'f', i, 'r', '{}' from range(5) r(i)",
    )
    found = data_of(ws)
    is_fault(found["rejects"], "5 rows refused, 33% of all", "adstool rejects")
    is_fault(found["items"], "10 of 10 events", "catalogues")
    filled(ws, "insert into ads (ad_id, campaign_id) values ('a', 'c')", "delete from rejects")
    is_fit(data_of(ws)["rejects"])
    is_fit(data_of(ws)["items"])


def test_events_of_the_future(ws: Workspace) -> None:
    at = (datetime.now(UTC) + timedelta(days=400)).strftime("%Y-%m-%d")
    filled(ws, EVENT + f"values ('e', timestamp '{at}', 'u', 'ad', 'a', 'click')")
    is_fault(data_of(ws)["times"], f"1 events are of the future, up to {at}", "clock")


def test_pictures_missing_or_outside(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "real.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    for picture, problem in (
        (tmp_path / "gone.png", "is missing"),
        (tmp_path / "link.png", "leads elsewhere"),
    ):
        filled(ws, f"insert into ads (ad_id, campaign_id, image) values ('a', 'c', '{picture}')")
        is_fault(data_of(ws)["pictures"], problem, "--images DIR")
        filled(ws, "delete from ads")
    filled(ws, f"insert into ads (ad_id, campaign_id, image) values ('a', 'c', '{tmp_path / 'real.png'}')")
    is_fit(data_of(ws)["pictures"])


def test_actions_never_or_seldom_seen(ws: Workspace) -> None:
    filled(ws, EVENT + "select 'e' || i, now()::timestamp, 'u', 'ad', 'a', 'click' from range(9) r(i)")
    is_odd(data_of(ws)["actions"], "no event has the action long_click, save, hide", "[[actions]]")
    seldom = Settings(actions=(Action("click"),))
    is_odd(data_of(ws, seldom)["actions"], "click (9)", "longer log")


def test_conversions_that_no_click_came_before(ws: Workspace) -> None:
    filled(
        ws,
        "insert into campaigns (campaign_id, advertiser_id) values ('c', 'v')",
        "insert into ads (ad_id, campaign_id) values ('a', 'c')",
        EVENT + "values ('e', timestamp '2026-01-01', 'u1', 'ad', 'a', 'click')",
        "insert into conversions (conversion_id, ts, user_id, advertiser_id, kind) "
        "values ('x', timestamp '2026-01-02', 'User-1', 'v', 'purchase')",
    )
    is_odd(data_of(ws)["conversions"], "0 of 1", "user_id and advertiser_id")
    filled(ws, "update conversions set user_id = 'u1'")
    is_fit(data_of(ws)["conversions"])
    filled(ws, "update conversions set ts = timestamp '2026-03-01'")
    is_odd(data_of(ws)["conversions"], "0 of 1", "user_id")


def test_a_whole_workspace_is_fit_and_nothing_is_written(shop_copy: Workspace, monkeypatch: Patch) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in shop_copy.root.rglob("*") if path.name != ".lock"}

    before = state()
    checks = examine(shop_copy.root)
    assert [check for check in checks if not check.ok] == []
    assert {"warehouse", "vectors", "index", "model engagement", "pictures"} <= {
        check.name for check in checks
    }
    assert state() == before
    assert {key for check in checks for key in check.to_json()} == {"name", "ok", "found", "mend"}
    json.dumps([check.to_json() for check in checks])


def test_a_workspace_named_but_absent_is_a_fault(tmp_path: Path) -> None:
    is_fault(of("workspace", examine(tmp_path / "nowhere")), "not a workspace", "adstool init")
