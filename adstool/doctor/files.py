"""Checks of a workspace's folder: room, file system, permissions, the lock, and what was left there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from adstool.doctor.finding import Check, fault, fit, odd
from adstool.warehouse.spool import DAMAGED, waiting
from adstool.workspace import Workspace, left_by_killed

LEAST_DISK_GB = 2.0
LEAST_INODES = 10_000
MOUNTS = Path("/proc/mounts")
# Where locks do not hold between machines, or what is written is gone with the machine.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "lustre", "ceph"}
VANISHING = {"tmpfs", "ramfs"}
OLD_SECONDS = 86_400  # an unfinished run this old is one that nobody goes on with


def space_checks(folder: Path) -> Iterator[Check]:
    """Room for data on the disk of `folder`, in bytes and in files."""
    free = shutil.disk_usage(folder).free / 2**30
    found = f"{free:.1f} GB free in {folder}"
    if free < LEAST_DISK_GB:
        yield fault("disk", found, "Free 2 GB or more.")
    else:
        yield fit("disk", found)
    if hasattr(os, "statvfs"):
        facts = os.statvfs(folder)
        if facts.f_files and facts.f_favail < LEAST_INODES:
            found = f"{facts.f_favail:,} more files can be made on the disk of {folder}"
            yield fault(
                "files on disk", found, f"Delete small files there: du --inodes -d 2 {folder} | sort -n"
            )


def file_checks(ws: Workspace) -> Iterator[Check]:
    """The folder itself."""
    yield file_system(ws)
    yield writable(ws)
    yield lock(ws)
    yield leftovers(ws)
    yield spool(ws)


def file_system(ws: Workspace) -> Check:
    """On what kind of disk the workspace lies."""
    kind = kind_of_disk(ws.root)
    if kind in NETWORK:
        mend = "Keep it on a disk of this machine: mv the folder, and name it by ADSTOOL_WORKSPACE."
        return odd("file system", f"{kind}, over which locks may not hold", mend)
    if kind in VANISHING:
        mend = "Move it to a disk if it is to stay."
        return odd("file system", f"{kind}, which is gone when the machine restarts", mend)
    return fit("file system", kind or "unknown on this system")


def kind_of_disk(folder: Path) -> str:
    """The type of the file system that holds `folder`, empty where the system does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        parts = line.split()
        if len(parts) < 3:
            continue
        place = parts[1].replace("\\040", " ")
        inside = place == "/" or folder == Path(place) or Path(place) in folder.parents
        if inside and len(place) >= len(best):
            best, kind = place, parts[2]
    return kind


def writable(ws: Workspace) -> Check:
    """Whether verbs may write; nothing is written to find out."""
    folders = (ws.root, ws.models, ws.vectors, ws.reports, ws.spool, ws.cache)
    shut = [one for one in (*folders, ws.warehouse) if one.exists() and not os.access(one, os.W_OK)]
    if shut:
        return fault("permissions", f"{shut[0]} may not be written", f"chmod -R u+w {ws.root}")
    return fit("permissions", "the workspace may be written")


def lock(ws: Workspace) -> Check:
    """Whether another process writes, and which."""
    if not os.access(ws.root, os.W_OK):
        return odd("lock", "not looked at: the workspace may not be written", f"chmod u+w {ws.root}")
    if ws.is_locked():
        return odd("lock", f"held by {ws.holder()}", "Wait for it to end; other writers do.")
    return fit("lock", "free")


def spool(ws: Workspace) -> Check:
    """Rows of the funnel log put aside: those that wait for the warehouse, and those that cannot be read."""
    damaged = sorted(ws.spool.glob(f"*{DAMAGED}"))
    if damaged:
        found = f"parts of the funnel log that cannot be read: {len(damaged)}, the first {damaged[0]}"
        return odd("spool", found, " ".join(["rm -r", *(str(path) for path in damaged)]))
    return fit("spool", f"parts of the funnel log that wait for the warehouse: {len(waiting(ws))}")


def leftovers(ws: Workspace) -> Check:
    """Files and unfinished runs of processes that were killed: they cost room and are never used."""
    files = [path for path in ws.root.glob(".*.tmp") if left_by_killed(path)]
    files += [
        path for folder in (ws.models, ws.reports) for path in folder.rglob(".*.tmp") if left_by_killed(path)
    ]
    now = time.time()
    partial = [run for run in ws.models.glob("*/.partial") if now - run.stat().st_mtime > OLD_SECONDS]
    if not files and not partial:
        return fit("leftovers", "none")
    names = ", ".join(str(path.relative_to(ws.root)) for path in [*partial, *files][:3])
    mend = " ".join(["rm -r", *(str(path) for path in [*partial, *files])])
    if partial:
        mend = f"adstool train {partial[0].parent.name} goes on with it; or {mend}"
    return odd("leftovers", f"{len(files) + len(partial)} of killed runs: {names}", mend)
