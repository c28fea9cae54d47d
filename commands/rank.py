"""adstool rank: slates for one user or for a stream of requests."""

from __future__ import annotations

import json
import sys
import time
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
from adstool.errors import AdstoolError, DataError, UsageError

if TYPE_CHECKING:
    from adstool.funnel.rank import Ranker

FLUSH_ROWS = 500_000  # candidates in memory, some 250 bytes each, from which the log is written
FLUSH_SECONDS = 5.0  # after which it is written with the next slate: a kill loses no more than these


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
    from adstool.device import limit_threads
    from adstool.funnel.rank import Ranker

    limit_threads(settings.funnel.threads)
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
        ranker.flush()
        return
    with _lines(requests) as lines:
        refused = _stream(context, ranker, lines, length, moment, explain, budget_ms)
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
    lines: IO[bytes],
    length: int,
    moment: Any,
    explain: bool,
    budget_ms: float | None,
) -> int:
    """A slate a line, each printed as soon as it is known; returns how many lines could not be read."""
    from adstool.funnel.request import Request
    from adstool.ingestion.inputs import physical_lines

    refused, flushed = 0, time.monotonic()
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
            if ranker.log.pending >= FLUSH_ROWS or time.monotonic() - flushed >= FLUSH_SECONDS:
                ranker.flush()
                flushed = time.monotonic()
    finally:
        # Slates that were printed are logged, whatever ended the stream.
        ranker.flush()
    return refused


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
