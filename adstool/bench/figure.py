"""A figure of `adstool bench`, and timing two calls in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measurement: value and floor in the same unit, and value ÷ floor."""

    name: str
    unit: str
    value: float
    floor: float
    floor_is: str
    beside: dict[str, float | None] = field(default_factory=dict)  # what else was measured with it

    @property
    def ratio(self) -> float:
        """value ÷ floor: how many times the floor's cost (or speed, for figures a second)."""
        return self.value / self.floor if self.floor else float("nan")

    def to_json(self) -> dict[str, Any]:
        """The figure as `bench --json` lists it."""
        return {
            "value": self.value,
            "floor": self.floor,
            "ratio": self.ratio,
            "unit": self.unit,
            "floor_is": self.floor_is,
            **self.beside,
        }


def alternate(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of two calls, made in turn `repeats` times after one warm-up of each."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for call, times in zip((first, second), taken, strict=True):
            begun = time.perf_counter()
            call()
            if turn:
                times.append(time.perf_counter() - begun)
    return statistics.median(taken[0]), statistics.median(taken[1])
