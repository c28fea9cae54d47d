"""What waits to be ranked: jobs with a deadline each, in a queue with a limit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from adstool.funnel.request import Request

SURE = 0.8  # of the time left must be enough by what requests took lately: some take longer


class Refused(Exception):
    """A request that is not answered with slates: the status of HTTP, and why.

    `reason` is the label under which it is counted.
    """

    def __init__(self, status: int, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.hint = status, reason, message, hint


def too_late(when: str) -> Refused:
    """The refusal of a request whose deadline passed; when: waiting or ranked."""
    return Refused(504, f"deadline_{when}", "The deadline passed.", "Ask again, for less or with more time.")


@dataclass
class Job:
    """The requests of one body; the answer is a line of JSON for each."""

    requests: Sequence[Request]
    deadline: float  # time.monotonic()
    explain: bool
    answer: asyncio.Future[list[bytes]]
    abandoned: bool = field(default=False, init=False)  # nobody waits for it any more

    @property
    def late(self) -> bool:
        """Whether nobody may be answered any more."""
        return self.abandoned or time.monotonic() >= self.deadline

    def finish(self, outcome: list[bytes] | Exception) -> None:
        """Hand over the answer; from any thread."""

        def settle() -> None:
            if self.answer.done():
                return
            if isinstance(outcome, Exception):
                self.answer.set_exception(outcome)
            else:
                self.answer.set_result(outcome)

        try:
            self.answer.get_loop().call_soon_threadsafe(settle)
        except RuntimeError:
            return  # the loop is closed: the time to stop was up before this job's turn


class JobQueue:
    """First come, first served, up to `limit` requests; a body with more finds room when nothing waits.

    What could not be ranked in time by what a request took lately is refused at once: waiting for nothing
    would keep others from being answered.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._each = 0.0  # seconds that a request took lately

    def __len__(self) -> int:
        """Requests that wait."""
        return self._waiting

    def put(self, job: Job) -> None:
        """Queue a job. Raises Refused when it is full or closed."""
        with self._changed:
            if self._closed:
                raise Refused(503, "stopping", "The server is stopping.", "Ask another, or again soon.")
            if self._waiting and self._waiting + len(job.requests) > self.limit:
                raise Refused(
                    503, "queue_full", f"{self._waiting} requests wait already.", "Ask again a second later."
                )
            left = job.deadline - time.monotonic()
            if self._waiting and self.expected(len(job.requests)) > SURE * left:
                raise Refused(
                    503, "no_time", "What waits already takes longer than the deadline.", "Ask again soon."
                )
            self._jobs.append(job)
            self._waiting += len(job.requests)
            self._changed.notify()

    def get(self, seconds: float) -> Job | None:
        """The next job, waited for so long; None if there is none."""
        with self._changed:
            if not self._jobs and not self._closed:
                self._changed.wait(seconds)
            if not self._jobs:
                return None
            job = self._jobs.popleft()
            self._waiting -= len(job.requests)
            return job

    def took(self, seconds: float) -> None:
        """A request was ranked in so long."""
        self._each = seconds if not self._each else 0.9 * self._each + 0.1 * seconds

    def expected(self, requests: int) -> float:
        """Seconds until so many more are ranked after all that wait, and the one that is being ranked."""
        return (self._waiting + requests + 1) * self._each

    def close(self) -> None:
        """Take no more; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """Whether it is closed and empty."""
        return self._closed and not self._jobs
