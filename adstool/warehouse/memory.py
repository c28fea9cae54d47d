"""How much memory DuckDB may use: what is set, else a share of what this process may have."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from adstool.config import Settings

MB = 1_000_000
ENOUGH = 1000 * MB  # for up to four cores
A_CORE = 250 * MB
A_THREAD = 100 * MB  # a thread less than this has no room for its buffers of a csv file
UNLIMITED = 1 << 60  # cgroups write "no limit" as a number above it
CGROUPS = Path("/sys/fs/cgroup")


def duckdb_limits(settings: Settings) -> dict[str, str | int]:
    """memory_limit and threads of a DuckDB connection.

    `auto` is a quarter of what machine, container and ulimit leave to this process, as torch and its
    libraries alone hold half a gigabyte; at most 1 GB, or 250 MB a core. Fewer threads than cores share it
    where it is small.
    """
    chosen = settings.warehouse
    cores = _cores()
    if chosen.memory_limit != "auto":
        return {"memory_limit": chosen.memory_limit, "threads": chosen.threads or cores}
    limit = max(ENOUGH, A_CORE * cores)
    if (available := available_bytes()) is not None:
        limit = min(limit, available // 4)
    threads = chosen.threads or min(cores, max(1, limit // A_THREAD))
    return {"memory_limit": f"{max(limit // MB, 1)}MB", "threads": threads}


def available_bytes() -> int | None:
    """The least of machine, container and what `ulimit -v` leaves; None where nothing tells."""
    known = [*_machine(), *_address_space(), *_containers(CGROUPS, Path("/proc/self/cgroup"))]
    return min(known, default=None)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine() -> Iterator[int]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _address_space() -> Iterator[int]:
    """What `ulimit -v` leaves beside what is mapped already, libraries among it."""
    if sys.platform != "linux":
        return
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        yield max(soft - mapped, 0)


def _containers(root: Path, mine: Path) -> Iterator[int]:
    """Limits of the control groups this process is in and of all above, of version 1 and 2.

    A group that the path of `mine` names and that is not there belongs to the host of a container, whose
    own group is the root.
    """
    try:
        lines = mine.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds == "":
            base, file = root, "memory.max"
        elif "memory" in kinds.split(","):
            base, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = base / name.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(base):
                break
            try:
                limit = int((group / file).read_text(encoding="ascii"))
            except (OSError, ValueError):  # not there, or "max"
                continue
            if limit < UNLIMITED:
                yield limit
