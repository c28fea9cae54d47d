"""adstool ingest: files, folders and streams into the warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import counted, emit, next_verb, say
from adstool.errors import UsageError

if TYPE_CHECKING:
    from adstool.ingestion.load import Counts


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        ingest,
        "adstool ingest world",
        "adstool ingest events.csv --table events --map uid=user_id --map when=ts --dry-run",
    )


def ingest(
    context: typer.Context,
    paths: Annotated[list[str], argument("Files, folders, or - for standard input.", "PATH...")],
    table_name: Annotated[str | None, _options.table("of a file the one its name says")] = None,
    source: Annotated[
        str | None,
        option(
            Group.DATA,
            "A data set as it is published: movielens, taobao-ad, criteo, avazu, open-bandit or ipinyou; or "
            "sequences, files of `user item` in time order.",
            "--source",
            metavar="NAME",
            default="none: columns are named as in the tables",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        option(
            Group.DATA,
            "How files are written.",
            "--format",
            metavar="jsonl|csv|parquet",
            default="told by names and contents",
        ),
    ] = None,
    images: Annotated[Path | None, _options.images("the folder of the catalogue")] = None,
    mapping: Annotated[
        list[str] | None,
        option(
            Group.COLUMNS,
            "Their column is our field, such as uid=user_id.",
            "--map",
            metavar="COLUMN=FIELD",
            default="columns are named as our fields",
        ),
    ] = None,
    on_error: Annotated[
        str,
        option(
            Group.RUNNING,
            "quarantine keeps refused rows for `adstool rejects`; abort stops at the first.",
            "--on-error",
            metavar="quarantine|abort",
        ),
    ] = "quarantine",
    dry_run: _options.DryRun = False,
) -> None:
    """Load files into the warehouse: jsonl, csv and parquet.

    Files may be compressed (.gz, .zst), come in folders or from standard input. Every row is taken,
    recognised as a duplicate, or refused with file, line and reason; loading a file again changes nothing.
    Columns that no table has are kept as attributes. --dry-run reads and checks everything.

    --source reads public data as published: of ipinyou bids with floor, bid and paid price, impressions,
    clicks and conversions; of criteo and avazu a flat table for `train engagement --train criteo`.
    """
    from adstool.ingestion.ingest import IngestOptions, dry_run_warehouse
    from adstool.ingestion.ingest import ingest as load
    from adstool.warehouse import open_warehouse

    workspace, settings = open_workspace(context)
    if images is not None and not images.is_dir():
        raise UsageError(f"--images {images} is not a folder.", "Name the folder that holds the pictures.")
    options = IngestOptions(table_name, source, kind, _pairs(mapping or []), images, on_error, dry_run)
    if dry_run:
        with dry_run_warehouse(workspace, settings) as con:
            result = load(con, workspace, paths, options)
    else:
        with (
            workspace.lock(settings.warehouse.lock_wait_seconds),
            open_warehouse(workspace, settings) as con,
        ):
            result = load(con, workspace, paths, options)
    if emit(context, {**result.to_json(), "dry_run": dry_run}):
        return
    for row in _lines(result.tables):
        say(context, row)
    total = sum(counts.read for counts in result.tables.values())
    speed = f"{total / max(result.seconds, 1e-9):,.0f} rows/s"
    say(context, f"{counted(total, 'row')} in {result.seconds:.1f} s, {speed}")
    if dry_run:
        say(context, "Nothing was written: this was a dry run.")
    refused = [name for name, counts in result.tables.items() if counts.rejected]
    if refused and not dry_run:
        were = "was" if result.rejected == 1 else "were"
        say(
            context, f"{counted(result.rejected, 'row')} {were} refused: adstool rejects --table {refused[0]}"
        )
    next_verb(context, _next(result.tables, dry_run))


def _next(tables: dict[str, Counts], dry_run: bool) -> str:
    """What to do after these rows."""
    from adstool.warehouse.flat import FLAT_TABLES

    flat = [name for name in tables if name in FLAT_TABLES]
    if all(counts.read and counts.rejected == counts.read for counts in tables.values()):
        return f"adstool rejects --table {next(iter(tables))}" if not dry_run else "mend the files or --map."
    if dry_run:
        return "the same without --dry-run."
    if len(flat) == len(tables):
        return f"adstool train engagement --train {flat[0]}"
    return "adstool status, then adstool run."


def _lines(tables: dict[str, Counts]) -> list[str]:
    """A line a table, its figures in columns."""
    cells = [
        [
            name,
            f"{counts.read:,} read",
            f"{counts.inserted - counts.updated:,} new",
            *([f"{counts.updated:,} updated"] if any(c.updated for c in tables.values()) else []),
            f"{counts.duplicate:,} duplicate",
            f"{counts.rejected:,} rejected",
        ]
        for name, counts in tables.items()
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + row[0].ljust(widths[0])
        + "".join(f"   {cell.rjust(w)}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in cells
    ]


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        theirs, mark, ours = text.rpartition("=")
        if not mark or not theirs or not ours:
            raise UsageError(f"--map {text} is not column=field.", "Write --map THEIR_COLUMN=OUR_FIELD.")
        if theirs in pairs:
            raise UsageError(f"--map names the column '{theirs}' twice.", "Keep one of them.")
        pairs[theirs] = ours
    return pairs
