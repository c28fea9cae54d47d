"""Checks of the machine and the workspace, each with what was found and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adstool.config import Settings, load_settings
from adstool.doctor.data import data_checks
from adstool.doctor.files import file_checks, space_checks
from adstool.doctor.finding import Check, fit, guarded
from adstool.doctor.machine import machine_checks
from adstool.doctor.models import model_checks
from adstool.doctor.services import service_checks
from adstool.errors import AdstoolError
from adstool.workspace import Workspace, find_workspace

__all__ = ["Check", "examine"]


def examine(workspace: Path | None = None, config: Path | None = None) -> list[Check]:
    """All checks; none of them raises or writes. The workspace is checked when there is one."""
    checks = [*guarded("machine", machine_checks)]
    try:
        found = find_workspace(workspace)
    except AdstoolError as error:
        # Outside any workspace the machine alone is judged; a workspace named but absent is a fault.
        checks += guarded("disk", lambda: space_checks(Path.cwd()))
        checks.append(Check("workspace", workspace is None, error.message, error.hint))
        return checks
    checks += guarded("disk", lambda: space_checks(found.root))
    checks.append(fit("workspace", str(found.root)))
    return [*checks, *_of_workspace(found, config)]


def _of_workspace(ws: Workspace, config: Path | None) -> Iterator[Check]:
    try:
        settings = load_settings(config or ws.config)
        yield fit("settings", f"{len(settings.origins)} set, the rest default")
    except AdstoolError as error:
        yield Check("settings", False, error.message, error.hint)
        settings = Settings()
    yield from guarded("files", lambda: file_checks(ws))
    yield from guarded("models", lambda: model_checks(ws, settings))
    yield from guarded("services", lambda: service_checks(settings))
    yield from guarded("warehouse", lambda: data_checks(ws, settings))
