"""`adstool index` and `adstool rank` as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import cli_json, run_cli

from adstool.commands.rank import FLUSH_SECONDS
from adstool.config import Settings
from adstool.funnel.sources import SOURCES
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def test_index_makes_a_new_run(shop_copy: Workspace) -> None:
    result = cli_json("--workspace", shop_copy.root, "index")
    assert result["rows"] == 60
    assert set(result["sources"]) == set(SOURCES) - {"sequence"}  # no users' vectors were trained
    assert result["semantic"] == "r1"
    assert result["sources"]["semantic"] == {"rows": 60, "index": "scan"}
    assert result["seconds"] > 0
    run = shop_copy.current_run("index")
    assert run is not None
    assert run.name == "r2"


def test_index_without_towers_names_the_verb(shop_copy: Workspace) -> None:
    (shop_copy.models / "retrieval" / "current").unlink()
    done = run_cli("--workspace", shop_copy.root, "index")
    assert done.returncode == 1
    assert "adstool train retrieval" in done.stderr


def test_a_stream_is_answered_line_by_line_and_logged(shop_copy: Workspace, settings: Settings) -> None:
    """Every slate is there before the next request is asked; a bad line is named and the rest is served."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "adstool",
            "--workspace",
            str(shop_copy.root),
            "rank",
            "--requests",
            "-",
            "-k",
            "2",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in (1, 2):
        process.stdin.write(json.dumps({"user_id": f"u{number}", "request_id": f"q{number}"}) + "\n")
        process.stdin.flush()
        slate = json.loads(process.stdout.readline())
        assert (slate["request_id"], len(slate["ads"])) == (f"q{number}", 2)
    rest = '{"user_id": \n\n{"user_id": "somebody new", "k": 3, "ts": null}\n'
    out, error = process.communicate(rest, timeout=120)
    assert process.returncode == 1
    assert len(json.loads(out)["ads"]) == 3
    assert json.loads(error.splitlines()[0])["line"] == 3
    assert "1 request could not be read" in error
    with open_warehouse(shop_copy, settings, read_only=True) as con:
        logged = con.execute("select count(distinct request_id), count(*) from funnel").fetchall()[0]
        sold = con.execute("select request_id, count(*) from auctions group by 1 order by 2, 1").fetchall()
    assert logged[0] == 3
    assert logged[1] > 3 * 40
    assert [count for _, count in sold] == [2, 2, 3]


def test_a_held_workspace_costs_neither_the_slate_nor_the_log(shop_copy: Workspace) -> None:
    with shop_copy.lock(5):
        done = run_cli("--json", "--workspace", shop_copy.root, "rank", "--user", "u1")
        assert len(list(shop_copy.spool.iterdir())) == 1
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["ads"]) == 5
    counted = "select count(distinct request_id) as requests, count(*) > 40 as whole from funnel"
    read = run_cli("--json", "--workspace", shop_copy.root, "sql", counted)
    assert json.loads(read.stdout)["rows"] == [{"requests": 1, "whole": True}]
    assert list(shop_copy.spool.iterdir()) == []


def test_a_killed_stream_has_logged_what_it_printed_seconds_before(
    shop_copy: Workspace, settings: Settings
) -> None:
    words = [sys.executable, "-m", "adstool", "--quiet", "--workspace", str(shop_copy.root)]
    words += ["rank", "--requests", "-"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2, 3):
            process.stdin.write(json.dumps({"user_id": f"u{number}", "request_id": f"q{number}"}) + "\n")
            process.stdin.flush()
            process.stdout.readline()
            if number == 1:
                time.sleep(FLUSH_SECONDS)
        process.kill()
    with open_warehouse(shop_copy, settings, read_only=True) as con:
        logged = con.execute("select distinct request_id from funnel order by 1").fetchall()
    assert logged[:2] == [("q1",), ("q2",)]


def test_people_get_a_table(shop_copy: Workspace) -> None:
    done = run_cli("--workspace", shop_copy.root, "rank", "--user", "u1", "-k", "3", "--explain")
    assert done.returncode == 0, done.stderr
    assert "why" in done.stdout
    assert "candidates -> 20 -> 3" in done.stdout


def test_requests_from_a_file_and_wrong_usage(shop_copy: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"user_id": "u1"}\n{"user_id": "u2"}')
    done = run_cli("--workspace", shop_copy.root, "rank", "--requests", file)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["user_id"] for line in done.stdout.splitlines()] == ["u1", "u2"]
    for words in (
        (),
        ("--user", "u1", "--requests", "-"),
        ("--user", "u1", "--at", "soon"),
        ("--user", "u1", "-k", "0"),
    ):
        assert run_cli("--workspace", shop_copy.root, "rank", *words).returncode == 2, words
    missing = run_cli("--workspace", shop_copy.root, "rank", "--requests", tmp_path / "none.jsonl")
    assert missing.returncode == 1
    assert "none.jsonl" in missing.stderr


def test_ranking_imports_neither_torch_nor_lancedb(shop_copy: Workspace) -> None:
    words = ["--json", "--workspace", str(shop_copy.root), "rank", "--user", "u1"]
    code = f"import sys; import adstool.commands as c; code = c._run({words!r});"
    code += "print(code, [m for m in ('torch', 'lancedb', 'open_clip', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_multiplies_by_as_many_threads_as_the_models(shop_copy: Workspace, threads: int) -> None:
    words = ["--quiet", "--workspace", str(shop_copy.root), "rank", "--user", "u1"]
    code = f"import threadpoolctl, adstool.commands as c; c._run({words!r});"
    code += "print(*(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))"
    given = {"ADSTOOL_FUNNEL_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **given}, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.splitlines()[-1].split()) <= {str(threads)}  # Apple's library has no number


def test_a_past_moment_from_the_command_line(shop_copy: Workspace, settings: Settings) -> None:
    with open_warehouse(shop_copy, settings, read_only=True) as con:
        last = con.execute("select max(ts) - interval 2 day from events").fetchall()[0][0]
    started = time.perf_counter()
    slate = cli_json("--workspace", shop_copy.root, "rank", "--user", "u1", "--at", last.isoformat())
    assert len(slate["ads"]) == 5
    with open_warehouse(shop_copy, settings, read_only=True) as con:
        assert con.execute("select distinct ts from funnel").fetchall() == [(last,)]
    assert slate["latency_ms"]["total"] < (time.perf_counter() - started) * 1000
