"""What still answers when a stage fails: an order of fallbacks, each with its reason in the slate.

heavy ranker -> the lightweight ranker's order and predictions -> the order in which the sources found them;
a source -> the other sources -> the most popular items.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from adstool.errors import AdstoolError
from adstool.funnel.pace import Deadline
from adstool.progress import log
from adstool.training.value import Value

T = TypeVar("T")
NEEDED = ("two_tower", "popular")  # sources that are asked however late it is
LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Fallback:
    """A stage that failed, why, and what was served in its place."""

    stage: str
    reason: str
    served: str


class Guard:
    """Runs the stages of one request; a failure becomes a Fallback, or is raised where `strict`.

    Given a deadline, sources for which there is no time bring nothing, and it learns what they cost.
    """

    def __init__(self, strict: bool, deadline: Deadline | None = None) -> None:
        self._strict, self.deadline = strict, deadline
        self.fallbacks: list[Fallback] = []

    def attempt(self, stage: str, call: Callable[[], T], served: str) -> T | None:
        """What `call` returns; None when it fails, with the reason and what is `served` noted."""
        try:
            return call()
        except Exception as error:  # a request is answered whatever is wrong inside
            if self._strict:
                raise
            self.fallbacks.append(Fallback(stage, _reason(error), served))
            return None

    def source(self, name: str, call: Callable[[], T]) -> T | None:
        """What a candidate source brings; None when it fails, or when there is no time for it."""
        if self.deadline is not None and name not in NEEDED and self.deadline.skips(name):
            return None
        begun = time.perf_counter()
        found = self.attempt(name, call, "the other sources")
        if self.deadline is not None:
            self.deadline.pace.learn(name, 1e3 * (time.perf_counter() - begun))
        return found


class Warnings:
    """Says once, not at every request, that a stage fails."""

    def __init__(self) -> None:
        self._said: set[Fallback] = set()

    def say(self, fallbacks: list[Fallback]) -> None:
        """Warn of those not said before."""
        for fallback in set(fallbacks) - self._said:
            if len(self._said) < 100:  # reasons may hold ids, and then never end
                self._said.add(fallback)
                log.warning("%s failed; served: %s. %s", fallback.stage, fallback.served, fallback.reason)


def _reason(error: Exception) -> str:
    if isinstance(error, AdstoolError):
        text = f"{error.message} {error.hint}".strip()
    else:
        text = f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@dataclass(frozen=True)
class Predicted:
    """What a ranker says of n candidates; see `unpredicted` for none having said anything."""

    heads: tuple[str, ...]  # A names of the columns
    probability: np.ndarray  # float64 [n, A], calibrated
    worth: np.ndarray  # float64 [n, A], what the utility weighs: see Scorer.predict_worth
    score: np.ndarray  # float64 [n], what each is worth
    value: Value | None  # what made the score of them

    def take(self, some: np.ndarray) -> Predicted:
        """The candidates at these places, in this order."""
        return Predicted(self.heads, self.probability[some], self.worth[some], self.score[some], self.value)


def predicted(
    value: Value,
    heads: tuple[str, ...],
    probability: np.ndarray,
    worth: np.ndarray,
    bids: np.ndarray | None,
) -> Predicted:
    """A ranker's predictions [n, A] and what they are worth at these bids.

    Raises AdstoolError when a score is no number, which would put candidates in no order.
    """
    score = value.score(probability, bids, worth)
    if not np.isfinite(score).all():
        raise AdstoolError(
            "A model in use predicts what is no number, so that nothing has an order.",
            "Train engagement again: adstool train engagement; adstool models has the runs.",
        )
    return Predicted(heads, probability, worth, score, value)


def unpredicted(count: int) -> Predicted:
    """Candidates that keep the order they have, since no ranker answered: scores 1, 1/2, 1/3 ..."""
    nothing = np.zeros((count, 0))
    return Predicted((), nothing, nothing, 1.0 / np.arange(1, count + 1), None)
