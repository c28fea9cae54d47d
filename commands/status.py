"""adstool status: what the workspace holds, and what is stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import counted, emit, next_verb, say, table

if TYPE_CHECKING:
    from adstool.config import Settings
    from adstool.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        status,
        "adstool status",
        "adstool status --json",
    )


def status(
    context: typer.Context,
) -> None:
    """Show what the workspace holds, and what is stale.

    Rows of every table, vectors, models, rows that were refused, events and conversions of items and
    advertisers that no catalogue knows, and the stages that `adstool run` would do, each with the reason.
    """
    workspace, settings = open_workspace(context)
    from adstool.run_log import last_run

    models = _models(workspace)
    vectors = _vectors(workspace)
    held = _warehouse(workspace, settings)
    last = last_run(workspace)
    payload = {
        "workspace": str(workspace.root),
        **held,
        "vectors": vectors,
        "models": models,
        "last_run": last,
    }
    if emit(context, payload):
        return
    say(context, f"Workspace {workspace.root}")
    table(context, ["table", "rows"], list(held["tables"].items()))
    if vectors:
        table(context, ["vectors", "rows"], list(vectors.items()))
    if models:
        table(
            context,
            ["model", "in use", "runs"],
            [(name, model["current"], len(model["runs"])) for name, model in models.items()],
        )
    for source, count in held["attributes"].items():
        say(context, f"{count:,} items have attributes by {source}.")
    for name, count in held["orphans"].items():
        if count:
            what = "an item that no catalogue knows" if name == "events" else "an unknown advertiser"
            say(context, f"{count:,} {name} are of {what}.")
    if held["rejects"]:
        were = "was" if held["rejects"] == 1 else "were"
        say(context, f"{counted(held['rejects'], 'row')} {were} refused: adstool rejects")
    if last is not None:
        say(context, _last_run(last))
    for stage in held["stale"]:
        say(context, f"{stage['stage']} is stale: {stage['why']}.")
    next_verb(context, _next(held))


def _next(held: dict[str, Any]) -> str:
    """What to do with what the workspace holds."""
    from adstool.warehouse.flat import FLAT_TABLES

    flat = [name for name in held["tables"] if name in FLAT_TABLES]
    if not any(held["tables"].values()):
        return "adstool ingest FILES, or adstool sample DIR for data to play with."
    if held["lacking"] and flat:
        return f"adstool train engagement --train {flat[0]}"
    if held["lacking"]:
        return f"adstool ingest FILES: there are no {held['lacking']} yet, which adstool run needs."
    return "adstool run" if held["stale"] else "adstool rank --user USER"


def _last_run(last: dict[str, Any]) -> str:
    """How the last `run` ended, in a line."""
    if last["ended"] is None:
        return f"The run that began {last['began']} " + (
            "is running." if last["result"] == "running" else "was cut off: adstool run goes on with it."
        )
    where = f" in {last['stage']}" if last["stage"] else ""
    did = f", {len(last['done'])} stages done" if last["done"] else ""
    why = f": {last['message']}" if last["message"] else "."
    return f"Last run {last['ended']}: {last['result']}{where} after {last['seconds']:,.0f} s{did}{why}"


def _warehouse(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Rows, orphans, rejects and stale stages; all nothing while there is no warehouse."""
    from adstool.pipeline import lacking, stale_stages
    from adstool.stages import Job
    from adstool.warehouse import open_warehouse
    from adstool.warehouse import status as warehouse
    from adstool.warehouse.schema import TABLES

    if not workspace.warehouse.is_file():
        nothing = {"events": 0, "conversions": 0}
        tables = dict.fromkeys(TABLES, 0)
        found = {"tables": tables, "attributes": {}, "orphans": nothing, "rejects": 0}
        return {**found, "lacking": "events", "stale": []}
    with open_warehouse(workspace, settings, read_only=True) as con:
        missing = lacking(con)
        # Without events or items nothing can be run, so nothing waits for it.
        stale = [] if missing else stale_stages(Job(workspace, settings, con))
        return {
            "tables": warehouse.table_rows(con),
            "attributes": warehouse.attribute_sources(con),
            "orphans": warehouse.orphans(con),
            "rejects": warehouse.reject_count(con),
            "lacking": missing,
            "stale": [{"stage": verdict.stage.verb, "why": verdict.reason} for verdict in stale],
        }


def _vectors(workspace: Workspace) -> dict[str, int]:
    """Rows by vector table; lancedb, which is slow to import, only when there are vectors.

    A kill between making a table's folder and its first version leaves no table, and so no rows.
    """
    if not workspace.vectors.is_dir() or not any(workspace.vectors.glob("*.lance")):
        return {}
    import lancedb

    found = lancedb.connect(str(workspace.vectors))
    names = sorted({path.parents[1].stem for path in workspace.vectors.glob("*.lance/_versions/*.manifest")})
    return {name: found.open_table(name).count_rows() for name in names}


def _models(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """By model: the run in use and all runs."""
    if not workspace.models.is_dir():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted(workspace.models.iterdir()):
        runs = [run.name for run in workspace.runs(folder.name)]
        current = workspace.current_run(folder.name)
        if runs:
            found[folder.name] = {"current": current.name if current else None, "runs": runs}
    return found
