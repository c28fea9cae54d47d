"""A load that is killed, locked out or repeated ends in the same state as one left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support import cli_json, held_by_another, run_cli

ROWS = 60_000


def write_world(folder: Path) -> None:
    folder.mkdir()
    for part in (1, 2, 3):
        with open(folder / f"events-{part}.jsonl", "w") as handle:
            for number in range(ROWS):
                handle.write(
                    json.dumps(
                        {
                            "event_id": f"{part}-{number % (ROWS - 100)}",
                            "ts": 1_760_000_000 + number,
                            "user_id": f"u{number % 997}",
                            "item_type": "ad",
                            "item_id": f"a{number % 211}",
                            "action": "impression",
                            "position": -1 if number % 500 == 7 else number % 9,
                            "shade": "red" if part == 2 else None,
                        }
                    )
                    + "\n"
                )


def state(workspace: Path) -> list[Any]:
    with duckdb.connect(str(workspace / "warehouse.duckdb"), read_only=True) as con:
        return [
            con.execute(
                "select count(*), count(distinct event_id), bit_xor(hash(events)) from events"
            ).fetchall(),
            con.execute("select file, line, reason, row from rejects order by all").fetchall(),
            con.execute(
                "select fingerprint, path, read, inserted, duplicate, rejected from files order by 1"
            ).fetchall(),
        ]


def start(workspace: Path, files: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "adstool", "--workspace", str(workspace), "--quiet", "ingest", str(files)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_ingest_run_again_gives_the_state_of_an_undisturbed_one(tmp_path: Path) -> None:
    files = tmp_path / "files"
    write_world(files)
    for name in ("calm", "killed"):
        assert run_cli("init", tmp_path / name).returncode == 0
    calm = start(tmp_path / "calm", files)
    began = time.monotonic()
    assert calm.wait() == 0
    whole = time.monotonic() - began
    expected = state(tmp_path / "calm")
    assert expected[0][0][0] == 3 * (ROWS - 100 - 119)  # of 120 refused keys one comes again, sound
    killed = tmp_path / "killed"
    interrupted = 0
    for share in (0.35, 0.5, 0.7):
        process = start(killed, files)
        time.sleep(whole * share)
        process.kill()
        interrupted += process.wait() == -9
    assert interrupted, "every run was over before it was killed"
    assert start(killed, files).wait() == 0
    assert state(killed) == expected
    assert not (killed / "cache").exists()


def test_a_second_writer_waits_and_then_says_who_holds_the_workspace(tmp_path: Path) -> None:
    workspace = tmp_path / "shop"
    assert run_cli("init", workspace).returncode == 0
    path = tmp_path / "users.csv"
    path.write_text("user_id\nu1\n")
    with held_by_another(workspace, "Workspace(path).lock()") as holder:
        refused = run_cli(
            "--workspace", workspace, "ingest", path, env={"ADSTOOL_WAREHOUSE_LOCK_WAIT_SECONDS": "0.3"}
        )
    assert refused.returncode == 1
    assert f"process {holder}" in refused.stderr
    found = cli_json("--workspace", workspace, "ingest", path)
    assert found["tables"]["users"]["inserted"] == 1


@pytest.mark.parametrize("moment", ["ingest_file", "ingest_log_repeats"])
def test_an_error_inside_the_transaction_leaves_nothing_behind(
    shop: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from adstool.ingestion import load

    path = shop.ws.root / "events.jsonl"
    row = {"event_id": "e", "ts": 1, "user_id": "u", "item_type": "ad", "action": "click"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "event_id": "f", "position": -1}))
    true_sql = load.load_sql

    def failing(name: str) -> str:
        if name == moment:
            raise KeyboardInterrupt
        return true_sql(name)

    with monkeypatch.context() as patched:
        patched.setattr(load, "load_sql", failing)
        with pytest.raises(KeyboardInterrupt):
            shop.ingest(path)
    nothing = (
        "select (select count(*) from events), (select count(*) from rejects), (select count(*) from files)"
    )
    assert shop.rows(nothing) == [(0, 0, 0)]
    assert shop.counts(path) == {"events": (2, 1, 0, 1)}
