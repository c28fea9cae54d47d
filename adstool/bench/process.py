"""A verb as a process of its own: its time, its work and the most memory it held."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from adstool.errors import AdstoolError, GateNotPassed

NO_MEMORY = "peak memory is not measured on Windows, which tells it only of processes that still run"


@dataclass(frozen=True)
class Spent:
    """What one process took. On Windows only the seconds are known, the rest is None."""

    seconds: float
    cpu_seconds: float | None  # of all its threads and of the processes it waited for
    peak_mb: float | None  # resident, of the largest process, in MB of 10^6 bytes, mapped files included
    stdout: str


Meanwhile = Callable[["subprocess.Popen[bytes]", Callable[[], str]], None]


def spend(words: Sequence[str | Path], cwd: Path | None = None, meanwhile: Meanwhile | None = None) -> Spent:
    """Run `adstool WORDS` to its end.

    meanwhile: is called with the process and a function that returns the notes it has written so far, in a
    thread, to make a server end. A gate that is not passed is an end like any other. Raises AdstoolError with
    the last notes of a process that fails. The caller should be small itself: on Linux a child's peak counts
    from its parent's.
    """
    command = [sys.executable, "-m", "adstool", *map(str, words)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as notes:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=notes, cwd=cwd)
        if meanwhile is not None:
            threading.Thread(target=meanwhile, args=(process, lambda: _text(notes)), daemon=True).start()
        cpu_seconds = peak_mb = None
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
            cpu_seconds = usage.ru_utime + usage.ru_stime
            peak_mb = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
        else:
            process.wait()
        seconds = time.perf_counter() - begun
        if process.returncode not in (0, GateNotPassed.exit_code):
            last = _text(notes).strip().splitlines()[-3:]
            raise AdstoolError(
                f"adstool {' '.join(map(str, words))} ended with {process.returncode}: {' '.join(last)}",
                "Run it by itself to see all it says.",
            )
        return Spent(seconds, cpu_seconds, peak_mb, _text(out))


def _text(file: IO[bytes]) -> str:
    """All that a process has written to a file so far; the place at which it writes on stays."""
    if not hasattr(os, "pread"):
        file.seek(0)
        return file.read().decode(errors="replace")
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
