"""adstool doctor: whether this machine and workspace are fit for work, and what to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from adstool.commands._context import globals_of
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, table
from adstool.errors import AdstoolError

if TYPE_CHECKING:
    from adstool.doctor import Check


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        doctor,
        "adstool doctor",
        "adstool doctor --json",
    )


def doctor(
    context: typer.Context,
) -> None:
    """Check machine and workspace, and say what to mend.

    Python, libraries, processor, memory, disk, limits and environment; the workspace's settings, lock,
    spool of the funnel log, leftovers, models, vectors and data. Nothing is changed. Exit 0 when all is fit
    for work, 1 when something must be mended; what is odd is said with what would be better, and is no fault.
    """
    from adstool.doctor import examine

    options = globals_of(context)
    checks = examine(options.workspace, options.config)
    failed = [check for check in checks if not check.ok]
    payload = {"ok": not failed, "checks": [check.to_json() for check in checks]}
    if not emit(context, payload):
        rows = [(check.name, _state(check), check.found, check.mend) for check in checks]
        table(context, ["check", "fit", "found", "mend"], rows)
        inside = any(check.name == "settings" for check in checks)
        fit = "adstool status" if inside else "adstool demo, or adstool init DIR"
        next_verb(context, "mend the lines marked no" if failed else fit)
    if failed:
        names = ", ".join(check.name for check in failed)
        raise AdstoolError(f"{len(failed)} of {len(checks)} checks failed: {names}.", failed[0].mend)


def _state(check: Check) -> str:
    """yes, odd or no: whether it is fit."""
    if not check.ok:
        return "no"
    return "odd" if check.mend else "yes"
