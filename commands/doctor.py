"""adstool doctor: whether this machine and workspace are fit for work, and what to mend."""

from __future__ import annotations

import typer

from adstool.commands._context import globals_of
from adstool.commands._output import emit, next_verb, show, table
from adstool.errors import AdstoolError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("doctor")(doctor)


def doctor(context: typer.Context) -> None:
    """Check Python, libraries, processor, memory, disk and the workspace; say what to mend."""
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
