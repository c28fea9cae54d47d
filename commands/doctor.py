"""adstool doctor: whether this machine and workspace are fit for work, and what to mend."""

from __future__ import annotations

import typer

from adstool.commands._context import globals_of
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, show, table
from adstool.errors import AdstoolError


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

    Exit 0 when all is fit for work, 1 when something must be mended; what is only odd is said and is no
    fault.
    """
    from adstool.doctor import examine

    options = globals_of(context)
    checks = examine(options.workspace, options.config)
    failed = [check for check in checks if not check.ok]
    payload = {"ok": not failed, "checks": [check.to_json() for check in checks]}
    if not emit(context, payload):
        rows = [(check.name, show(check.ok), check.found, "" if check.ok else check.mend) for check in checks]
        table(context, ["check", "ok", "found", "mend"], rows)
        next_verb(context, "mend the lines marked no" if failed else "adstool demo, or adstool init DIR")
    if failed:
        names = ", ".join(check.name for check in failed)
        raise AdstoolError(f"{len(failed)} of {len(checks)} checks failed: {names}.", failed[0].mend)
