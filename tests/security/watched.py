"""Runs verbs in one process that is watched: python watched.py COMMANDS.json RESULT.json

COMMANDS is a list of lists of words. RESULT holds, a command: exit code, stdout, stderr; and what was seen:
connections asked for, processes started, files opened for writing, removed or renamed, classes unpickled.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

seen: dict[str, list[str]] = {"network": [], "process": [], "write": [], "pickle": []}
NETWORK = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"}
PROCESS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
RELATIVE = {"os.remove", "os.rmdir"}  # their last argument may be the descriptor of a folder
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Keep what matters of an audit event (PEP 578)."""
    if event in NETWORK:
        seen["network"].append(f"{event} {arguments!r}")
    elif event in PROCESS:
        seen["process"].append(f"{event} {arguments!r}")
    elif event == "pickle.find_class":
        seen["pickle"].append(repr(arguments))
    elif event in CHANGES:
        places = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        if any(isinstance(place, int) and place > 0 for place in arguments[1:] if event in RELATIVE):
            return  # a name below a folder that was opened, as shutil.rmtree does: that is seen by itself
        seen["write"] += [os.path.abspath(os.fsdecode(p)) for p in places if isinstance(p, str | bytes)]
    elif event == "open" and isinstance(arguments[0], str | bytes):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & WRITING:
            seen["write"].append(os.path.abspath(os.fsdecode(arguments[0])))


def run(words: list[str]) -> dict[str, Any]:
    """One command in this process, with what it printed."""
    from adstool.commands import main

    out, error = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    return {"words": words, "code": code, "out": out.getvalue(), "error": error.getvalue()}


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.addaudithook(watch)
    ran = [run(words) for words in commands]
    found = {name: sorted(set(values)) for name, values in seen.items()}
    Path(sys.argv[2]).write_text(json.dumps({"ran": ran, "seen": found}), encoding="utf-8")
