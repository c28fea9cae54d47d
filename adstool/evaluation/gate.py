"""Limits that an evaluation must keep: a TOML file of metrics with min and max, for scripts and pipelines."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adstool.documents import read_toml
from adstool.errors import AdstoolError, quoted

BOUNDS = {"min", "max"}


@dataclass(frozen=True)
class Limit:
    """One metric by its dotted path in the results, and the bounds it must keep."""

    path: tuple[str, ...]
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        """The path as written in the file: stage.metric."""
        return ".".join(self.path)


@dataclass(frozen=True)
class Check:
    """A limit and what was measured; None when it could not be."""

    limit: Limit
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the metric is known and within its bounds."""
        if self.value is None or not math.isfinite(self.value):
            return False
        low, high = self.limit.low, self.limit.high
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    def sentence(self) -> str:
        """What failed, in words."""
        if self.value is None or not math.isfinite(self.value):
            return f"{self.limit.name} is not known"
        if self.limit.low is not None and self.value < self.limit.low:
            return f"{self.limit.name} is {self.value:.6g}, below {self.limit.low:g}"
        return f"{self.limit.name} is {self.value:.6g}, above {self.limit.high:g}"


def read_gate(path: Path) -> list[Limit]:
    """The limits in a file: [stage] sections with metric = {min = .., max = ..}, nested as the results are.

    Raises AdstoolError for a file that is missing, does not parse, or holds something else than limits.
    """
    limits = list(_limits(read_toml(path, f"The gate {path}"), (), path))
    if not limits:
        raise AdstoolError(
            f"The gate {path} has no limit.",
            "Write, for example, [lightweight] and below it utility_regret = {max = 0.05}.",
        )
    return limits


def _limits(value: Mapping[str, Any], path: tuple[str, ...], file: Path) -> Iterator[Limit]:
    for key, inner in value.items():
        here = (*path, key)
        name = ".".join(here)
        if not isinstance(inner, dict):
            raise AdstoolError(
                f"The gate {file}: {name} is not a limit.", f"Write {key} = {{min = .., max = ..}}."
            )
        if not inner or BOUNDS.isdisjoint(inner):
            yield from _limits(inner, here, file)
            continue
        for bound, number in inner.items():
            if bound not in BOUNDS or not _is_number(number):
                raise AdstoolError(
                    f"The gate {file}: {name}.{bound} = {quoted(number)} is no bound.",
                    "Use min and max with numbers.",
                )
        yield Limit(here, *(float(inner[end]) if end in inner else None for end in ("min", "max")))


def _is_number(value: Any) -> bool:
    """Whether a bound can be compared with: no NaN, which nothing passes, and no integer beyond floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isnan(value) if isinstance(value, float) else abs(value) < 2**1023


def check_gate(limits: list[Limit], results: Mapping[str, Any]) -> list[Check]:
    """Every limit against the results. Raises AdstoolError for a metric the results do not have."""
    figures = dict(_figures(results))
    checks = []
    for limit in limits:
        if limit.path not in figures:
            known = [".".join(path) for path in figures]
            near = difflib.get_close_matches(limit.name, known, n=1, cutoff=0.3)
            raise AdstoolError(
                f"The gate asks for '{limit.name}', which this evaluation did not measure.",
                f"Did you mean '{near[0]}'?" if near else "See adstool --json evaluate for the names.",
            )
        checks.append(Check(limit, figures[limit.path]))
    return checks


def _figures(
    value: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float | None]]:
    for key, inner in value.items():
        here = (*path, str(key))
        if isinstance(inner, Mapping):
            yield from _figures(inner, here)
        elif inner is None or (isinstance(inner, int | float) and not isinstance(inner, bool)):
            yield here, None if inner is None else float(inner)
