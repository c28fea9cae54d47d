"""A workspace: the folder that holds settings, warehouse, vectors, model runs and reports."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.errors import AdstoolError, WorkspaceLocked

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CONFIG_NAME = "adstool.toml"
# Names under which files are written: by `whole_file` (with a log for a new warehouse), LanceDB, safetensors.
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)\.tmp(\.wal)?|\.tmp[A-Za-z0-9]+")


@dataclass(frozen=True)
class Workspace:
    """Paths inside a workspace, its write lock and its model runs."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.root / CONFIG_NAME

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.root / "warehouse.duckdb"

    @property
    def vectors(self) -> Path:
        """The LanceDB folder."""
        return self.root / "vectors.lance"

    @property
    def models(self) -> Path:
        """The folder of model runs, models/<name>/<run id>/."""
        return self.root / "models"

    @property
    def reports(self) -> Path:
        """The folder of HTML reports."""
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        """The folder of the log of `run`."""
        return self.root / "logs"

    @property
    def spool(self) -> Path:
        """The folder of rows that wait for the warehouse."""
        return self.root / "spool"

    @property
    def cache(self) -> Path:
        """Derived data that can always be deleted and made again."""
        return self.root / "cache"

    @contextmanager
    def lock(self, wait_seconds: float = 30.0) -> Iterator[None]:
        """Hold the workspace for writing; a second writer waits, then gets WorkspaceLocked.

        The lock belongs to the operating system, so it goes with the process, however that ends.
        """
        path = self.root / ".lock"
        deadline = time.monotonic() + wait_seconds
        with open(path, "a+", encoding="utf-8") as handle:
            while not _try_lock(handle.fileno()):
                if time.monotonic() >= deadline:
                    raise WorkspaceLocked(
                        f"The workspace {self.root} is being written by {self.holder()}; waited"
                        f" {wait_seconds:g} s.",
                        "Wait for it to end, or stop it; then run the command again.",
                    )
                time.sleep(0.1)
            handle.truncate(0)
            handle.write(f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
            handle.flush()
            try:
                self._tidy()
                yield
            finally:
                handle.truncate(0)
                _unlock(handle.fileno())

    def holder(self) -> str:
        """Who holds the workspace for writing, as far as is known."""
        return (self.root / ".lock").read_text(encoding="utf-8").strip() or "another process"

    def is_locked(self) -> bool:
        """Whether a process holds the workspace for writing now."""
        if not (self.root / ".lock").is_file():
            return False
        with open(self.root / ".lock", "rb+") as handle:
            if not _try_lock(handle.fileno()):
                return True
            _unlock(handle.fileno())
            return False

    def _tidy(self) -> None:
        """Take away the temporary files of writers that were killed; called by the one writer there is."""
        folders = [self.root, self.reports, self.spool, self.vectors, *self.vectors.glob("*.lance/*/")]
        found = [path for folder in folders for path in folder.glob(".*tmp*")]
        found += [path for folder in (self.models, self.cache) for path in folder.rglob(".*tmp*")]
        for path in found:
            if left_by_killed(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def current_run(self, name: str) -> Path | None:
        """The run of model `name` in use, or None."""
        pointer = self.models / name / "current"
        if not pointer.is_file():
            return None
        run = self.models / name / pointer.read_text(encoding="utf-8").strip()
        return run if run.is_dir() else None

    def require_run(self, name: str, verb: str) -> Path:
        """The run of model `name` in use; raises AdstoolError naming the verb that makes one."""
        run = self.current_run(name)
        if run is None:
            raise AdstoolError(f"There is no '{name}' model in {self.root}.", f"Make one: adstool {verb}")
        return run

    def runs(self, name: str) -> list[Path]:
        """All whole runs of model `name`, oldest first."""
        folder = self.models / name
        if not folder.is_dir():
            return []
        found = [run for run in folder.iterdir() if run.is_dir() and not run.name.startswith(".")]
        return sorted(found, key=lambda run: (int(run.name[1:]) if run.name[1:].isdigit() else 0, run.name))

    @contextmanager
    def new_run(self, name: str) -> Iterator[Path]:
        """A folder to write a run of model `name` into; published as r<N> and made current at the end.

        The folder is models/<name>/.partial: it survives a kill, so that work can go on from a checkpoint
        in it, and is never taken for a whole run. On an error it stays for the next attempt.
        """
        partial = self.models / name / ".partial"
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        run = self.next_run(name)
        if self.current_run(name) is None:
            self.set_current(name, run.name)  # before: a kill in between leaves no run that is not in use
        os.replace(partial, run)
        self.set_current(name, run.name)

    def next_run(self, name: str) -> Path:
        """The folder that the next run of model `name` will have."""
        numbers = [int(run.name[1:]) for run in self.runs(name) if run.name[1:].isdigit()]
        return self.models / name / f"r{max(numbers, default=0) + 1}"

    def set_current(self, name: str, run_id: str) -> None:
        """Make `run_id` the run of model `name` in use."""
        write_text(self.models / name / "current", run_id + "\n")

    def clear_partial(self, name: str) -> None:
        """Forget an unfinished run of model `name`."""
        shutil.rmtree(self.models / name / ".partial", ignore_errors=True)


def find_workspace(explicit: Path | None = None) -> Workspace:
    """The workspace named, else ADSTOOL_WORKSPACE, else the nearest folder upward with an adstool.toml.

    Raises AdstoolError when there is none.
    """
    named = explicit or (
        Path(os.environ["ADSTOOL_WORKSPACE"]) if os.environ.get("ADSTOOL_WORKSPACE") else None
    )
    if named is not None:
        if (named / CONFIG_NAME).is_file():
            return Workspace(named.resolve())
        raise AdstoolError(
            f"{named} is not a workspace: it has no {CONFIG_NAME}.", f"Make one: adstool init {named}"
        )
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return Workspace(folder)
    raise AdstoolError(
        f"No {CONFIG_NAME} in {here} or any folder above it.",
        "Make a workspace: adstool init DIR; or name one: adstool --workspace DIR ...",
    )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file to, whole or not at all.

    At the end of the block what was written is synced and takes the place of `path`; on an error it is
    taken away, and `path` stays as it was. What a killed process leaves, the workspace's next writer
    takes away: the name says whose it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def left_by_killed(path: Path) -> bool:
    """Whether it has the name of a temporary file whose writer is gone."""
    temporary = _TEMPORARY.fullmatch(path.name)
    return temporary is not None and not alive(int(temporary["process"] or 0))


def clear_leftovers(path: Path) -> None:
    """Take away what killed writers of `path` left beside it, where no writer of a workspace comes by."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if left_by_killed(left):
            left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        handle.write(text)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all."""
    import numpy as np

    with whole_file(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, array)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as .npz, whole or not at all."""
    import numpy as np

    with whole_file(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def mapped_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file of zeros, memory-mapped to be filled.

    Its blocks are reserved first: a full disk is then an OSError, where writing into the map would end the
    process by SIGBUS, without a word.
    """
    import numpy as np

    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    size = path.stat().st_size
    if size and hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
    return array


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as parquet, whole or not at all."""
    import pyarrow.parquet as pq

    with whole_file(path) as temporary:
        pq.write_table(table, temporary)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically; NaN becomes null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinity become None."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """The JSON in a file of the workspace; raises AdstoolError naming the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdstoolError(f"{path} cannot be read: {error}", "Train or build it again.") from None


def alive(process: int) -> bool:
    """Whether a process of that number runs; on Windows, where asking would end it, always."""
    if process <= 0:
        return False
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it runs under another account
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)
