"""A verb as a process that is disturbed: killed, signalled, out of disk, without permission.

`Verbs` starts processes; `Changes` counts what happens to the files below a folder, so that a fault can fall
on the k-th change as well as on a moment. tests/faults/state.py compares what stands at the end.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ADDED = 0x100 | 0x80 | 0x40000000  # IN_CREATE | IN_MOVED_TO of a folder (IN_ISDIR)
WATCHED = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200  # modify attrib close_write moved create delete


class Changes:
    """Counts the changes of files below a folder (Linux's inotify), new folders included."""

    def __init__(self, root: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "inotify is not to be had")
        self._folders: dict[int, Path] = {}
        self.count = 0
        self._watch(root)

    def _watch(self, folder: Path) -> None:
        for parent, _, _ in os.walk(folder):
            number = self._libc.inotify_add_watch(self._handle, os.fsencode(parent), WATCHED)
            if number >= 0:
                self._folders[number] = Path(parent)

    def wait(self, seconds: float) -> None:
        """Count what happened, waiting at most so long for something to happen."""
        if not select.select([self._handle], [], [], max(seconds, 0.0))[0]:
            return
        data, place = os.read(self._handle, 1 << 16), 0
        while place < len(data):
            number, mask, _, length = struct.unpack_from("iIII", data, place)
            name = data[place + 16 : place + 16 + length].rstrip(b"\0")
            place += 16 + length
            self.count += 1
            if mask & 0x40000000 and mask & 0x180 and number in self._folders:
                self._watch(self._folders[number] / os.fsdecode(name))

    def close(self) -> None:
        """Stop counting."""
        os.close(self._handle)


@dataclass(frozen=True)
class Blow:
    """A signal, sent after so many seconds or, with `change`, at the k-th change of a file."""

    signal: signal.Signals
    seconds: float | None = None
    change: int | None = None

    def due(self, seconds: float, changes: int) -> bool:
        """Whether the moment has come."""
        if self.change is not None:
            return changes >= self.change
        return self.seconds is not None and seconds >= self.seconds


@dataclass(frozen=True)
class Limits:
    """What a verb has less of than usual: bytes of one file, or root's right to pass over permissions."""

    file_bytes: int | None = None
    powerless: bool = False


@dataclass(frozen=True)
class Ended:
    """How a verb went: its exit code (negative: the signal it died of) and words."""

    code: int
    out: str
    err: str
    seconds: float
    changes: int
    struck: bool  # the blow fell while it ran

    @property
    def message(self) -> str:
        """The line that says what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else (self.err.strip().splitlines() or ["(no word)"])[-1]


@dataclass
class Verbs:
    """Starts verbs in processes of their own, in a session each so that a kill takes all of it.

    With `forked` the process is a copy of this one, which has loaded the libraries by `preload`: moments then
    fall on the verb's work and not on five seconds of imports. Else it is a new interpreter.
    """

    scratch: Path  # for what they print
    forked: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def preload(self) -> None:
        """Load what verbs import, before the first fork."""
        import warnings

        import duckdb  # noqa: F401
        import lancedb  # noqa: F401
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401
        import open_clip  # noqa: F401
        import sklearn  # noqa: F401
        import torch  # noqa: F401

        import adstool.commands  # noqa: F401

        warnings.filterwarnings("ignore", message="lancedb fork support")
        self.forked = True

    def run(
        self,
        words: Sequence[str | Path],
        cwd: Path,
        *,
        blow: Blow | None = None,
        limits: Limits = Limits(),
        watch: Path | None = None,
        timeout: float = 300.0,
    ) -> Ended:
        """One verb from start to end, struck by `blow` on its way; changes below `watch` are counted."""
        changes = Changes(watch) if watch is not None else None
        started = time.monotonic()
        pid, printed = self.start(words, cwd, limits=limits)
        struck = False
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            seconds = time.monotonic() - started
            if found:
                break
            if blow is not None and not struck and blow.due(seconds, changes.count if changes else 0):
                struck = True
                _strike(pid, blow.signal)
            elif seconds > timeout:
                _strike(pid, signal.SIGKILL)
            pause = 0.005 if blow is None or blow.seconds is None else min(0.005, blow.seconds - seconds)
            if changes is not None:
                changes.wait(pause)
            else:
                time.sleep(max(pause, 0.0005))
        if changes is not None:
            changes.wait(0.0)
            changes.close()
        out, err = (path.read_text(errors="replace") for path in printed)
        for path in printed:
            path.unlink()
        count = changes.count if changes else 0
        return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, count, struck)

    def start(
        self, words: Sequence[str | Path], cwd: Path, *, limits: Limits = Limits()
    ) -> tuple[int, tuple[Path, Path]]:
        """Start a verb; its process id, and the files to which it prints: stdout, stderr."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        texts = [str(word) for word in words]
        files = [tempfile.mkstemp(dir=self.scratch) for _ in range(2)]
        pid = os.fork()
        if pid:
            for handle, _ in files:
                os.close(handle)
            return pid, (Path(files[0][1]), Path(files[1][1]))
        try:
            for number, (handle, _) in enumerate(files, 1):
                os.dup2(handle, number)
            self._become(texts, cwd, limits)
        except BaseException as error:  # the copy must never return into the harness
            sys.stderr.write(f"the harness failed: {error!r}\n")
        os._exit(99)

    def _become(self, words: list[str], cwd: Path, limits: Limits) -> None:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.chdir(cwd)
        os.environ.update({"OMP_NUM_THREADS": "1", **self.environment})
        if limits.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
        if limits.powerless:
            _drop_power()
        if not self.forked:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are born deaf to it
            os.execv(sys.executable, [sys.executable, "-m", "adstool", *words])
        from adstool.commands import main

        sys.argv = ["adstool", *words]
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 0
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _drop_power() -> None:
    """Make permissions bind this process and what it becomes, root or not (Linux's capabilities)."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(28, 0x2F, 0, 0, 0)  # PR_SET_SECUREBITS: root has no capabilities by being root
    header, none = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", 0, 0, 0, 0, 0, 0)
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def aside(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns (as JSON holds it), computed in a copy of this process: one that forks may not have
    the threads of DuckDB and LanceDB itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = json.dumps({"value": work(*arguments)})
        except BaseException as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        with os.fdopen(writing, "w") as handle:
            handle.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as handle:
        text = handle.read()
    os.waitpid(pid, 0)
    found = json.loads(text)
    if "error" in found:
        raise RuntimeError(f"{work.__name__}{arguments}: {found['error']}")
    return found["value"]


def _strike(pid: int, number: signal.Signals) -> None:
    # A kill takes everything the verb started; a terminal or a scheduler signals the verb.
    try:
        os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        os.kill(pid, number)


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[None]:
    """A file system of that size at `folder` (Linux, as root); gone with all it holds at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 2**20) // 4096 * 4096}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge_disk(folder: Path, megabytes: float) -> None:
    """Room again on the disk at `folder`."""
    size = f"remount,size={int(megabytes * 1024)}k"
    subprocess.run(["mount", "-o", size, str(folder)], check=True)


def used_megabytes(folder: Path) -> float:
    """What the file system of `folder` holds."""
    usage = shutil.disk_usage(folder)
    return (usage.total - usage.free) / 2**20


@contextmanager
def read_only(*targets: Path) -> Iterator[None]:
    """Nobody may write `targets`, who is not above permissions; afterwards as before."""
    before = [(target, target.stat().st_mode) for target in targets]
    for target, mode in before:
        target.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for target, mode in before:
            target.chmod(mode)
