"""Helpers of the tests: running adstool as a user does, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas import check_output

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def run_cli(
    *words: str | Path, cwd: Path | None = None, stdin: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `adstool WORDS` as a process; stdout and stderr come back as text.

    What it prints with --json is held to its schema.
    """
    done = subprocess.run(
        [sys.executable, "-m", "adstool", *map(str, words)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=600,
    )
    if "--json" in words:
        check_output([str(word) for word in words], done.stdout, done.returncode)
    return done


def cli_json(*words: str | Path, cwd: Path | None = None, stdin: str | None = None) -> Any:
    """The JSON object that `adstool --json WORDS` prints; fails with its stderr when it exits non-zero."""
    done = run_cli("--json", *words, cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def held_by_another(path: Path, what: str) -> Iterator[int]:
    """Another process, by its id, holds `what` of `path` until the block ends: "duckdb.connect(path)"."""
    script = (
        "import sys, duckdb; from pathlib import Path; from adstool.workspace import Workspace\n"
        f"path = Path(sys.argv[1])\nwith {what}: print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
        holder.communicate()
