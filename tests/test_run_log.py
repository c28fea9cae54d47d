"""`run` under cron: a log, a status, a lock; no terminal, no HOME, no PATH, hardly an environment."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adstool.run_log import LIMIT, NAME, last_run, logged
from adstool.workspace import Workspace


def lines_of(ws: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ws.logs / NAME).read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="an empty environment starts no program on Windows")
def test_run_needs_no_terminal_and_no_environment_and_keeps_the_umask(shop_copy: Workspace) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adstool", "--workspace", shop_copy.root, "run", "--only", "report"],
        cwd="/",
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        umask=0o027,
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    (report,) = shop_copy.reports.glob("*.html")
    for made in (report, shop_copy.logs / NAME):
        assert stat.S_IMODE(made.stat().st_mode) == 0o640, made
    assert [line["event"] for line in lines_of(shop_copy)] == ["begin", "stage", "end"]
    assert last_run(shop_copy)["done"] == ["report"]  # type: ignore[index]


def test_status_says_how_the_last_run_went(
    shop_copy: Workspace, verb_json: Callable[..., tuple[int, Any]]
) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = verb_json("status", cwd=shop_copy.root)[1]["last_run"]
        return found

    assert status() is None
    pointer = shop_copy.models / "engagement" / "current"
    run = pointer.read_text()
    pointer.unlink()
    code, said = verb_json("run", "--only", "calibrate", cwd=shop_copy.root)
    failed = status()
    assert code == 1
    assert (failed["result"], failed["stage"]) == ("failed", "calibrate engagement")
    assert failed["message"] == said["error"]["message"]
    pointer.write_text(run)
    verb_json("run", "--only", "calibrate", cwd=shop_copy.root)
    done = status()
    assert (done["result"], done["stage"], done["done"]) == ("done", None, ["calibrate engagement"])
    before = (shop_copy.logs / NAME).read_bytes()
    verb_json("run", "--only", "calibrate", "--dry-run", cwd=shop_copy.root)
    with shop_copy.lock():
        (shop_copy.config).write_text("[warehouse]\nlock_wait_seconds = 0.1\n")
        code, said = verb_json("run", cwd=shop_copy.root)
    assert (code, said["error"]["kind"]) == (1, "WorkspaceLocked")
    assert f"process {os.getpid()}" in said["error"]["message"]
    assert (shop_copy.logs / NAME).read_bytes() == before


def test_a_run_that_did_not_live_to_say_is_running_or_cut_off(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)

    def interrupted() -> None:
        with ws.lock(), logged(ws, ["embed", "index"]) as written:
            written.stage("embed", "fresh", "up to date", 0.0)
            assert last_run(ws)["result"] == "running"  # type: ignore[index]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    ended = last_run(ws)
    assert ended is not None
    assert (ended["result"], ended["stage"], ended["done"]) == ("interrupted", "index", [])
    with logged(ws, ["embed"]):
        kept = (ws.logs / NAME).read_text()
    (ws.logs / NAME).write_text(kept + '{"run": "cut by a full di')
    assert last_run(ws)["result"] == "cut off"  # type: ignore[index]
    with logged(ws, []):
        pass
    assert last_run(ws)["result"] == "done"  # type: ignore[index]


def test_the_log_is_bounded_and_a_log_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    for _ in range(3):
        with logged(ws, ["embed"]) as written:
            written.stage("embed", "done", "x" * (LIMIT + 1), 1.0)
    assert sorted(path.name for path in ws.logs.iterdir()) == [NAME, f"{NAME}.1"]
    assert len(lines_of(ws)) == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "logs").write_text("a file")
    with logged(Workspace(tmp_path / "other"), ["embed"]) as written:
        written.stage("embed", "done", "never done", 1.0)
