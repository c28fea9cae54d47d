"""`adstool serve` as a process: the same slates as a Ranker, the log written at the end, no torch."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import run_cli

from adstool.config import Settings
from adstool.funnel.rank import Ranker
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


@contextmanager
def serving(ws: Workspace, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port."""
    command = [sys.executable, "-m", "adstool", "--json", "--workspace", str(ws.root), "serve", "--port", "0"]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found, said
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_server_from_start_to_end(shop_copy: Workspace, settings: Settings) -> None:
    users = ["u1", "u2", "nobody"]
    with serving(shop_copy) as (process, port):
        slates = []
        for user in users:
            status, text = ask(port, "POST", "/rank", {"user_id": user, "request_id": f"r-{user}"})
            assert status == 200
            slates.append(json.loads(text))
        assert json.loads(ask(port, "GET", "/readyz")[1])["runs"]["engagement"] == "r1"
        assert 'adstool_requests_total{route="/rank",status="200"} 3.0' in ask(port, "GET", "/metrics")[1]
        if Path("/proc").is_dir():
            mapped = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
            assert "onnxruntime" in mapped
            assert "libtorch" not in mapped
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    done = json.loads(out)
    assert (done["answered"], done["refused"], done["slates"]) == (5, 0, 3)
    with open_warehouse(shop_copy, settings) as con:
        logged = dict(con.execute("select request_id, count(*) from funnel group by 1").fetchall())
    assert sum(logged.values()) == done["log_rows"]
    assert set(logged) == {f"r-{user}" for user in users}
    ranker = Ranker(shop_copy, settings)
    for user, slate in zip(users, slates, strict=True):
        expected = ranker.rank({"user_id": user, "request_id": f"r-{user}"})
        assert slate.keys() == expected.keys()
        for key in slate.keys() - {"latency_ms"}:
            assert slate[key] == expected[key], (user, key)


def test_the_log_waits_for_the_warehouse(shop_copy: Workspace, settings: Settings) -> None:
    with serving(shop_copy) as (process, port):
        with shop_copy.lock(0.0):
            assert ask(port, "POST", "/rank", {"user_id": "u1"})[0] == 200
            process.send_signal(signal.SIGINT)
            time.sleep(1.0)
            assert process.poll() is None  # it waits to write the log
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out)["log_rows"] > 0


def test_a_second_signal_ends_at_once(shop_copy: Workspace) -> None:
    with serving(shop_copy) as (process, port), shop_copy.lock(0.0):
        assert ask(port, "POST", "/rank", {"user_id": "u1"})[0] == 200
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=2) == 130


def test_what_cannot_be_served_is_said(shop_copy: Workspace, tmp_path: Path) -> None:
    assert run_cli("init", tmp_path / "empty").returncode == 0
    done = run_cli("--workspace", tmp_path / "empty", "serve", "--port", "0")
    assert (done.returncode, "adstool index" in done.stderr) == (1, True)
    done = run_cli("--workspace", shop_copy.root, "serve", "--port", "0", "--token-env", "NO_SUCH_TOKEN")
    assert (done.returncode, "NO_SUCH_TOKEN" in done.stderr) == (2, True)


def test_a_missing_extra_names_itself(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import adstool.commands as c;"
    code += f"sys.exit(c._run(['--workspace', {str(shop.root)!r}, 'serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, "adstool[serve]" in done.stderr) == (1, True), done.stderr
