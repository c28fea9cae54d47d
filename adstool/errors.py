"""The exceptions adstool raises on purpose: each becomes one message and one exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterable


def choose(given: str, known: Iterable[str]) -> str:
    """What to try where `given` is none of `known`: the nearest if one is near, and all if they are few."""
    from difflib import get_close_matches

    names = [str(name) for name in known]
    near = get_close_matches(str(given), names, n=1, cutoff=0.5)
    nearest = f"Did you mean '{near[0]}'? " if near else ""
    listed = f"Use one of: {', '.join(names)}." if not near or len(names) <= 12 else ""
    return f"{nearest}{listed}".strip()


class AdstoolError(Exception):
    """Something failed that the user can act on.

    `message` says what happened and where (file, row, option) in a sentence, which gets its full stop here
    where it ends with the words of somebody else; `hint` says what to try. Of what is longer than two
    thousand characters, because it repeats a huge value, the middle is left out.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message = _shortened(message.rstrip())
        self.message = message if message.endswith((".", "!", "?")) else f"{message}."
        super().__init__(self.message)
        self.hint = _shortened(hint)


def _shortened(text: str) -> str:
    return text if len(text) <= 2000 else f"{text[:1500]} ... {text[-490:]}"


class UsageError(AdstoolError):
    """The command was given words or options that cannot be used together or at all."""

    exit_code = 2


class GateNotPassed(AdstoolError):
    """A quality gate refused a result; `result` is what was measured."""

    exit_code = 3

    def __init__(self, message: str, result: dict[str, object], hint: str = "") -> None:
        super().__init__(message, hint)
        self.result = result


class WorkspaceLocked(AdstoolError):
    """Another process is writing to the workspace."""


class DataError(AdstoolError):
    """Input data cannot be read or does not hold what is needed."""


def quoted(value: object, most: int = 80) -> str:
    """A value from outside as a message quotes it: its repr, cut where that is long."""
    text = repr(value[: most + 1] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= most else f"{text[:most]}..."


# What an operating system says of a disk that takes no more and of a file that may not be touched. Libraries
# pass the words on in errors of their own, without the number.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
_NO_ROOM_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "not enough space",
    "requested and",  # of numpy: so many numbers requested and fewer written
)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_RIGHT_WORDS = ("Permission denied", "Read-only file system", "Operation not permitted")


def refused_by_disk(error: BaseException) -> AdstoolError | None:
    """The message for a disk that is full or forbids, whoever says so; None when it is not that."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_ROOM or any(word in str(error) for word in _NO_ROOM_WORDS):
        return AdstoolError(
            f"The disk took no more: {_said(error)}",
            "Free some (adstool doctor says how much there is); then the same command goes on from here.",
        )
    if number in _NO_RIGHT or any(word in str(error) for word in _NO_RIGHT_WORDS):
        return AdstoolError(
            f"This account may not do that: {_said(error)}",
            "Give it the right to write there (ls -l shows who has it), or name another workspace or file.",
        )
    return None


def of_system(error: BaseException) -> AdstoolError | None:
    """The message for what the operating system refused; None when it is not that."""
    refused = refused_by_disk(error)
    if refused is None and isinstance(error, OSError):
        return AdstoolError(_said(error), "Look whether the file is there and its disk is sound; try again.")
    return refused


def _said(error: BaseException) -> str:
    """What an error says, in one line, with the file that it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
