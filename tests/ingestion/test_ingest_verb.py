"""`adstool ingest` and `adstool rejects` as processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import cli_json, run_cli

EVENT = {"event_id": "e1", "ts": 1_760_000_000, "user_id": "u", "item_type": "ad", "action": "click"}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "adstool.toml").write_text("")
    return root


def test_files_for_people_and_their_rejects(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    events = tmp_path / "export" / "events-1.jsonl"
    bad = {**EVENT, "event_id": "e2", "propensity": 1.7}
    events.write_text("\n".join([json.dumps(EVENT), json.dumps(bad), json.dumps(EVENT)]))
    (tmp_path / "export" / "users.csv").write_text("user_id,country\nu,de\n")
    done = run_cli("--workspace", workspace, "ingest", tmp_path / "export")
    assert done.returncode == 0, done.stderr
    assert "events   3 read   1 new   1 duplicate   1 rejected" in done.stdout
    assert "users    1 read   1 new   0 duplicate   0 rejected" in done.stdout
    assert "rows/s" in done.stdout
    assert "adstool rejects --table events" in done.stdout
    found = cli_json("--workspace", workspace, "rejects", "--table", "events", "--limit", "5")
    assert found["count"] == 1
    assert found["rows"][0]["file"] == str(events)
    assert found["rows"][0]["line"] == 2
    assert found["rows"][0]["reason"] == 'propensity "1.7" is not a number above 0 and at most 1'
    assert json.loads(found["rows"][0]["row"]) == bad
    shown = run_cli("--workspace", workspace, "rejects")
    assert "1 of 1 refused rows" in shown.stdout
    assert cli_json("--workspace", workspace, "rejects", "--table", "users") == {"count": 0, "rows": []}


def test_standard_input_is_sniffed_and_the_json_has_its_keys(workspace: Path) -> None:
    text = json.dumps({**{k: v for k, v in EVENT.items() if k != "user_id"}, "uid": "x"})
    found = cli_json(
        "--workspace", workspace, "ingest", "-", "--table", "events", "--map", "uid=user_id", stdin=text
    )
    assert found["tables"] == {
        "events": {"read": 1, "inserted": 1, "duplicate": 0, "rejected": 0, "updated": 0}
    }
    assert found["seconds"] > 0
    again = cli_json("--workspace", workspace, "ingest", "-", "--table", "users", stdin="user_id,age\nu9,5\n")
    assert again["tables"]["users"]["inserted"] == 1
    assert not (workspace / "cache").exists()


def test_a_dry_run_counts_across_files_and_writes_nothing(workspace: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "events-1.jsonl", tmp_path / "events-2.jsonl"
    one.write_text(json.dumps(EVENT) + "\n{")
    two.write_text(json.dumps(EVENT) + "\n" + json.dumps({**EVENT, "event_id": "e2"}))
    before = sorted(workspace.iterdir())
    found = cli_json("--workspace", workspace, "ingest", one, two, "--dry-run")
    assert found["dry_run"] is True
    assert found["tables"]["events"] == {
        "read": 4, "inserted": 2, "duplicate": 1, "rejected": 1, "updated": 0
    }  # fmt: skip
    assert sorted(workspace.iterdir()) == before
    cli_json("--workspace", workspace, "ingest", one)
    held = (workspace / "warehouse.duckdb").read_bytes()
    found = cli_json("--workspace", workspace, "ingest", one, two, "--dry-run")
    assert found["tables"]["events"]["inserted"] == 1
    assert (workspace / "warehouse.duckdb").read_bytes() == held


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ingest", "nowhere.jsonl"], 1, "nowhere.jsonl does not exist"),
        (["ingest", "log.jsonl"], 2, "--table"),
        (["ingest", "log.jsonl", "--table", "events", "--map", "uid"], 2, "not column=field"),
        (["ingest", "log.jsonl", "--table", "events"], 1, "--map uid=user_id"),
        (["ingest", "log.jsonl", "--source", "netflix"], 2, "Use one of: movielens, open-bandit, sequences"),
        (["ingest", "log.jsonl", "--table", "events", "--on-error", "panic"], 2, "quarantine or abort"),
        (["ingest", "log.jsonl", "--table", "events", "--images", "nowhere"], 2, "not a folder"),
        (["ingest", "broken.parquet", "--table", "events"], 1, "broken.parquet is damaged"),
        (["rejects"], 1, "holds no data yet"),
    ],
)
def test_one_clear_message(workspace: Path, words: list[str], code: int, said: str) -> None:
    row = {("uid" if key == "user_id" else key): value for key, value in EVENT.items()}
    (workspace / "log.jsonl").write_text(json.dumps(row))
    (workspace / "broken.parquet").write_bytes(b"PAR1 and nothing PAR1")
    done = run_cli(*words, cwd=workspace)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
