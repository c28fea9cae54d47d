"""`adstool serve` as a process: the same slates as a Ranker, the log written at the end, no torch."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import run_cli

from adstool.config import Settings, load_settings
from adstool.content.search import search_items
from adstool.funnel.rank import Ranker
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data" / "world" / "images"


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


def ask(
    port: int, method: str, path: str, body: Any = None, kind: str = "application/json"
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    content = body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def assert_no_torch(pid: int) -> None:
    """The process has mapped the library of onnxruntime, and none of torch's."""
    if sys.platform == "linux":
        mapped = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        assert "onnxruntime" in mapped
        assert "libtorch" not in mapped


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
        assert_no_torch(process.pid)
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


def test_the_log_is_put_aside_while_another_writes(shop_copy: Workspace, settings: Settings) -> None:
    with serving(shop_copy) as (process, port), shop_copy.lock(0.0):
        assert ask(port, "POST", "/rank", {"user_id": "u1"})[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert len(list(shop_copy.spool.iterdir())) == 1
    with open_warehouse(shop_copy, settings) as con:
        assert con.execute("select count(*) from funnel").fetchall() == [(json.loads(out)["log_rows"],)]


def test_a_second_signal_ends_at_once(shop_copy: Workspace) -> None:
    head = b"POST /rank HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with (
        serving(shop_copy, "--deadline-ms", "20000") as (process, port),
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow.sendall(head)  # and no body, for which the first signal waits
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=2) == 130


def test_search_is_of_a_process_of_its_own(demo: Path) -> None:
    ws = Workspace(demo)
    settings = load_settings(ws.config, environment={})
    picture = SAMPLE / "a352.png"
    with serving(ws, "--search", "--deadline-ms", "20000") as (process, port):
        for _ in range(300):
            status, text = ask(port, "POST", "/search", {"text": "red lamp", "k": 5, "in": "ads"})
            if status != 503:
                break
            time.sleep(0.2)
        assert status == 200, text
        by_text = json.loads(text)["results"]
        path = "/search?k=1&in=ads"
        by_picture = json.loads(ask(port, "POST", path, picture.read_bytes(), "image/png")[1])["results"]
        status, text = ask(port, "POST", path, b"junk", "image/png")
        assert (status, "is none of JPEG, PNG" in text) == (400, True)
        assert_no_torch(process.pid)
    with open_warehouse(ws, settings, read_only=True) as con:
        hits = search_items(ws, settings, con, text="red lamp", kinds=("ad",), k=5)
    assert [hit["item_id"] for hit in by_text] == [hit.item_id for hit in hits]
    assert [hit["score"] for hit in by_text] == pytest.approx([hit.score for hit in hits], abs=1e-4)
    assert by_picture[0]["item_id"] == picture.stem


def test_what_cannot_be_served_is_said(shop_copy: Workspace) -> None:
    (shop_copy.models / "index" / "current").unlink()
    words = ("--workspace", shop_copy.root, "serve", "--port", "0")
    done = run_cli(*words)
    assert (done.returncode, "adstool index" in done.stderr) == (1, True)
    done = run_cli(*words, "--token-env", "NO_SUCH_TOKEN")
    assert (done.returncode, "NO_SUCH_TOKEN" in done.stderr) == (2, True)


def test_a_missing_extra_names_itself(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import adstool.commands as c;"
    code += f"sys.exit(c._run(['--workspace', {str(shop.root)!r}, 'serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, "adstool[serve]" in done.stderr) == (1, True), done.stderr
