"""The exceptions adstool raises on purpose: each becomes one message and one exit code."""

from __future__ import annotations

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
    where it ends with the words of somebody else; `hint` says what to try.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message = message.rstrip()
        self.message = message if message.endswith((".", "!", "?")) else f"{message}."
        super().__init__(self.message)
        self.hint = hint


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
