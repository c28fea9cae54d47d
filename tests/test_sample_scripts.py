"""The scripts of sample_data/: a nightly pipeline and an incremental Makefile, over a finished demo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data"
KEPT = "[engagement.heads.click]\nauc = { min = 0.5 }\n"
REFUSED = {"event_id": "x", "ts": "yesterday", "user_id": "u1", "item_type": "ad", "action": "click"}

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs bash and GNU make")


def call(
    *words: str | Path, cwd: Path, adstool: str = f"{sys.executable} -m adstool"
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ADSTOOL": adstool}
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_a_night_and_then_make_which_does_only_what_changed(demo_copy: Path, tmp_path: Path) -> None:
    """A reject changes no model, so the night has little to do; make then redoes what its inputs ask for."""
    inbox, outbox = tmp_path / "inbox", tmp_path / "outbox"
    (inbox / "monday").mkdir(parents=True)
    (inbox / "monday" / "events.jsonl").write_text(json.dumps(REFUSED) + "\n")
    (inbox / "requests.jsonl").write_text('{"user_id": "u1", "k": 3}\n{"user_id": "new"}\n')
    gate = tmp_path / "gate.toml"
    gate.write_text(KEPT)
    night = (SAMPLE / "nightly.sh", demo_copy, inbox, outbox, gate)
    done = call(*night, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    slates = [json.loads(line) for line in (outbox / "slates.jsonl").read_text().splitlines()]
    assert [slate["user_id"] for slate in slates] == ["u1", "new"]
    assert (outbox / "report.html").stat().st_size > 50_000
    assert "ingest monday" in done.stdout
    (inbox / "requests.jsonl").write_text('{"user_id": "u2"}\n')
    made = ("make", "-f", SAMPLE / "pipeline.mk", f"WORKSPACE={demo_copy}", f"INBOX={inbox}", f"GATE={gate}")
    first = call(*made, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert json.loads((demo_copy / "slates.jsonl").read_text())["user_id"] == "u2"

    def would_do() -> list[str]:
        lines = call(*made, "-n", cwd=tmp_path).stdout.splitlines()
        verbs = ("ingest", "run", "evaluate", "rank", "report")
        return [verb for line in lines for verb in verbs if f"--quiet {verb}" in line]

    assert would_do() == []
    (inbox / "requests.jsonl").write_text('{"user_id": "u3"}\n')
    later = (demo_copy / "slates.jsonl").stat().st_mtime + 5
    os.utime(inbox / "requests.jsonl", (later, later))
    assert would_do() == ["rank"]
    os.utime(inbox / "monday" / "events.jsonl", (later, later))
    assert would_do() == ["ingest", "run", "evaluate", "rank", "report"]


@pytest.mark.parametrize(
    ("verb", "code", "left"), [("run", 1, "run"), ("evaluate", 3, "report"), ("rank", 1, "rank")]
)
def test_a_night_ends_with_the_code_of_what_failed(tmp_path: Path, verb: str, code: int, left: str) -> None:
    """adstool is stood in for by a script that fails at one verb: this is the night's own logic."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "requests.jsonl").write_text("{}\n")
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "slates.jsonl").write_text("of the night before\n")
    stub = tmp_path / "stub.sh"
    stub.write_text(f'echo "$4" >> {tmp_path}/asked\n[ "$4" != {verb} ] || exit {code}\n')
    night = (SAMPLE / "nightly.sh", "shop", "inbox", "outbox", "gate.toml")
    done = call(*night, cwd=tmp_path, adstool=f"bash {stub}")
    assert done.returncode == code, done.stdout + done.stderr
    assert (tmp_path / "asked").read_text().split()[-1] == left
    assert (tmp_path / "outbox" / "slates.jsonl").read_text() == "of the night before\n"
