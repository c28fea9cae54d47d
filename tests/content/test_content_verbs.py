"""embed and search run as users run them; embed killed in the middle goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from support import run_cli

from adstool.content.embedding import embed_items
from adstool.content.vectors import load_vectors
from adstool.warehouse import open_warehouse

Shop = Any


def test_embed_killed_in_the_middle_goes_on_and_search_finds(shop: Shop) -> None:
    shop.fill(160)
    (shop.images / "ad5.png").write_bytes(b"damaged")
    shop.con.close()
    words = ["--workspace", str(shop.ws.root), "embed", "ads", "--batch-size", "1"]
    process = subprocess.Popen([sys.executable, "-m", "adstool", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list(shop.ws.vectors.glob("*.lance/_versions/*"))) < 4 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert load_vectors(shop.ws, "ad")[0] == []  # not put to use before it is whole
    ended = run_cli("--json", *words)
    assert ended.returncode == 1  # for the damaged picture, after all else is done
    assert "1 picture cannot be used, the first: ad005" in ended.stderr
    done = json.loads(ended.stdout)
    assert done["skipped"] > 0
    assert done["embedded"] > 0
    assert done["embedded"] + done["skipped"] + done["failed"] == 160
    assert [failure["item_id"] for failure in done["failures"]] == ["ad005"]
    assert done["items_per_second"] > 0
    assert done["dim"] == 16
    resumed = load_vectors(shop.ws, "ad")
    undisturbed = _undisturbed(shop)
    assert resumed[0] == undisturbed[0] == sorted(f"ad{number:03d}" for number in range(160))
    np.testing.assert_allclose(resumed[1], undisturbed[1], atol=1e-6)
    shown = run_cli("--workspace", shop.ws.root, "search", "red lamp", "-k", "4")
    assert shown.returncode == 0, shown.stderr
    assert len([line for line in shown.stdout.splitlines() if line.strip().startswith("ad")]) == 4
    assert "number" in shown.stdout
    assert "Next: adstool" in shown.stdout


def _undisturbed(shop: Shop) -> tuple[list[str], np.ndarray]:
    """The vectors of the same catalogue embedded in one go."""
    shop.ws.vectors.rename(shop.ws.root / "old")
    with open_warehouse(shop.ws, shop.settings, read_only=True) as con:
        again = embed_items(shop.ws, shop.settings, con, ["ad"])
        assert (again.embedded, again.failed) == (159, 1)
        assert embed_items(shop.ws, shop.settings, con, ["ad"]).skipped == 159
    return load_vectors(shop.ws, "ad")


def test_wrong_use_is_told_without_a_traceback(shop: Shop) -> None:
    shop.con.close()
    for words in (["embed", "everything"], ["search", "red", "--in", "users"]):
        refused = run_cli("--workspace", shop.ws.root, *words)
        assert refused.returncode == 2
        assert "try:" in refused.stderr
    nothing = run_cli("--workspace", shop.ws.root, "embed")
    assert nothing.returncode == 1
    assert "holds no ad or pin" in nothing.stderr
    assert "Traceback" not in nothing.stderr
