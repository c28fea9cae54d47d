"""A request on time: what each stage has cost lately, and what is left out where that would be too late."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

MEMORY = 0.05  # weight of the newest cost in the running mean
FIXED = 0.3  # share of a ranker's time that does not depend on how many candidates it scores


class Pace:
    """Running means of what stages cost, in ms; one for all requests of a ranker."""

    def __init__(self) -> None:
        self._costs: dict[str, float] = {}

    def learn(self, stage: str, ms: float, share: float = 1.0) -> None:
        """A stage took `ms` on this share of its usual candidates."""
        whole = ms / (FIXED + (1.0 - FIXED) * share)
        before = self._costs.get(stage, whole)
        self._costs[stage] = before + MEMORY * (whole - before)

    def cost(self, stage: str, share: float = 1.0) -> float:
        """What a stage is expected to take on this share of its usual candidates, ms; 0 where unknown."""
        return self._costs.get(stage, 0.0) * (FIXED + (1.0 - FIXED) * share)

    def share(self, stage: str, ms: float) -> float:
        """The share of its usual candidates that a stage can take in `ms`, at most 1; 1 where unknown."""
        whole = self._costs.get(stage, 0.0)
        return 1.0 if whole <= 0 else min(1.0, max(0.0, (ms / whole - FIXED) / (1.0 - FIXED)))


@dataclass
class Deadline:
    """The time that one request may take; says what there is no time for, and remembers it."""

    pace: Pace
    budget_ms: float  # 0: no limit
    started: float = field(default_factory=time.perf_counter)
    skipped: list[str] = field(default_factory=list)  # sources there was no time for
    scored: int | None = None  # candidates the heavy ranker was given instead of the usual number

    @property
    def left(self) -> float:
        """Milliseconds that are left; infinite without a limit."""
        spent = 1e3 * (time.perf_counter() - self.started)
        return self.budget_ms - spent if self.budget_ms > 0 else float("inf")

    def skips(self, source: str) -> bool:
        """Whether the source has to be left out for the rankers and the auction to be on time."""
        later = self.pace.cost("lightweight") + self.pace.cost("heavy", 0.5) + self.pace.cost("auction")
        late = self.left - self.pace.cost(source) < later
        if late:
            self.skipped.append(source)
        return late

    def candidates(self, usual: int, least: int) -> int:
        """How many candidates the heavy ranker has time for: from `least` to `usual`."""
        if self.budget_ms <= 0:
            return usual
        share = self.pace.share("heavy", self.left - self.pace.cost("auction"))
        count = min(usual, max(least, int(share * usual)))
        if count < usual:
            self.scored = count
        return count

    def trimmed(self) -> dict[str, object]:
        """What was left out, for the slate; empty where nothing was."""
        found: dict[str, object] = {"sources": self.skipped} if self.skipped else {}
        return found if self.scored is None else {**found, "heavy": self.scored}


class Clock:
    """Milliseconds of each stage since the one before, and of all."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._started = self._last = time.perf_counter()

    def lap(self, name: str) -> float:
        """End a stage; returns its milliseconds."""
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1e3
        self._last = now
        return self._laps[name]

    def total(self) -> dict[str, float]:
        """Milliseconds by stage, and of all as "total"."""
        return {**self._laps, "total": (self._last - self._started) * 1e3}
