"""The exceptions adstool raises on purpose: each becomes one message and one exit code."""


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
