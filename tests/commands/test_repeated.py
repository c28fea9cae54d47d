"""Every verb can be repeated, and ends with the exit code that says how: one table each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support import run_cli

from adstool.workspace import Workspace

LOADED = ("users", "pins", "advertisers", "campaigns", "ads", "events", "conversions", "rejects")
DERIVED = ("interests", "interest_sums", "enrichments")


def state(ws: Workspace) -> dict[str, Any]:
    """What stands in a workspace: settings, rows whatever their order, and of every model what is in use."""
    found: dict[str, Any] = {"settings": ws.config.read_bytes()}
    with duckdb.connect(str(ws.warehouse), read_only=True) as con:
        for table in (*LOADED, *DERIVED):
            query = f"select count(*), sum(hash(t)) from {table} t"
            found[table] = con.execute(query).fetchall()
    for folder in sorted(ws.models.iterdir()):
        run = ws.current_run(folder.name)
        assert run is not None
        for name in ("model.safetensors", "calibration.json", "codebooks.safetensors", "two_tower.npy"):
            if (run / name).is_file():
                found[f"{folder.name} {name}"] = (run / name).read_bytes()
    return found


def test_a_verb_done_twice_leaves_what_it_left_the_first_time(
    shop: Workspace, shop_copy: Workspace, verb_json: Callable[..., tuple[int, Any]]
) -> None:
    world = str(shop.root.parent / "world")
    for words in (
        ("init", "."),
        ("sample", "../world", "--users", "50", "--ads", "30", "--pins", "30", "--days", "3"),
        ("ingest", world),
        ("interests", "--refresh"),
        ("train", "semantic"),
        ("train", "retrieval", "--epochs", "1"),
        ("calibrate", "engagement"),
        ("evaluate", "retrieval"),
        ("report", "-o", "report.html"),
        ("run", "--only", "interests"),
    ):
        left = []
        for _ in range(2):
            code, payload = verb_json(*words, cwd=shop_copy.root)
            assert code == 0, f"{words}: {payload}"
            left.append(state(shop_copy))
        changed = [name for name in left[0] if left[0][name] != left[1].get(name)]
        assert not changed, f"{words} twice: {changed}"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("init", "new"), 0),
        (("status",), 1),
        (("init", "--nonsense"), 2),
        (("evaluate", "ope", "--log", "thin.csv", "--reward", "r", "--propensity", "p", "--target", "t"), 3),
    ],
)
def test_exit_codes(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    rows = "".join(f"{n % 2},0.5,{1.0 if n < 3 else 0.0}\n" for n in range(300))
    (tmp_path / "thin.csv").write_text("r,p,t\n" + rows)
    done = run_cli("--json", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is a signal of POSIX")
def test_an_interrupted_verb_is_exit_130_without_a_traceback(tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    command = [sys.executable, "-m", "adstool", "--json", "ingest", "-", "--table", "users"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # It waits for rows once the warehouse is made.
        while not (tmp_path / "warehouse.duckdb").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert '"kind": "Interrupted"' in said
    assert "Traceback" not in complaint
