"""adstool search: the items nearest to a text or a picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, table
from adstool.errors import DataError, UsageError

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
    category: Annotated[
        list[str] | None, typer.Option(help="Only items of this category; repeat it for more.")
    ] = None,
    advertiser: Annotated[
        list[str] | None, typer.Option(help="Only ads of this advertiser_id; repeat it for more.")
    ] = None,
    active_at: Annotated[
        str | None, typer.Option(metavar="TS", help="Only items there and running at that time; or now.")
    ] = None,
) -> None:
    """Find the items nearest to a text or a picture."""
    if where is not None and where not in KINDS:
        raise UsageError(f"--in {where} cannot be searched.", f"Use one of: {', '.join(KINDS)}.")
    moment = _moment(active_at)
    ws, settings = open_workspace(context)
    from adstool.content.attributes import Filter
    from adstool.content.search import search_items
    from adstool.warehouse import open_warehouse

    kinds = KINDS[where] if where else ("ad", "pin")
    among = Filter(tuple(category or ()), tuple(advertiser or ()), moment)
    with open_warehouse(ws, settings, read_only=True) as con:
        hits = search_items(ws, settings, con, text=text, image=image, kinds=kinds, k=k, among=among)
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


def _moment(given: str | None) -> datetime | None:
    if given == "now":
        return datetime.now(UTC)
    from adstool.funnel.request import parse_time

    try:
        return parse_time(given, "--active-at")
    except DataError as error:
        raise UsageError(error.message, error.hint) from None
