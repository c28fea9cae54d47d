"""What `run` did, a line of JSON a stage in logs/run.log: so that what cron did at night is known by day."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adstool.errors import AdstoolError
from adstool.progress import log
from adstool.workspace import Workspace

NAME = "run.log"
LIMIT = 1_000_000  # bytes beyond which a new run begins a new file; the one before stays as run.log.1


@dataclass
class RunLog:
    """The lines of one run; `todo` are the verbs of its stages in order, of which `ended` have ended."""

    ws: Workspace
    todo: Sequence[str]
    ended: int = 0
    began: float = field(default_factory=time.perf_counter)
    run: str = field(default_factory=lambda: f"{time.time_ns()} {os.getpid()}")

    def stage(self, verb: str, state: str, reason: str, seconds: float) -> None:
        """Note that a stage has ended; one that was up to date has no line."""
        self.ended += 1
        if state != "fresh":
            self.write("stage", stage=verb, state=state, reason=reason, seconds=seconds)

    def end(self, result: str, message: str = "") -> None:
        """Note how the run ended: done, failed or interrupted, and then in which stage."""
        at = self.todo[self.ended] if result != "done" and self.ended < len(self.todo) else None
        seconds = round(time.perf_counter() - self.began, 2)
        self.write("end", result=result, stage=at, message=message, seconds=seconds)

    def write(self, event: str, **about: Any) -> None:
        """Append a line; a log that cannot be written is a warning and no failure."""
        line = json.dumps({"run": self.run, "at": _now(), "event": event, **about}, ensure_ascii=False)
        try:
            self.ws.logs.mkdir(exist_ok=True)
            with open(self.ws.logs / NAME, "a", encoding="utf-8") as handle:
                handle.write(line + "\n")
        except OSError as error:
            log.warning("%s cannot be written: %s", self.ws.logs / NAME, error.strerror)


@contextmanager
def logged(ws: Workspace, todo: Sequence[str]) -> Iterator[RunLog]:
    """The log of a run of the stages `todo`, its begin and its end, however it ends short of a kill."""
    path = ws.logs / NAME
    if path.is_file() and path.stat().st_size > LIMIT:
        os.replace(path, ws.logs / f"{NAME}.1")
    elif path.is_file() and not path.read_bytes().endswith(b"\n"):
        with open(path, "a", encoding="utf-8") as handle:
            handle.write("\n")  # a line was cut off: the next one stands by itself
    lines = RunLog(ws, todo)
    lines.write("begin")
    try:
        yield lines
    except BaseException as error:
        message = error.message if isinstance(error, AdstoolError) else f"{type(error).__name__}: {error}"
        interrupted = isinstance(error, KeyboardInterrupt)
        lines.end("interrupted" if interrupted else "failed", "" if interrupted else message)
        raise
    lines.end("done")


def last_run(ws: Workspace) -> dict[str, Any] | None:
    """How the last run went: {began, ended, seconds, result, stage, message, done}; None without any.

    result: done, failed, interrupted, running, or cut off when it did not live to say. stage and message:
    where and why it failed. done: the verbs of the stages that it did.
    """
    path = ws.logs / NAME
    lines = _lines(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else []
    begun = [line for line in lines if line["event"] == "begin"]
    if not begun:
        return None
    own = [line for line in lines if line["run"] == begun[-1]["run"]]
    done = [str(line["stage"]) for line in own if line["event"] == "stage"]
    found = {
        "began": begun[-1]["at"],
        "ended": None,
        "seconds": None,
        "stage": None,
        "message": "",
        "done": done,
    }
    end = next((line for line in own if line["event"] == "end"), None)
    if end is None:
        return {**found, "result": "running" if ws.is_locked() else "cut off"}
    told = {key: end[key] for key in ("seconds", "result", "stage", "message")}
    return {**found, **told, "ended": end["at"]}


def _lines(text: str) -> list[dict[str, Any]]:
    """The lines that are whole; one that a kill or a full disk cut off is none."""
    found = []
    for line in text.splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if isinstance(read, dict) and {"run", "at", "event"} <= read.keys():
            found.append(read)
    return found


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
