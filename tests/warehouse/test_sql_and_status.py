"""`adstool sql` and `adstool status` as processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import cli_json, run_cli

from adstool.config import load_settings
from adstool.errors import AdstoolError, UsageError
from adstool.warehouse import open_warehouse
from adstool.warehouse.readonly import Answer, locked_down
from adstool.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "adstool.toml").write_text("")
    with open_warehouse(Workspace(root), load_settings(None, environment={})) as con:
        con.execute(
            "insert into users (user_id, signup_at) values ('u1', '2026-01-02 03:04:05'), ('u2', null)"
        )
        con.execute("insert into ads (ad_id, campaign_id) values ('a1', 'c1')")
        con.execute("insert into pins (pin_id) values ('p1')")
        con.executemany(
            "insert into events (event_id, ts, user_id, item_type, item_id, action)"
            " values (?, '2026-01-01', 'u1', ?, ?, 'click')",
            [
                ("e1", "ad", "a1"),
                ("e2", "ad", "p1"),  # the one orphan: p1 is a pin
                ("e3", "pin", "p1"),
                ("e4", "query", "q"),
                ("e5", "pin", None),
            ],
        )
        con.execute(
            "insert into conversions (conversion_id, ts, user_id, advertiser_id, kind)"
            " values ('c1', '2026-01-01', 'u1', 'v1', 'buy')"
        )
    return root


def test_rows_as_json_and_as_a_table(workspace: Path) -> None:
    query = "select user_id, signup_at, 'nan'::double as x, [1, 2] as list from users order by 1"
    assert cli_json("--workspace", workspace, "sql", query)["rows"] == [
        {"user_id": "u1", "signup_at": "2026-01-02T03:04:05", "x": None, "list": [1, 2]},
        {"user_id": "u2", "signup_at": None, "x": None, "list": [1, 2]},
    ]
    shown = run_cli("--workspace", workspace, "sql", query)
    assert "u2" in shown.stdout
    assert "2 rows." in shown.stdout


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_output_to_a_file(workspace: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    (tmp_path / f".{target.name}.999999999.tmp").write_text("of a killed writer")
    with locked_down(Workspace(workspace), load_settings(None, environment={})) as con:
        answer = Answer(con, "select user_id, signup_at, {'a': [1]} as deep from users order by 1")
        assert answer.write(target) == 2
    if suffix == "csv":
        with open(target, newline="") as handle:
            rows = list(csv.DictReader(handle))
        assert [(r["user_id"], json.loads(r["deep"])) for r in rows] == [
            ("u1", {"a": [1]}),
            ("u2", {"a": [1]}),
        ]
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert rows[0] == {"user_id": "u1", "signup_at": "2026-01-02T03:04:05", "deep": {"a": [1]}}
    else:
        assert pq.read_table(target).to_pylist()[1] == {
            "user_id": "u2",
            "signup_at": None,
            "deep": {"a": [1]},
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, "shop"])


def test_the_output_option(workspace: Path, tmp_path: Path) -> None:
    target = tmp_path / "users.csv"
    found = cli_json("--workspace", workspace, "sql", "from users", "--output", target)
    assert found == {"rows": 2, "output": str(target)}
    refused = run_cli("--workspace", workspace, "sql", "from users", "-o", tmp_path / "users.xlsx")
    assert refused.returncode == 2
    assert ".parquet" in refused.stderr


@pytest.mark.parametrize(
    "query",
    [
        "insert into users (user_id) values ('x')",
        "delete from users",
        "drop table users",
        "create temp table t as select 1",
        "copy users to 'TARGET'",
        "export database 'TARGET'",
        "attach 'TARGET' as other",
        "select * from read_csv('SECRET')",
        "select * from 'SECRET'",
        "select * from read_text('SECRET')",
        "select * from glob('/*')",
        "set enable_external_access = true",
        "install httpfs",
        "load httpfs",
        "pragma enable_logging",
        "begin",
        "select 1; select 2",
        "",
        "selec 1",
        "select nobody from users",
        "select 1/0 + cast('x' as integer)",
        "select * from settings",
        "select $1",
    ],
)
def test_nothing_is_written_or_read_but_the_warehouse(workspace: Path, tmp_path: Path, query: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    before = (workspace / "warehouse.duckdb").read_bytes()
    settings = load_settings(None, environment={})  # a local that replacement scans could find
    words = query.replace("TARGET", str(tmp_path / "target")).replace("SECRET", str(secret))
    with (
        locked_down(Workspace(workspace), settings) as con,
        pytest.raises((AdstoolError, UsageError)) as refused,
    ):
        list(Answer(con, words).rows())
    assert refused.value.hint
    assert (workspace / "warehouse.duckdb").read_bytes() == before
    assert not (tmp_path / "target").exists()


def test_a_wrong_query_shows_what_the_database_says(workspace: Path) -> None:
    done = run_cli("--workspace", workspace, "sql", "select nobody from users")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_counts_rows_orphans_and_rejects(workspace: Path) -> None:
    found = cli_json("--workspace", workspace, "status")
    assert found["tables"]["users"] == 2
    assert found["tables"]["events"] == 5
    assert found["orphans"] == {"events": 1, "conversions": 1}
    assert found["rejects"] == 0
    assert found["vectors"] == {}
    assert found["models"] == {}
    assert found["stale"]
    shown = run_cli("--workspace", workspace, "status")
    assert "1 events are of an item that no catalogue knows" in shown.stdout


def test_status_of_an_empty_workspace_names_the_next_verb(tmp_path: Path) -> None:
    (tmp_path / "adstool.toml").write_text("")
    done = run_cli("status", cwd=tmp_path)
    assert done.returncode == 0
    assert "adstool ingest" in done.stdout
    assert not (tmp_path / "warehouse.duckdb").exists()
    refused = run_cli("sql", "select 1", cwd=tmp_path)
    assert refused.returncode == 1
    assert "holds no data yet" in refused.stderr
