"""Every command of the tutorial runs, in order, in one fresh folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "sample_data" / "TUTORIAL.md"


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_tutorial(tmp_path: Path) -> None:
    adstool = f'"{sys.executable}" -m adstool'
    folder = tmp_path
    listed = commands()
    assert len(listed) > 25
    for line in listed:
        if line.startswith("cd "):
            folder = folder / line[3:]
            continue
        script = f'adstool() {{ {adstool} "$@"; }}\n{line}'
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ADSTOOL_")}
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, capture_output=True, text=True, env=environment
        )
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        if "mine.csv --table" in line:
            assert done.returncode == 1, f"{line}\n{done.stderr}"
            assert "event_id" in done.stderr
            continue
        assert done.returncode == 0, f"{line}\n{done.stderr}\n{done.stdout}"
        if line == "adstool run" and listed.index(line) != len(listed) - 1 and (folder / "ran").exists():
            assert "nothing was done" in done.stdout
        if line == "adstool run":
            (folder / "ran").touch()
    assert "<script src" not in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "report.html").stat().st_size > 50_000
