"""Standard streams as scripts and cron leave them: closed, cut off, or in an encoding that lacks letters."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

from adstool.errors import AdstoolError

# All but tab and line feed, and what turns the direction of a line.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class ReaderGone(Exception):
    """Nobody reads what a verb prints line by line any more (| head): it ends, and that is no failure.

    Not a BrokenPipeError, of which typer would make exit code 1 by itself.
    """


def open_standard_streams() -> None:
    """Make stdin, stdout and stderr safe to use, whatever the caller made of them.

    A closed one leads nowhere; else the next file that is opened, the warehouse perhaps, would get its
    number and a library's message would be written into it. A character that the encoding lacks is replaced.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not when a test or notebook put something else in its place
            stream.reconfigure(errors="backslashreplace")


def lead_nowhere(stream: TextIO) -> None:
    """Send what else is written to `stream`, whose reader went away, nowhere, so that work goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """`text` with control characters spelled out: an id from a file must not command a terminal."""
    return CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def write(stream: TextIO, text: str) -> None:
    """Write text for people at once; when its reader has gone away (| head), what is written is dropped.

    Raises AdstoolError when the result cannot be written for another reason; notes never stop the work.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        lead_nowhere(stream)
        if stream is not sys.stderr and not isinstance(error, BrokenPipeError):
            raise AdstoolError(
                f"Standard output cannot be written: {error.strerror}.", "Make room, or write it elsewhere."
            ) from None
