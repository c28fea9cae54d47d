"""embed and search run as users run them; embed killed in the middle goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from support import cli_json, run_cli

from adstool.content.vectors import load_vectors

Shop = Any


def test_embed_killed_in_the_middle_ends_as_if_undisturbed(shop: Shop) -> None:
    shop.fill(160)
    shop.con.close()
    words = ["--workspace", str(shop.ws.root), "--json", "embed", "ads", "--batch-size", "1"]
    process = subprocess.Popen([sys.executable, "-m", "adstool", *words], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while len(list(shop.ws.vectors.glob("*.lance/_versions/*"))) < 4 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert load_vectors(shop.ws, "ad")[0] == []  # not put to use before it is whole
    done = cli_json(*words)
    assert done["skipped"] > 0
    assert done["embedded"] > 0
    assert done["embedded"] + done["skipped"] == 160
    resumed = load_vectors(shop.ws, "ad")
    again = cli_json(*words)
    assert (again["embedded"], again["skipped"], again["failed"]) == (0, 160, 0)
    undisturbed = _undisturbed(shop, words)
    assert resumed[0] == undisturbed[0] == sorted(f"ad{number:03d}" for number in range(160))
    np.testing.assert_allclose(resumed[1], undisturbed[1], atol=1e-6)


def _undisturbed(shop: Shop, words: list[str]) -> tuple[list[str], np.ndarray]:
    """The vectors of the same catalogue embedded in one go."""
    shop.ws.vectors.rename(shop.ws.root / "old")
    assert cli_json(*words)["embedded"] == 160
    return load_vectors(shop.ws, "ad")


def test_embed_then_search_by_text_and_picture(shop: Shop, tmp_path: Path) -> None:
    shop.fill(12)
    shop.fill(12, "pin")
    (shop.images / "ad5.png").write_bytes(b"damaged")
    shop.con.close()
    at = ("--workspace", shop.ws.root)
    done = run_cli(*at, "embed")
    assert done.returncode == 0, done.stderr
    assert "23 embedded, 0 unchanged, 1 failed" in done.stdout
    assert "ad005" in done.stdout
    assert "Next: adstool search" in done.stdout
    found = cli_json(*at, "search", "--image", shop.images / "pin7.png", "-k", "4")["results"]
    assert len(found) == 4
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert all(hit["title"] and -1 <= hit["score"] <= 1.0001 for hit in found)
    pins = json.loads(run_cli(*at, "--json", "search", "red lamp", "--in", "pins", "-k", "50").stdout)[
        "results"
    ]
    assert {hit["item_id"] for hit in pins} == {f"pin{number:03d}" for number in range(12)}
    wrong = run_cli(*at, "search", "--image", shop.images / "ad5.png")
    assert wrong.returncode == 1
    assert "ad5.png is none of JPEG" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_wrong_usage_exits_with_2(shop: Shop) -> None:
    shop.con.close()
    for words in (["embed", "everything"], ["search", "red", "--in", "users"]):
        refused = run_cli("--workspace", shop.ws.root, *words)
        assert refused.returncode == 2
        assert "try:" in refused.stderr
