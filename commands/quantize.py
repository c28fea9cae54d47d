"""adstool quantize: a model in fewer bits, put into use when it loses nothing that matters."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse
from adstool.errors import GateNotPassed


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        quantize,
        "adstool quantize engagement",
        "adstool quantize retrieval --scheme int4 --no-compare",
        refused="a limit broken, the model in use stays",
    )


def quantize(
    context: typer.Context,
    model: Annotated[str, argument("The model: engagement, conversion, lightweight or retrieval.", "MODEL")],
    scheme: Annotated[
        str,
        option(
            Group.MODEL,
            "int8: tables by row, dense layers by output; int4: tables of four bits.",
            "--scheme",
            metavar="int8|int4",
        ),
    ] = "int8",
    max_ne_loss: Annotated[
        float | None,
        option(
            Group.LIMITS,
            "Largest relative rise of normalized entropy of any head, .0005 being .05 %.",
            "--max-ne-loss",
            min=0,
            metavar="X",
            setting="quantization.max_ne_loss",
        ),
    ] = None,
    compare: Annotated[
        bool,
        option(
            Group.OUTPUT,
            "Measure every technique beside the scheme, and keep the table with the run.",
            "--compare/--no-compare",
            default="compare",
        ),
    ] = True,
    dry_run: _options.DryRun = False,
) -> None:
    """Make the model in use smaller and faster, if it loses nothing.

    It is measured against full precision on the test split: size, speed, normalized entropy, calibration
    and which items stay on top. One that breaks a limit of [quantization] is refused and kept aside.
    """
    workspace, settings = open_workspace(context)
    if dry_run:
        from adstool.planned import plan_after_training

        run = workspace.require_run(model, f"train {model}")
        plan = partial(plan_after_training, workspace, settings, model=model, run=run, verb="quantize")
        plan_of_warehouse(context, workspace, settings, plan)
        return
    from adstool.pipeline import record
    from adstool.serving.quantization import quantize_run
    from adstool.warehouse import open_warehouse

    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        try:
            with open_warehouse(workspace, settings, read_only=True) as con:
                result = quantize_run(workspace, settings, con, model, scheme, max_ne_loss, compare=compare)
        except GateNotPassed as refused:
            if not emit(context, refused.result):
                _show(context, refused.result)
            raise
        if model == "engagement":
            # `run` then knows that this stage is done with the model as it is.
            record(workspace, settings, "quantize", result, started)
    if emit(context, result):
        return
    _show(context, result)
    next_verb(context, "adstool index")


def _show(context: typer.Context, result: dict[str, Any]) -> None:
    verdict = "accepted" if result["accepted"] else "refused"
    say(
        context,
        f"{result['model']} {result['run_id']} {result['scheme']}: {verdict}; {result['size_ratio']:.0%} of "
        f"the size, {result['speedup']:.1f} x as fast, {result['topk_overlap']:.1%} of the best stay.",
    )
    heads = [
        (
            name,
            h["positives"],
            h["ne"],
            h["ne_quantized"],
            f"{h['delta_ne']:+.3%}",
            f"{h['delta_calibration']:+.2%}",
        )
        for name, h in result["heads"].items()
    ]
    if heads:
        columns = ["head", "positives", "NE", f"NE {result['scheme']}", "change", "calibration"]
        table(context, columns, heads)
    rows = [
        (
            row["technique"],
            f"{row['size_ratio']:.0%}",
            row["p50_ms"],
            row["p99_ms"],
            f"{row['speedup']:.2f} x",
            *(("" if row[k] is None else f"{row[k]:+.3%}") for k in ("delta_ne", "delta_calibration")),
            f"{row['topk_overlap']:.1%}",
            "" if row["passes"] else "refused",
        )
        for row in result["table"]
    ]
    columns = ["technique", "size", "ms p50", "p99", "speed", "NE", "calibration", "best kept", "gate"]
    table(context, columns, rows)
