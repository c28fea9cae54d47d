"""Everything a verb prints: one JSON object for scripts, or tables for people; notes go to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO, TextIOWrapper
from typing import Any

import typer

from adstool.commands._context import Globals, globals_of
from adstool.commands._streams import CONTROLS, ReaderGone, lead_nowhere, printable, write

# The verbs that answer a question: their tables are the result, which --quiet leaves.
ANSWERS = {"rejects", "status", "sql", "search", "interests", "rank"} | {
    "evaluate",
    "simulate",
    "bench",
    "doctor",
    "config",
    "models",
}


def emit(context: typer.Context, payload: Mapping[str, Any]) -> bool:
    """With --json, keep `payload` as the one JSON object of this run, printed at its end, and return True."""
    options = globals_of(context)
    options.result = payload
    wanted: bool = options.json
    return wanted


def finish(options: Globals, failure: Mapping[str, Any] | None) -> None:
    """With --json, print the result; what failed is its key `error`, or all there is without a result."""
    if not options.json or options.printed:
        return
    if options.result is not None or failure is not None:
        print_json({**(options.result or {}), **({"error": failure} if failure else {})})


def describe(kind: str, message: str, hint: str, code: int) -> dict[str, Any]:
    """What failed, as JSON: `kind` is the name of the exception, for scripts to tell failures apart."""
    return {"kind": kind, "message": message, "try": hint, "exit_code": code}


def complain(message: str, hint: str) -> None:
    """What failed and what to try, for people, on stderr."""
    write(sys.stderr, printable(f"error: {message}\n" + (f"  try: {hint}\n" if hint else "")))


def print_line(context: typer.Context, payload: Any) -> None:
    """A line of JSON of a verb that prints many; raises ReaderGone when nobody reads them any more."""
    globals_of(context).printed = True
    try:
        print_json(payload)
    except BrokenPipeError:
        lead_nowhere(sys.stdout)
        raise ReaderGone from None


def print_json(payload: Any) -> None:
    """One line of JSON on stdout; NaN and infinity become null, other types their text."""
    ascii_only = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    line = json.dumps(_clean(payload), ensure_ascii=ascii_only, default=str)
    # JSON escapes most controls by itself; the others mean the same when spelled out.
    sys.stdout.write(CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", line) + "\n")
    sys.stdout.flush()


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _clean(value.item())
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    return value


def say(context: typer.Context, text: str) -> None:
    """A line for people on stdout; nothing with --json or --quiet."""
    options = globals_of(context)
    if not options.json and not options.quiet:
        write(sys.stdout, printable(text) + "\n")


def table(
    context: typer.Context, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = ""
) -> None:
    """A table for people on stdout; numbers are right-aligned. Not with --json; with --quiet only ANSWERS."""
    options = globals_of(context)
    if options.json or (options.quiet and context.info_name not in ANSWERS):
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    shown = Table(
        title=Text(printable(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, name in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[index], int | float | None) for row in listed)
        # Text, for a name may come from a file, and rich would take a str for its markup.
        shown.add_column(Text(printable(name)), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        shown.add_row(*(Text(show(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    # Rendered aside, for rich ends the process when a reader goes away (| head).
    aside = TextIOWrapper(BytesIO(), sys.stdout.encoding or "utf-8", "backslashreplace")
    console = Console(file=aside, force_terminal=terminal, width=None if terminal else 160, highlight=False)
    console.print(shown)
    aside.seek(0)
    lines = aside.read().splitlines()
    write(sys.stdout, "".join(f"{line if terminal else line.rstrip()}\n" for line in lines))


def show(value: Any) -> str:
    """A value as people read it: 1,234,567; .0123 as 0.0123; None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    text: str = printable(str(value))
    return text


def counted(number: int, noun: str) -> str:
    """A number of things as people read it: 1 row, 1,234 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def next_verb(context: typer.Context, text: str) -> None:
    """The closing line of a verb: what to run next."""
    say(context, f"Next: {text}")


class NoteHandler(logging.Handler):
    """Notes and warnings of the library as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        label = {"WARNING": "warning: ", "ERROR": "error: "}.get(record.levelname, "")
        write(sys.stderr, printable(f"{label}{record.getMessage()}\n"))


def set_up_notes(quiet: bool, verbose: bool, debug: bool) -> None:
    """Send the library's notes to stderr: warnings when quiet, all with --verbose."""
    logger = logging.getLogger("adstool")
    logger.handlers = [NoteHandler()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose or debug else logging.WARNING if quiet else logging.INFO)
    # LanceDB warns of what is no concern of a user, such as a table that is made because it was not there.
    os.environ.setdefault("LANCEDB_LOG", "warn" if debug else "error")
