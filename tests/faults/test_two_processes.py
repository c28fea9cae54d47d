"""Two processes on one workspace: both results are there at the end, or one is told who is at work."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from faults import state
from faults.harness import Verbs

from adstool.workspace import Workspace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the harness forks")


def together(verbs: Verbs, root: Path, *lines: list[str | Path]) -> list[str]:
    """Run verbs at once and let all of them end well; what each printed."""
    started = [verbs.start(words, root) for words in lines]
    answers = []
    for pid, (out, err) in started:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == 0, err.read_text()
        answers.append(out.read_text())
    return answers


def test_two_ingests_at_once_bring_both_files(tmp_path: Path) -> None:
    verbs, root = Verbs(tmp_path / "printed"), tmp_path / "workspace"
    root.mkdir()
    (root / "adstool.toml").write_text("")
    event = {"ts": "2026-11-11T10:00:00Z", "user_id": "u1", "item_type": "ad", "item_id": "a1", "action": "x"}
    for name, first in (("events-1.jsonl", 0), ("events-2.jsonl", 500)):
        rows = [json.dumps({**event, "event_id": f"e{first + i}"}) for i in range(1000)]
        (tmp_path / name).write_text("\n".join(rows))
    together(verbs, root, *(["ingest", tmp_path / name] for name in ("events-1.jsonl", "events-2.jsonl")))
    assert state.rows_of(root)["events"] == 1500
    assert state.rows_of(root)["files"] == 2


def test_two_streams_of_rank_log_every_request(shop_copy: Workspace, tmp_path: Path) -> None:
    verbs = Verbs(tmp_path / "printed")
    before = state.rows_of(shop_copy.root)["auctions"]
    for name in ("a", "b"):
        rows = [json.dumps({"user_id": f"u{i}", "request_id": f"{name}{i}"}) for i in range(10)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    words = (["rank", "--requests", tmp_path / f"{name}.jsonl"] for name in ("a", "b"))
    answers = together(verbs, shop_copy.root, *words)
    slates = [json.loads(line) for answer in answers for line in answer.splitlines()]
    assert len(slates) == 20
    sold = sum(len(slate["ads"]) for slate in slates)
    assert state.rows_of(shop_copy.root)["auctions"] == before + sold > before


def test_a_reader_waits_for_a_writer_or_is_told_who_it_is(shop_copy: Workspace, tmp_path: Path) -> None:
    script = (
        "import duckdb, time; con = duckdb.connect('warehouse.duckdb'); open('held', 'w'); time.sleep(60)"
    )
    pid = os.fork()
    if not pid:
        os.chdir(shop_copy.root)
        os.execv(sys.executable, [sys.executable, "-c", script])
    try:
        while not (shop_copy.root / "held").exists():
            time.sleep(0.01)
        short = Verbs(tmp_path / "printed", environment={"ADSTOOL_WAREHOUSE_LOCK_WAIT_SECONDS": "0.2"})
        done = short.run(["sql", "select 1"], shop_copy.root)
        assert done.code == 1
        assert f"process {pid}" in done.err
        waiting, printed = Verbs(tmp_path / "printed").start(["sql", "select 1"], shop_copy.root)
        time.sleep(0.5)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(waiting, 0)[1]) == 0, printed[1].read_text()


def test_others_read_while_a_model_trains(shop_copy: Workspace, tmp_path: Path) -> None:
    verbs = Verbs(tmp_path / "printed", environment={"ADSTOOL_WAREHOUSE_LOCK_WAIT_SECONDS": "0.5"})
    words = ["train", "engagement", "--epochs", "500", "--set", "patience=500"]
    training, (_, notes) = verbs.start(words, shop_copy.root)
    try:
        deadline = time.monotonic() + 60
        while not (shop_copy.models / "engagement" / ".partial").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for words in (["status"], ["sql", "select 1"], ["run", "--dry-run"], ["rejects"]):
            done = verbs.run(words, shop_copy.root)
            assert done.code == 0, done.err
        assert os.waitpid(training, os.WNOHANG) == (0, 0), notes.read_text()  # it trained all the while
    finally:
        os.kill(training, 9)
        os.waitpid(training, 0)
