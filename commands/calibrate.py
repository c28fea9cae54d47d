"""adstool calibrate: fit a model's calibration on its validation split, judge it on its test split."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import argument
from adstool.commands._output import emit, next_verb, table
from adstool.commands._plan import plan_of_warehouse
from adstool.errors import UsageError, choose

MODELS = ("engagement", "lightweight", "conversion", "flat")
NEXT = {"flat": "adstool models", "conversion": "adstool evaluate conversion"}
MADE_BY = {"flat": "train engagement --train FILE --test FILE --label COLUMN"}


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        calibrate,
        "adstool calibrate engagement",
        "adstool calibrate lightweight --json",
    )


def calibrate(
    context: typer.Context,
    model: Annotated[str, argument(f"The model: {', '.join(MODELS[:-1])} or {MODELS[-1]}.", "MODEL")],
    dry_run: _options.DryRun = False,
) -> None:
    """Make a model's probabilities mean what they say.

    Overall, by surface and by vertical of advertisers, fitted on the validation split and judged on the
    test split and on winners, the rows a ranking would choose.
    """
    if model not in MODELS:
        raise UsageError(f"'{model}' has no probabilities to calibrate.", choose(model, MODELS))
    workspace, settings = open_workspace(context)
    if dry_run:
        from adstool.planned import plan_after_training

        run = workspace.require_run(model, MADE_BY.get(model, f"train {model}"))
        plan = partial(plan_after_training, workspace, settings, model=model, run=run, verb="calibrate")
        plan_of_warehouse(context, workspace, settings, plan)
        return
    from adstool.pipeline import record
    from adstool.training.calibration import calibrate_run

    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        run = workspace.require_run(model, MADE_BY.get(model, f"train {model}"))
        result = calibrate_run(run)
        if model == "engagement":
            record(workspace, settings, "calibrate", result, started)
    payload = {"model": model, "run_id": run.name, **result}
    if emit(context, payload):
        return
    columns = [
        "head",
        "curve",
        "lines",
        "NE before",
        "after",
        "log loss before",
        "after",
        "ratio before",
        "after",
    ]
    table(context, columns, [_row(head, result) for head in result["before"]], "On the test split")
    winners = [(head, *found.values()) for head, found in result["winners"].items()]
    if winners:
        columns = ["head", "ratio before", "after", "rows", "positives"]
        table(context, columns, winners, "On winners: the best bid times chance of each request")
    next_verb(context, NEXT.get(model, f"adstool quantize {model}"))


def _row(head: str, result: dict[str, Any]) -> tuple[Any, ...]:
    before, after = result["before"][head], result["after"][head]
    figures = [side[name] for name in ("ne", "log_loss", "calibration") for side in (before, after)]
    lines = ", ".join(result["lines"].get(head, ())) or "none"
    return (head, result["curves"][head], lines, *figures)
