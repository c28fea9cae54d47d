"""adstool search: the items nearest to a text or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, table
from adstool.errors import UsageError

KINDS = {"ads": ("ad",), "pins": ("pin",)}


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("search")(search)


def search(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to look for.")] = None,
    where: Annotated[str | None, typer.Option("--in", help="ads or pins; both when not given.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many results.")] = 10,
) -> None:
    """Find the items nearest to a text or a picture."""
    if where is not None and where not in KINDS:
        raise UsageError(f"--in {where} cannot be searched.", f"Use one of: {', '.join(KINDS)}.")
    ws, settings = open_workspace(context)
    from adstool.content.search import search_items
    from adstool.warehouse import open_warehouse

    kinds = KINDS[where] if where else ("ad", "pin")
    with open_warehouse(ws, settings, read_only=True) as con:
        hits = search_items(ws, settings, con, text=text, image=image, kinds=kinds, k=k)
    results = [
        {"item_id": hit.item_id, "score": hit.score, "title": hit.title, "item_type": hit.item_type}
        for hit in hits
    ]
    if emit(context, {"results": results}):
        return
    table(
        context,
        ["item", "type", "score", "title"],
        [(hit.item_id, hit.item_type, round(hit.score, 4), hit.title) for hit in hits],
    )
    next_verb(context, "adstool index, then adstool rank --user USER --explain")
