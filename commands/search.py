"""adstool search: the items nearest to a text or a picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, table
from adstool.errors import DataError, UsageError, choose

KINDS = {"ads": ("ad",), "pins": ("pin",)}


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        search,
        'adstool search "striped shoes" --in ads -k 5',
        "adstool search --image lamp.png --category lamps --active-at now",
    )


def search(
    context: typer.Context,
    text: Annotated[str | None, argument("What to look for, in words.", "TEXT", "--image")] = None,
    image: Annotated[
        Path | None,
        option(Group.DATA, "A picture to look for.", "--image", metavar="FILE", default="TEXT"),
    ] = None,
    where: Annotated[
        str | None,
        option(Group.DATA, "Which items.", "--in", metavar="ads|pins", default="both"),
    ] = None,
    category: Annotated[
        list[str] | None,
        option(Group.DATA, "Only items of this category.", "--category", metavar="NAME", default="any"),
    ] = None,
    advertiser: Annotated[
        list[str] | None,
        option(Group.DATA, "Only ads of this advertiser_id.", "--advertiser", metavar="ID", default="any"),
    ] = None,
    active_at: Annotated[
        str | None,
        option(
            Group.DATA,
            "Only items that were there, and ads that ran, at that time (ISO 8601, or now).",
            "--active-at",
            metavar="TS",
            default="any time",
        ),
    ] = None,
    k: Annotated[int, _options.count()] = 10,
) -> None:
    """Find the items nearest to a text or a picture.

    Words of the text that stand in titles count beside the vectors (setting content.words). Filters are
    part of the search, so that -k items come back where there are so many.
    """
    if where is not None and where not in KINDS:
        raise UsageError(f"--in {where} cannot be searched.", choose(where, KINDS))
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
    indexed = ws.current_run("index") is not None
    rank = "adstool rank --user USER --explain"
    next_verb(context, rank if indexed else f"adstool index, then {rank}")


def _moment(given: str | None) -> datetime | None:
    if given == "now":
        return datetime.now(UTC)
    from adstool.funnel.request import parse_time

    try:
        return parse_time(given, "--active-at")
    except DataError as error:
        raise UsageError(error.message, error.hint) from None
