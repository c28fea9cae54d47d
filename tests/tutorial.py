"""Tutorials as tests: their commands run in order in one folder, and must print what is shown.

In a tutorial, a ```console block holds commands (`$ `, continued by `> `), each with what it printed; a fence
with a file's name, such as ```toml adstool.toml, is a file that the reader writes: `[[entries]]` and the keys
of `[sections]` are put into an adstool.toml that is there, other files are written as they stand.
"""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "sample_data"
FENCE = re.compile(r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<head>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
# Before a block: what of it differs between machines.
NUMBERS, LINES = "numbers vary", "lines vary"
RELATIVE, ABSOLUTE = 0.15, 0.01  # what a decimal number may be off by: trainings differ a little by machine


@dataclass(frozen=True)
class Step:
    """A command with what it shows, or a file to write."""

    command: str = ""
    shown: tuple[str, ...] = ()
    vary: str = ""  # NUMBERS or LINES
    file: str = ""
    content: str = ""


def steps(text: str) -> Iterator[Step]:
    """What a tutorial has its reader do, in order."""
    for fence in FENCE.finditer(text):
        language, _, name = fence["head"].partition(" ")
        if language != "console":
            if name:
                yield Step(file=name, content=fence["body"])
            continue
        vary = (fence["note"] or "").partition(":")[0]
        for part in re.split(r"^\$ ", fence["body"], flags=re.M)[1:]:
            lines = part.rstrip("\n").split("\n")
            more = next((n for n, line in enumerate(lines[1:], 1) if not line.startswith("> ")), len(lines))
            command = "\n".join([lines[0], *(line[2:] for line in lines[1:more])])
            yield Step(command, tuple(lines[more:]), vary)


def difference(shown: tuple[str, ...], real: str, vary: str = "") -> str:
    """Empty where `real` matches what is shown, else the first shown line that nothing matches.

    Blank lines and the width of spaces and rules do not count. A line `...` stands for any lines, `...`
    within one for anything. Whole numbers must be equal, decimal ones nearly (RELATIVE, ABSOLUTE). With
    NUMBERS, a number stands for any, with LINES, a line with a digit for any one line.
    """
    wanted, lines = [_plain(line) for line in shown], [_plain(line) for line in real.splitlines()]
    wanted, lines = [line for line in wanted if line], [line for line in lines if line]
    furthest = 0
    reachable = {0}  # how many real lines the shown ones so far may have used up
    for number, line in enumerate(wanted):
        if line == "...":
            reachable = set(range(min(reachable), len(lines) + 1))
            continue
        reachable = {at + 1 for at in reachable if at < len(lines) and _alike(line, lines[at], vary)}
        if not reachable:
            return line
        furthest = number
    if len(lines) not in reachable:
        return f"(nothing more after {wanted[furthest]!r})" if wanted else "(nothing)"
    return ""


def _plain(line: str) -> str:
    return " ".join(re.sub("─+", "─", line).split())


def _alike(shown: str, real: str, vary: str) -> bool:
    if vary == LINES and re.search(r"\d", shown):
        return True
    pieces, numbers = [], []
    for piece in re.split(rf"(\.\.\.|{NUMBER.pattern})", shown):
        if piece == "...":
            pieces.append(".*")
        elif NUMBER.fullmatch(piece) and ("." in piece or vary == NUMBERS):
            pieces.append(rf"({NUMBER.pattern})")
            numbers.append(_value(piece))
        else:
            pieces.append(re.escape(piece))
    found = re.fullmatch("".join(pieces), real)
    if found is None:
        return False
    return vary == NUMBERS or all(
        math.isclose(_value(one), number, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        for one, number in zip(found.groups(), numbers, strict=True)
    )


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def write(path: Path, content: str) -> None:
    """Write a file as a reader does: keys of sections that an adstool.toml has go below their headings."""
    if path.name != "adstool.toml" or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    for part in re.split(r"^(?=\[)", content, flags=re.M):
        heading, _, keys = part.partition("\n")
        if heading.startswith("[[") or f"\n{heading}\n" not in text:
            text += f"\n{part}"
        else:
            text = text.replace(f"\n{heading}\n", f"\n{heading}\n{keys}")
    path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Done:
    """A command of a tutorial that was run: what it printed, and its exit status."""

    step: Step
    printed: str
    status: int


def perform(tutorial: str, folder: Path, made: dict[str, str] | None = None) -> Iterator[Done]:
    """Do all of sample_data/`tutorial` in `folder`.

    made: by command, what it printed when a fixture ran it; it is not run again. `adstool`, `python` and
    `pip` are this environment's, what pip installs goes to a folder of its own, and port 8080 is a free one.
    """
    site, port, status = folder / ".site", _free_port(), 0
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADSTOOL_")}
    environment |= {"PYTHONPATH": str(site), "SAMPLE_DATA": str(FOLDER)}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"  # its notice is no part of what is shown
    environment["PATH"] = os.pathsep.join([str(_commands(folder / ".bin", site)), os.environ["PATH"]])
    for step in steps((FOLDER / tutorial).read_text(encoding="utf-8")):
        if step.file:
            write(folder / step.file, step.content)
        elif step.command.startswith("cd "):
            folder = (folder / step.command[3:]).resolve()
        elif made and step.command in made:
            yield Done(step, made[step.command], 0)
        else:
            script = f"(exit {status})\n{step.command.replace('8080', str(port))}"
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                timeout=300,
            )
            status = done.returncode
            yield Done(step, done.stdout, status)


def _commands(folder: Path, site: Path) -> Path:
    """`folder` with scripts that become what they start, so that a signal to one reaches it."""
    folder.mkdir(exist_ok=True)
    for name, words in (
        ("adstool", '-m adstool "$@"'),
        ("python", '"$@"'),
        ("pip", f'-m pip "$@" -q --no-deps --no-build-isolation --target "{site}"'),
    ):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}\n')
        (folder / name).chmod(0o755)
    return folder


def follow(tutorial: str, folder: Path, made: dict[str, str] | None = None) -> None:
    """`perform` it; asserts that commands print what is shown, and fail where that has an `error:` alone."""
    for done in perform(tutorial, folder, made):
        said = f"$ {done.step.command}\n{done.printed}"
        fails = any(line.startswith("error:") for line in done.step.shown)
        assert (done.status != 0) == fails, f"{said}\nended with {done.status}"
        assert "Traceback" not in done.printed, said
        unlike = difference(done.step.shown, done.printed, done.step.vary)
        assert not unlike, f"{said}\nshould print: {unlike}"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
