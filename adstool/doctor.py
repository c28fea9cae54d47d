"""Checks of the machine and the workspace, each with what was found and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from adstool.config import load_settings
from adstool.errors import AdstoolError
from adstool.workspace import Workspace, find_workspace

LEAST_MEMORY_GB = 3.0
LEAST_DISK_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as `doctor --json` lists it."""
        return asdict(self)


def examine(workspace: Path | None = None, config: Path | None = None) -> list[Check]:
    """All checks; none of them raises. The workspace is checked when there is one."""
    checks = [_python(), *_libraries(), *_extra("serve"), _processor(), _memory(), _disk(Path.cwd())]
    try:
        found = find_workspace(workspace)
    except AdstoolError as error:
        # Outside any workspace the machine alone is judged; a workspace named but absent is a fault.
        checks.append(Check("workspace", workspace is None, error.message, error.hint))
        return checks
    checks.append(Check("workspace", True, str(found.root)))
    checks += [_guarded("settings", lambda: _settings(found, config)), _guarded("lock", lambda: _lock(found))]
    checks += [_guarded("warehouse", lambda: _warehouse(found)), *_models(found)]
    return checks


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except AdstoolError as error:
        return Check(name, False, error.message, error.hint)


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, platform.python_version(), "Install Python 3.11 or newer.")


def _libraries() -> Iterator[Check]:
    from packaging.requirements import Requirement

    for line in requires("adstool") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        mend = f"pip install '{wanted.name}{wanted.specifier}'"
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Check(wanted.name, False, "not installed", mend)
            continue
        yield Check(wanted.name, wanted.specifier.contains(found, prereleases=True), found, mend)


def _extra(extra: str) -> Iterator[Check]:
    """An optional engine: absent is no fault, half of it or too old is one."""
    from packaging.requirements import Requirement

    mend = f"pip install 'adstool[{extra}]'"
    found, missing, old = [], [], []
    for wanted in map(Requirement, requires("adstool") or []):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            continue
        if not wanted.marker.evaluate({"extra": extra}):
            continue
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            missing.append(wanted.name)
            continue
        found.append(f"{wanted.name} {there}")
        if not wanted.specifier.contains(there, prereleases=True):
            old.append(f"{wanted.name} {there} is not {wanted.specifier}")
    if not found:
        yield Check(extra, True, f"not installed; {mend} brings adstool {extra}")
    elif missing or old:
        yield Check(extra, False, "; ".join([*(f"{name} is missing" for name in missing), *old]), mend)
    else:
        yield Check(extra, True, ", ".join(found))


def _processor() -> Check:
    from adstool.device import cpu_has_bf16, pick_device

    try:
        device = pick_device()
        bf16 = "bf16 in hardware" if cpu_has_bf16() else "no bf16"
    except (ImportError, OSError) as error:
        return Check("processor", False, f"torch cannot be loaded: {error}", "Install torch again.")
    return Check("processor", True, f"{device.name}: {device.reason}; {os.cpu_count()} cores, {bf16}")


def _memory() -> Check:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, AttributeError, OSError):
        return Check("memory", True, "size unknown on this system")
    return Check("memory", size >= LEAST_MEMORY_GB, f"{size:.1f} GB", "Use a machine with 3 GB or more.")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    return Check("disk", free >= LEAST_DISK_GB, f"{free:.1f} GB free in {folder}", "Free 2 GB or more.")


def _settings(workspace: Workspace, config: Path | None) -> Check:
    settings = load_settings(config or workspace.config)
    return Check("settings", True, f"{len(settings.origins)} set, the rest default")


def _lock(workspace: Workspace) -> Check:
    with workspace.lock(0.0):
        return Check("lock", True, "free")


def _warehouse(workspace: Workspace) -> Check:
    from adstool.warehouse import open_warehouse

    if not workspace.warehouse.is_file():
        return Check("warehouse", True, "nothing ingested yet")
    with open_warehouse(workspace, load_settings(workspace.config), read_only=True) as connection:
        ((events,),) = connection.execute("select count(*) from events").fetchall()
    return Check("warehouse", True, f"{events:,} events")


def _models(workspace: Workspace) -> Iterator[Check]:
    folders = sorted(workspace.models.iterdir()) if workspace.models.is_dir() else []
    for folder in folders:
        if not (folder / "current").is_file():
            partial = (folder / ".partial").is_dir()
            text = "an unfinished run" if partial else "no run in use"
            yield Check(f"model {folder.name}", partial, text, f"adstool train {folder.name}")
            continue
        run = workspace.current_run(folder.name)
        text = f"{run.name} in use" if run else "its current run is gone"
        yield Check(f"model {folder.name}", run is not None, text, f"adstool train {folder.name}")
