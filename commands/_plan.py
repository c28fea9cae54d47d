"""--dry-run of the verbs that write: what would be done and why, with nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from adstool.commands._output import emit, next_verb, say

if TYPE_CHECKING:
    from adstool.config import Settings
    from adstool.planned import Planned
    from adstool.workspace import Workspace


def plan_of_warehouse(
    context: typer.Context, workspace: Workspace, settings: Settings, plan: Callable[[Any], Planned]
) -> None:
    """Print what `plan` finds with a connection that only reads."""
    from adstool.warehouse import open_warehouse

    with open_warehouse(workspace, settings, read_only=True) as con:
        planned = plan(con)
    show_plan(context, planned)


def show_plan(context: typer.Context, planned: Planned) -> None:
    """Print what would be done, as JSON or for people."""
    if emit(context, planned.to_json(context.info_name or "")):
        return
    if planned.reason is not None:
        say(context, f"{context.info_name} is stale: {planned.reason}." if planned.reason else "Up to date.")
    if planned.counts:
        say(context, ", ".join(f"{count:,} {name}" for name, count in planned.counts.items()) + ".")
    if planned.parts:
        say(context, f"With {', '.join(planned.parts)}.")
    for path in planned.writes:
        say(context, f"Would write {path}")
    if not planned.writes:
        say(context, "There is nothing to write.")
    say(context, "Nothing was written: this was a dry run.")
    next_verb(context, "the same without --dry-run")
