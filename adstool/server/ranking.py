"""The thread that ranks: one job after the other, and between them newer models and the log handed on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from adstool.config_services import ServeSettings
from adstool.errors import AdstoolError, DataError
from adstool.funnel.log import FunnelLog
from adstool.funnel.request import Request
from adstool.progress import log
from adstool.server.jobs import Job, JobQueue, Refused, too_late
from adstool.server.metrics import Meters
from adstool.workspace import finite

IDLE_SECONDS = 0.2  # how often a thread without work looks whether there is other work


class Ranks(Protocol):
    """What the server needs of a Ranker."""

    log: FunnelLog

    @property
    def runs(self) -> Mapping[str, str]: ...
    def rank(self, request: Request, *, explain: bool = False) -> dict[str, Any]: ...
    def prepare(self) -> Any: ...
    def adopt(self, fresh: Any) -> None: ...


class RankingThread:
    """Loads the models, then answers jobs until it is stopped.

    One thread, since a ranker is one set of state and ranking keeps a core busy; more would wait for it.
    """

    def __init__(self, load: Callable[[], Ranks], settings: ServeSettings, meters: Meters) -> None:
        self.queue = JobQueue(settings.queue)
        self.ranker: Ranks | None = None
        self.failure: BaseException | None = None  # why it ended before it was stopped
        self.outbox: Callable[[FunnelLog], None] = lambda taken: None  # where candidates go between jobs
        self._load, self._settings, self._meters = load, settings, meters
        self._fresh: Any = None
        self._handed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="ranking", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether index and models are loaded and requests are answered."""
        return self.ranker is not None and self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Refused when there is no room, or nobody to do it."""
        if not self.ready:
            raise Refused(503, "not_ready", "Index and models are not loaded.", "Ask again soon.")
        self.queue.put(job)

    def offer(self, fresh: Any) -> None:
        """Newer models, taken into use before the next job."""
        self._fresh = fresh

    def stop(self, seconds: float) -> None:
        """Finish what is queued, for so long at most; the last candidates go to the outbox."""
        self.queue.close()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self.ranker = ranker = self._load()
            self._meters.serving(ranker.runs)
            while not self.queue.drained:
                job = self.queue.get(IDLE_SECONDS)
                if job is not None:
                    self._answer(ranker, job)
                self._between(ranker)
            self._hand_over(ranker)
        except BaseException as error:  # the server must know that nobody ranks any more
            self.failure = error

    def _answer(self, ranker: Ranks, job: Job) -> None:
        lines: list[bytes] = []
        try:
            for request in job.requests:
                if job.late:
                    raise too_late("waiting")
                lines.append(self._rank(ranker, request, job))
        except (Refused, DataError) as refused:
            job.finish(refused)
        except Exception as error:
            hint = f" {error.hint}" if isinstance(error, AdstoolError) else ""
            log.error("A request failed: %s: %s%s", type(error).__name__, error, hint)
            job.finish(Refused(500, "failed", f"Ranking failed: {type(error).__name__}: {error}"))
        else:
            job.finish(lines)

    def _rank(self, ranker: Ranks, request: Request, job: Job) -> bytes:
        started = time.monotonic()
        slate = ranker.rank(request, explain=job.explain)
        self.queue.took(time.monotonic() - started)
        self._meters.ranked(slate)
        line = to_json(slate)
        if job.late:
            ranker.log.forget_newest()  # nobody will see this slate
            raise too_late("ranked")
        return line

    def _between(self, ranker: Ranks) -> None:
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            ranker.adopt(fresh)
            self._meters.serving(ranker.runs)
        seconds = time.monotonic() - self._handed
        if seconds >= self._settings.flush_seconds or ranker.log.pending >= self._settings.max_log_rows // 8:
            self._hand_over(ranker)

    def _hand_over(self, ranker: Ranks) -> None:
        self._handed = time.monotonic()
        if ranker.log.pending:
            self.outbox(ranker.log.take())


def to_json(value: Any) -> bytes:
    """One line of JSON, without its end; NaN and infinity become null."""
    try:
        text = json.dumps(value, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(finite(value), default=str)
    return text.encode()
