"""adstool quantize: a model in int8, put into use when it loses nothing that matters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from adstool.commands._context import globals_of, open_workspace
from adstool.commands._output import emit, next_verb, print_json, say, show, table
from adstool.errors import GateNotPassed


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("quantize")(quantize)


def quantize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="engagement, lightweight or retrieval.")],
    scheme: Annotated[str, typer.Option(help="int8: tables by row, dense layers by output.")] = "int8",
    max_ne_loss: Annotated[
        float | None, typer.Option(help="Largest relative rise of normalized entropy of any head.")
    ] = None,
) -> None:
    """Quantize the model in use; refused (exit 3) and kept aside when it breaks a limit of [quantization]."""
    workspace, settings = open_workspace(context)
    from adstool.pipeline import Job, record
    from adstool.serving.quantization import quantize_run
    from adstool.warehouse import open_warehouse

    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds), open_warehouse(workspace, settings) as con:
        try:
            result = quantize_run(workspace, settings, con, model, scheme, max_ne_loss)
        except GateNotPassed as refused:
            if globals_of(context).json:
                print_json(refused.result)
            else:
                _show(context, refused.result)
            raise
        if model == "engagement":
            # `run` then knows that this stage is done with the model as it is.
            record(Job(workspace, settings, con), "quantize", result, started)
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
    heads = result.get("heads", {})
    rows = [
        (
            name,
            h["positives"],
            h["ne"],
            h["ne_int8"],
            f"{h['delta_ne']:+.3%}",
            f"{h['delta_calibration']:+.2%}",
        )
        for name, h in heads.items()
    ]
    if rows:
        table(context, ["head", "positives", "NE", "NE int8", "change", "calibration"], rows)
    latency = [
        (part, *(show(figures[p][q]) for p in ("fp32", "int8") for q in ("p50", "p99")))
        for part, figures in result["latency_ms"].items()
    ]
    table(context, ["ms", "fp32 p50", "fp32 p99", "int8 p50", "int8 p99"], latency)
