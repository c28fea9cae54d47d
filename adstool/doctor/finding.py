"""What a check found: fit, odd (said, with what would be better) or at fault (to be mended)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from adstool.errors import AdstoolError, WorkspaceLocked


@dataclass(frozen=True)
class Check:
    """One finding. `ok` and a `mend`: nothing is at fault, but it could be better."""

    name: str
    ok: bool
    found: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as `doctor --json` lists it."""
        return asdict(self)


def fit(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, True, found)


def odd(name: str, found: str, mend: str) -> Check:
    """Work goes on, but slower, or on less than there is."""
    return Check(name, True, found, mend)


def fault(name: str, found: str, mend: str) -> Check:
    """Work fails, or its results are wrong, until this is mended."""
    return Check(name, False, found, mend)


def guarded(name: str, checks: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The findings of `checks`; what it raises is a finding, too."""
    try:
        yield from checks()
    except WorkspaceLocked as busy:
        yield odd(name, busy.message, busy.hint)
    except AdstoolError as error:
        yield fault(name, error.message, error.hint)
    except (OSError, ValueError) as error:
        yield fault(
            name, f"cannot be looked at: {error}", "Mend its permissions, or run adstool doctor --debug."
        )
