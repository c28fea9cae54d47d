"""The hostile shop through every verb, in one process that is watched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from security import hostile

from adstool.workspace import Workspace

WATCHED = Path(__file__).with_name("watched.py")
USER = hostile.attacked("u22")
STRANGER = hostile.ATTACKS[3]  # a user that nobody has heard of, with a name for a file system


def verbs(data: Path) -> list[list[str]]:
    """The commands, in order."""
    surface, query = hostile.ATTACKS[4], hostile.ATTACKS[1]
    asked = [["rank", "--user", USER], ["rank", "--user", STRANGER, "--surface", surface, "--query", query]]
    return [
        ["ingest", str(data)],
        ["rejects"],
        ["sql", "select * from ads limit 9"],
        ["embed"],
        ["search", f"{hostile.ATTACKS[0]} red guitar"],
        ["interests", "--refresh"],
        ["interests", USER],
        ["enrich", "--with", "clip"],
        *(["train", model, "--epochs", "1"] for model in ("retrieval", "lightweight", "engagement")),
        ["train", "conversion", "--epochs", "1"],
        ["calibrate", "engagement"],
        ["index"],
        *([*words, "--explain"] for words in asked),
        *([*words, "--json"] for words in asked),
        ["evaluate"],
        ["report"],
        *([verb] for verb in ("models", "config", "doctor", "status")),
        ["status", "--json"],
    ]


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    ws: Workspace
    folder: Path  # holds data, shop, and what a process may take for its own: home, tmp, cwd
    rows: dict[str, int]  # by table, as written
    ran: list[dict[str, Any]]  # words, code, out, error
    seen: dict[str, list[str]]  # what watched.py saw
    connections: int  # to the proxy that all traffic would have gone through

    def said(self, *words: str) -> str:
        """Stdout of the first command that begins with these words (after --workspace DIR)."""
        return next(str(one["out"]) for one in self.ran if one["words"][2 : 2 + len(words)] == list(words))


def run_hostile(folder: Path) -> Ran:
    """Make the shop of hostile.py below `folder` and run every verb on it."""
    rows = hostile.write_data(folder)
    shop = folder / "shop"
    shop.mkdir()
    (shop / "adstool.toml").write_text(hostile.settings(), encoding="utf-8")
    for name in ("home", "tmp", "cwd"):
        (folder / name).mkdir()
    commands = [["--workspace", str(shop), *words] for words in verbs(folder / "data")]
    (folder / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        process = [sys.executable, str(WATCHED), str(folder / "commands.json"), str(folder / "ran.json")]
        environment = _environment(folder, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        done = subprocess.run(
            process, cwd=folder / "cwd", env=environment, capture_output=True, text=True, timeout=300
        )
        connections = _waiting(proxy)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "ran.json").read_text(encoding="utf-8"))
    return Ran(Workspace(shop), folder, rows, found["ran"], found["seen"], connections)


def _environment(folder: Path, proxy: str) -> dict[str, str]:
    homes = {name: str(folder / "home") for name in ("HOME", "USERPROFILE")}
    homes |= {name: str(folder / "tmp") for name in ("TMPDIR", "TMP", "TEMP")}
    proxies = {f"{scheme}_proxy": proxy for scheme in ("http", "https", "all")}
    proxies |= {name.upper(): value for name, value in proxies.items()}
    left_out = ("XDG_", "HF_", "TORCH", "ADSTOOL_", "NO_PROXY", "no_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, **homes, **proxies, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


def _waiting(proxy: socket.socket) -> int:
    """How many connections wait to be accepted."""
    count = 0
    while True:
        try:
            proxy.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
