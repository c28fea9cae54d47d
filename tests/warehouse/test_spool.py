"""Rows put aside while the warehouse is taken: the next to open it takes them in, once, whatever happens."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from support import held_by_another

from adstool.config import Settings
from adstool.warehouse import open_warehouse, put_aside
from adstool.warehouse import spool as spooling
from adstool.workspace import Workspace

NOON = datetime(2026, 11, 11, 12)


@pytest.fixture
def made(tmp_path: Path, settings: Settings) -> Workspace:
    made = Workspace(tmp_path)
    with open_warehouse(made, settings):
        pass
    return made


def slots(*requests: str) -> dict[str, pa.Table]:
    """A candidate and a slot of each request."""
    common = {"request_id": list(requests), "ts": pa.array([NOON] * len(requests), pa.timestamp("us"))}
    return {
        "funnel": pa.table({**common, "stage": pa.array(["auction"] * len(requests)).dictionary_encode()}),
        "auctions": pa.table({**common, "cost": [0.5] * len(requests)}),
    }


def logged(ws: Workspace, settings: Settings) -> list[tuple[object, ...]]:
    with open_warehouse(ws, settings) as con:
        assert con.execute("select count(*) from spool_taken").fetchall() == [(0,)]
        sql = "select request_id, ts, stage, cost from funnel join auctions using (request_id, ts) order by 1"
        return con.execute(sql).fetchall()


def test_what_is_put_aside_is_taken_in_and_its_folder_goes(made: Workspace, settings: Settings) -> None:
    put_aside(made, slots("q1", "q2"))
    put_aside(made, slots("q3"))
    assert len(spooling.waiting(made)) == 2
    expected = [(name, NOON, "auction", 0.5) for name in ("q1", "q2", "q3")]
    assert logged(made, settings) == expected
    assert list(made.spool.iterdir()) == []
    assert logged(made, settings) == expected


def test_a_kill_before_the_folder_goes_brings_no_row_twice(
    made: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_aside(made, slots("q1"))
    (folder,) = spooling.waiting(made)

    def killed(path: Path) -> None:
        (path / "funnel.parquet").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(spooling.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt), open_warehouse(made, settings):
            pass
    assert spooling.waiting(made) == [folder]
    assert logged(made, settings) == [("q1", NOON, "auction", 0.5)]
    assert not folder.exists()


def test_a_killed_writing_leaves_nothing_that_is_taken_in(
    made: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "write_table", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        put_aside(made, slots("q1"))
    assert list(made.spool.iterdir()) == []
    killed = made.spool / ".00000000000000000001-aa.999999999.tmp"
    killed.mkdir()
    assert logged(made, settings) == []
    with made.lock():
        assert not killed.exists()


def test_a_damaged_folder_is_kept_named_and_in_nobodys_way(
    made: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    put_aside(made, slots("q1"))
    (folder,) = spooling.waiting(made)
    (folder / "funnel.parquet").write_bytes(b"PAR1 cut off")
    put_aside(made, slots("q2"))
    assert logged(made, settings) == [("q2", NOON, "auction", 0.5)]
    kept = made.spool / f"{folder.name}.damaged"
    assert str(kept) in caplog.text
    assert {path.name for path in kept.iterdir()} == {"funnel.parquet", "auctions.parquet"}
    caplog.clear()
    assert logged(made, settings) == [("q2", NOON, "auction", 0.5)]
    assert caplog.text == ""


def test_a_reader_takes_them_in_unless_another_reads(made: Workspace, settings: Settings) -> None:
    put_aside(made, slots("q1"))
    with (
        held_by_another(made.warehouse, "duckdb.connect(path, read_only=True)"),
        open_warehouse(made, settings, read_only=True) as con,
    ):
        assert con.execute("select count(*) from auctions").fetchall() == [(0,)]
        (rows,) = spooling.waiting_rows(con, made, "auctions")
        assert rows["cost"].to_pylist() == [0.5]
    with open_warehouse(made, settings, read_only=True) as con:
        assert con.execute("select count(*) from auctions").fetchall() == [(1,)]
        assert list(spooling.waiting_rows(con, made, "auctions")) == []
