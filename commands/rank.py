"""adstool rank: slates for one user or for a stream of requests."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import globals_of, open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, option
from adstool.commands._output import print_line, say, show, table
from adstool.errors import AdstoolError, DataError, UsageError, WorkspaceLocked

if TYPE_CHECKING:
    from adstool.config import Settings
    from adstool.funnel.rank import Ranker
    from adstool.workspace import Workspace

FLUSH_ROWS = 200_000  # candidates in memory from which the log is written, if the warehouse is free
MOST_ROWS = 4_000_000  # candidates in memory at which the stream waits for the warehouse


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        rank,
        "adstool rank --user u1 -k 5 --explain",
        "adstool rank --requests requests.jsonl --json",
    )


def rank(
    context: typer.Context,
    user: Annotated[
        str | None,
        option(
            Group.DATA,
            "Whose slate; somebody unknown gets one too.",
            "--user",
            metavar="ID",
            default="those of --requests",
        ),
    ] = None,
    surface: Annotated[
        str | None,
        option(
            Group.DATA,
            "With --user: where the slate is shown, such as home.",
            "--surface",
            metavar="NAME",
            default="not known",
        ),
    ] = None,
    query: Annotated[
        str | None,
        option(
            Group.DATA, "With --user: what is searched for.", "--query", metavar="TEXT", default="nothing"
        ),
    ] = None,
    requests: Annotated[
        Path | None,
        option(
            Group.DATA,
            "JSON Lines of requests, a slate each; - is standard input.",
            "--requests",
            metavar="FILE",
            default="that of --user",
            allow_dash=True,
        ),
    ] = None,
    at: Annotated[
        str | None,
        option(
            Group.DATA,
            "Rank with what was known at that time (ISO 8601).",
            "--at",
            metavar="TS",
            default="of the request, else of the last event indexed",
        ),
    ] = None,
    slate: Annotated[int | None, _options.count(setting="funnel.slate", max=1000)] = None,
    budget_ms: Annotated[
        float | None,
        option(
            Group.LIMITS,
            "Milliseconds of a request; what would take longer is left out.",
            "--budget-ms",
            min=0.1,
            metavar="MS",
            setting="funnel.budget_ms",
        ),
    ] = None,
    explain: Annotated[bool, option(Group.OUTPUT, "Say why each item is there.", "--explain")] = False,
) -> None:
    """Rank slates for a user or for requests, one JSON line each.

    A request is {"user_id": "u1", "surface": "home", "query": null, "ts": null, "request_id": null, "k":
    10}; only user_id is needed. Campaigns that have spent their daily_budget, by what their slots are
    expected to cost, are left out of the search until the next day. Where a stage fails, `fallbacks` of
    the slate says why and what was served instead. Every candidate of every stage goes into the funnel
    log.
    """
    if (user is None) == (requests is None):
        raise UsageError("Give either --user or --requests.", "adstool rank --user u1")
    if requests is not None and (surface is not None or query is not None):
        raise UsageError("--surface and --query go with --user.", "Write them into the requests.")
    from adstool.funnel.request import parse_time

    try:
        moment = parse_time(at, "--at")
    except DataError as error:
        raise UsageError(error.message, error.hint) from None
    workspace, settings = open_workspace(context)
    from adstool.funnel.rank import Ranker

    ranker = Ranker(workspace, settings)
    ranker.warm()
    length = settings.funnel.slate if slate is None else slate
    if requests is None:
        request = {"user_id": user, "surface": surface, "query": query}
        answer = ranker.rank(request, k=length, at=moment, explain=explain, budget_ms=budget_ms)
        if globals_of(context).json:
            print_line(context, answer)
        else:
            _show(context, answer)
        _flush(ranker, workspace, settings)
        return
    with _lines(requests) as lines:
        refused = _stream(context, ranker, workspace, settings, lines, length, moment, explain, budget_ms)
    if refused:
        raise AdstoolError(
            f"{refused} request{'s' if refused > 1 else ''} could not be read; the others were served.",
            "The lines are named above.",
        )


@contextmanager
def _lines(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    if not path.is_file():
        raise DataError(f"{path} is no file of requests.", "Check the name; - is stdin.")
    with open(path, "rb") as handle:
        yield handle


def _stream(
    context: typer.Context,
    ranker: Ranker,
    workspace: Workspace,
    settings: Settings,
    lines: IO[bytes],
    length: int,
    moment: Any,
    explain: bool,
    budget_ms: float | None,
) -> int:
    """A slate a line, each printed as soon as it is known; returns how many lines could not be read."""
    from adstool.funnel.request import Request
    from adstool.ingestion.inputs import physical_lines

    refused = 0
    try:
        for number, line in physical_lines(lines):
            if not line.strip():
                continue
            try:
                request = Request.parse_line(line, length)
            except DataError as error:
                refused += 1
                sys.stderr.write(
                    json.dumps({"line": number, "error": error.message, "try": error.hint}) + "\n"
                )
                continue
            print_line(context, ranker.rank(request, at=moment, explain=explain, budget_ms=budget_ms))
            if ranker.log.pending >= FLUSH_ROWS:
                _flush_if_free(ranker, workspace, settings)
    finally:
        # Slates that were printed are logged, whatever ended the stream.
        _flush(ranker, workspace, settings)
    return refused


def _flush(ranker: Ranker, workspace: Workspace, settings: Settings) -> None:
    if not ranker.log.pending:
        return
    try:
        with workspace.lock(settings.warehouse.lock_wait_seconds):
            ranker.flush()
    except WorkspaceLocked as locked:
        raise WorkspaceLocked(
            f"The slates are printed, but their {ranker.log.pending:,} candidates are not in the funnel log: "
            f"{locked.message}",
            locked.hint,
        ) from None


def _flush_if_free(ranker: Ranker, workspace: Workspace, settings: Settings) -> None:
    """Write the log now if nobody holds the warehouse; later if somebody does, as long as memory allows."""
    if ranker.log.pending >= MOST_ROWS:
        _flush(ranker, workspace, settings)
        return
    patient = ranker.settings
    ranker.settings = dataclasses.replace(
        patient, warehouse=dataclasses.replace(patient.warehouse, lock_wait_seconds=0.0)
    )
    try:
        with workspace.lock(0.0):
            ranker.flush()
    except WorkspaceLocked:
        return
    finally:
        ranker.settings = patient


def _show(context: typer.Context, answer: dict[str, Any]) -> None:
    ads = answer["ads"]
    heads = list(ads[0]["predictions"]) if ads else []
    explained = bool(ads) and "why" in ads[0]
    columns = ["ad", *(["title"] if explained else []), "source", *heads, "bid", "price", "score"]
    rows = []
    for ad in ads:
        row = [ad["ad_id"], *([ad["title"]] if explained else []), ad["source"]]
        row += [f"{probability:.2%}" for probability in ad["predictions"].values()]
        row += [ad["bid"], ad["price"], ad["score"], *([ad["why"]] if explained else [])]
        rows.append(row)
    table(context, [*columns, *(["why"] if explained else [])], rows)
    if "funnel" in answer:
        funnel = answer["funnel"]
        brought = ", ".join(f"{name} {count:,}" for name, count in funnel["sources"].items())
        say(context, f"Sources: {brought}.")
        say(
            context,
            f"{funnel['retrieval']:,} candidates -> {funnel['lightweight']:,} -> {funnel['slate']:,}",
        )
    if "note" in answer:
        say(context, f"Note: {answer['note']}.")
    for fallback in answer.get("fallbacks", ()):
        say(context, f"{fallback['stage']} failed, served: {fallback['served']}. {fallback['reason']}")
    if "trimmed" in answer:
        trimmed = answer["trimmed"]
        left = [f"sources {', '.join(trimmed['sources'])}"] if trimmed.get("sources") else []
        left += [f"all but {trimmed['heavy']} candidates of the heavy ranker"] if "heavy" in trimmed else []
        say(context, f"No time for {' and '.join(left)}.")
    latency = ", ".join(f"{name} {show(ms)}" for name, ms in answer["latency_ms"].items())
    say(context, f"ms: {latency}")
