"""What a verb took at several sizes of the log, and how fast that grows.

The local exponent between two sizes is ln(work ratio) / ln(events ratio): 1 is linear, below it what does not
grow still shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """What one verb took at one size."""

    verb: str
    events: int  # in the log
    rows: int  # that the verb works through: events, items or requests
    seconds: float
    cpu_seconds: float | None
    peak_mb: float | None


def exponent(before: Measured, now: Measured, of: str) -> float | None:
    """The local exponent of `seconds`, `cpu_seconds` or `peak_mb` in events; None where it is not known."""
    old, new = getattr(before, of), getattr(now, of)
    if not old or not new or now.events == before.events:
        return None
    return math.log(new / old) / math.log(now.events / before.events)


def pairs(measured: Sequence[Measured]) -> Iterator[tuple[Measured | None, Measured]]:
    """Every measurement with that of the same verb at the size before, verb by verb."""
    for verb in dict.fromkeys(one.verb for one in measured):
        before = None
        for one in measured:
            if one.verb == verb:
                yield before, one
                before = one
