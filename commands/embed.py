"""adstool embed: CLIP vectors of pictures and texts into LanceDB, only what is new or changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse
from adstool.errors import AdstoolError, DataError, UsageError, choose

if TYPE_CHECKING:
    from adstool.config import Settings
    from adstool.content.embedding import EmbedResult
    from adstool.workspace import Workspace

KINDS = {"ads": ("ad",), "pins": ("pin",), "all": ("ad", "pin")}
SHOWN = 10  # failures listed for people; --json has all


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        embed,
        "adstool embed",
        "adstool embed ads --model ViT-B-32 --pretrained clip.safetensors",
    )


def embed(
    context: typer.Context,
    what: Annotated[str, argument(_options.KIND_OF_ITEMS, "ads|pins|all")] = "all",
    images: Annotated[
        Path | None, _options.images("that of each catalogue, as ingested", exists=True, file_okay=False)
    ] = None,
    model: Annotated[
        str | None,
        option(
            Group.MODEL,
            "adstool-small, clip@RUN of `train clip`, local-dir:PATH or a name of open_clip.",
            "--model",
            metavar="NAME",
            setting="content.model",
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        option(
            Group.MODEL,
            "Weights of an open_clip model: a checkpoint file, or a tag, which is downloaded.",
            "--pretrained",
            metavar="FILE|TAG",
            setting="content.pretrained",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        option(
            Group.MODEL,
            "Of the forward pass; auto is bf16 where the hardware has it.",
            "--precision",
            metavar="auto|fp32|bf16",
            setting="content.precision",
        ),
    ] = None,
    batch_size: Annotated[int | None, _options.batch_size(setting="content.batch_size")] = None,
    engine: _options.Engine = "local",
    workers: _options.Workers = None,
    dry_run: _options.DryRun = False,
) -> None:
    """Embed pictures and texts with CLIP, only what is new or changed.

    Vectors go into LanceDB, where `search`, `interests`, the rankers and `index` find them. adstool-small
    ships with adstool; nothing is downloaded unless --pretrained names a tag.
    """
    if what not in KINDS:
        raise UsageError(f"'{what}' cannot be embedded.", choose(what, KINDS))
    if engine not in ("local", "ray"):
        raise UsageError(f"There is no engine '{engine}'.", choose(engine, ("local", "ray")))
    if workers is not None and engine != "ray":
        raise UsageError("--workers goes with --engine ray.", "Leave it out, or add --engine ray.")
    if model is not None and pretrained is None:
        pretrained = ""  # the weights in the settings belong to the model in the settings
    flags = {
        "content.model": model,
        "content.pretrained": pretrained,
        "content.precision": precision,
        "content.batch_size": batch_size,
    }
    ws, usual = open_workspace(context)
    ws, settings = open_workspace(context, flags)
    if dry_run:
        from adstool.planned import plan_embed

        kinds = KINDS[what]
        plan_of_warehouse(context, ws, settings, lambda con: plan_embed(ws, settings, con, kinds, images))
        return
    from adstool.content.embedding import embed_items
    from adstool.distributed.embedding import ray_engine
    from adstool.pipeline import record
    from adstool.warehouse import open_warehouse

    chosen = ray_engine(workers) if engine == "ray" else None
    another = (model is not None or pretrained is not None) and not _same_model(ws, settings, usual)
    remembered = settings if another or precision else usual
    started = datetime.now(UTC)
    with ws.lock(settings.warehouse.lock_wait_seconds):
        with open_warehouse(ws, settings, read_only=True) as con:
            done = embed_items(ws, settings, con, KINDS[what], images=images, engine=chosen)
        if what == "all":
            # `run` then knows that this stage is done with the data as they are.
            record(ws, remembered, "embed", done.to_json(), started)
    if not emit(context, done.to_json()):
        _show(context, done)
        if another:
            say(context, "To keep this model for `run`, write it into [content] of adstool.toml.")
    if done.complaint:
        raise DataError(done.complaint, "Mend or remove them, and embed again: only they are done again.")
    next_verb(context, 'adstool search "what you look for", or adstool train retrieval')


def _same_model(ws: Workspace, one: Settings, other: Settings) -> bool:
    """Whether both settings mean the same weights, such as clip@current and the name that stands for it."""
    from adstool.content.clip import resolve_source

    try:
        return resolve_source(ws, one).identity == resolve_source(ws, other).identity
    except AdstoolError:  # of which one is not to be had
        return False


def _show(context: typer.Context, done: EmbedResult) -> None:
    say(
        context,
        f"{done.model}: {done.embedded:,} embedded, {done.skipped:,} unchanged, {done.failed:,} failed,"
        f" {done.removed:,} removed; {done.dim} numbers a vector, {done.items_per_second:,.0f} items/s.",
    )
    if done.described:
        say(context, f"Attributes that searches filter by were updated for {done.described:,} items.")
    if done.failures:
        table(context, ["item", "why its picture is not used"], done.failures[:SHOWN])
