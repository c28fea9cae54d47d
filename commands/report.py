"""adstool report: one self-contained HTML file about everything in the workspace."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, say
from adstool.commands._plan import plan_of_warehouse


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        report,
        "adstool report",
        "adstool report --output report.html",
    )


def report(
    context: typer.Context,
    output: _options.Output = None,
    dry_run: _options.DryRun = False,
) -> None:
    """Write one HTML file: data, models, figures, slates with pictures.

    It needs nothing else to be read, and goes to reports/ of the workspace unless --output says otherwise.
    """
    workspace, settings = open_workspace(context)
    if output is not None and output.is_dir():
        from adstool.errors import UsageError

        raise UsageError(f"--output {output} is a folder.", "Name a file, for example report.html.")
    from adstool.errors import AdstoolError
    from adstool.evaluation.report import write_report
    from adstool.pipeline import record
    from adstool.warehouse import open_warehouse

    if not workspace.warehouse.is_file():
        raise AdstoolError(f"{workspace.root} holds no data to report on.", "Load some: adstool ingest FILES")
    if dry_run:
        from adstool.planned import plan_report

        plan_of_warehouse(
            context, workspace, settings, lambda con: plan_report(workspace, settings, con, output)
        )
        return
    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        with open_warehouse(workspace, settings, read_only=True) as connection:
            path = write_report(workspace, settings, connection, output)
        result = {"path": str(path), "bytes": path.stat().st_size}
        if output is None:
            record(workspace, settings, "report", result, started)
    if emit(context, result):
        return
    say(context, f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    next_verb(context, "open it in a browser, or adstool rank --user USER --explain")
