"""Rule: secrets come from the environment alone, and are in no log, file, message, traceback or output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import run_cli

from adstool.config import load_settings
from adstool.errors import AdstoolError
from adstool.workspace import Workspace

KEY = "sk-live-0123456789abcdef/+="


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("llm", f'api_key_env = "{KEY}"'),
        ("serve", f'token_env = "{KEY}"'),
        ("llm", f'base_url = "https://user:{KEY}@host.example/v1"'),
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_repeated(
    tmp_path: Path, section: str, setting: str
) -> None:
    (tmp_path / "adstool.toml").write_text(f"[{section}]\n{setting}\n", encoding="utf-8")
    name, _, value = setting.partition(" = ")
    variable = {f"ADSTOOL_{section}_{name}".upper(): value.strip('"')}
    for path, environment in ((tmp_path / "adstool.toml", {}), (None, variable)):
        with pytest.raises(AdstoolError) as refused:
            load_settings(path, environment=environment)
        assert KEY not in refused.value.message + refused.value.hint
        assert f"{section}.{name}" in refused.value.message
    done = run_cli("--debug", "--workspace", tmp_path, "config")
    assert done.returncode == 1
    assert KEY not in done.stdout + done.stderr


def test_no_output_log_or_traceback_holds_a_key(tmp_path: Path) -> None:
    """The key is in the environment of every verb here; the endpoint cannot be reached."""
    text = (
        '[llm]\nmodel = "m"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "SHOP_KEY"\nmax_retries = 0\n'
    )
    (tmp_path / "adstool.toml").write_text(text + '[serve]\ntoken_env = "SHOP_KEY"\n', encoding="utf-8")
    (tmp_path / "ads.csv").write_text("ad_id,campaign_id,title\na1,c1,red shoe\n", encoding="utf-8")
    for words in (["ingest", "ads.csv"], ["enrich", "--with", "llm"], ["config"], ["doctor"], ["serve"]):
        given = {"SHOP_KEY": KEY, "ADSTOOL_SERVE_PORT": "0"}
        done = run_cli("--debug", "--verbose", *words, cwd=tmp_path, env=given)
        assert KEY not in done.stdout + done.stderr, words
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_a_server_asks_for_its_token_and_answers_nothing_that_a_page_could_run(
    shop_copy: Workspace,
) -> None:
    words = ["--workspace", str(shop_copy.root), "serve", "--port", "0", "--token-env", "SHOP_TOKEN"]
    process = subprocess.Popen(
        [sys.executable, "-m", "adstool", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SHOP_TOKEN": KEY},
    )
    assert process.stderr is not None
    address = ""
    while "Serving at" not in address:
        address = process.stderr.readline()
        assert address, "the server ended"
    base = address.split()[2].rstrip(";")
    try:
        for given in ("", "Bearer", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"bearer {KEY}", KEY, "Bearer é"):
            assert _ask(f"{base}/metrics", given)[0] == 401
        attack = "<script>alert(1)</script>"
        for path, body in (
            ("/rank", json.dumps({"user_id": attack}).encode()),
            ("/rank", attack.encode()),
            ("/rank", json.dumps({attack: 1}).encode()),
            (f"/{attack}", None),
            ("/metrics", None),
            ("/healthz", None),
        ):
            status, headers, text = _ask(base + urllib.request.pathname2url(path), f"Bearer {KEY}", body)
            assert status < 500
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["content-type"].split(";")[0] in ("application/json", "text/plain")
            assert KEY not in text + str(headers)
        assert _ask(f"{base}/rank", f"Bearer {KEY}", b"{" + b" " * 2_000_000 + b"}")[0] == 413
    finally:
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert KEY not in out + error


def _ask(url: str, token: str, body: bytes | None = None) -> tuple[int, dict[str, str], str]:
    headers = {"Authorization": token.encode().decode("latin-1"), "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode()
