"""The thread beside the one that ranks: it looks for newer models, and writes the funnel log when it may."""

from __future__ import annotations

import threading
import time

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.funnel.log import FunnelLog
from adstool.progress import log
from adstool.server.metrics import Meters
from adstool.server.ranking import IDLE_SECONDS, RankingThread
from adstool.workspace import Workspace


class KeepingThread:
    """Keeps requests from waiting for disks: loading a model and writing the log both take seconds.

    Candidates that can be written nowhere, as on a full disk, wait here; beyond `serve.max_log_rows` the
    oldest are dropped, with a warning and a count.
    """

    def __init__(self, ws: Workspace, settings: Settings, ranking: RankingThread, meters: Meters) -> None:
        self._ws, self._settings, self._ranking, self._meters = ws, settings, ranking, meters
        self._waiting = FunnelLog()
        self._guard = threading.Lock()  # of _waiting
        self._stopping = threading.Event()
        self._unwell = False  # the last write failed
        ranking.outbox = self.take
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def pending(self) -> int:
        """Candidates that wait to be written."""
        return self._waiting.pending

    def take(self, handed: FunnelLog) -> None:
        """Candidates to write."""
        with self._guard:
            self._waiting.extend(handed)
            dropped = self._waiting.forget_oldest(self._settings.serve.max_log_rows)
        if dropped:
            self._meters.log_dropped.inc(dropped)
            log.warning("%d candidates of the funnel log were dropped: they cannot be written.", dropped)

    def stop(self) -> None:
        """Write what waits, and end. Raises what keeps the log from being written."""
        self._stopping.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        looked = wrote = time.monotonic()
        while not self._stopping.wait(IDLE_SECONDS):
            now = time.monotonic()
            if now - looked >= self._settings.serve.refresh_seconds:
                looked = now
                self._look()
            if self.pending and (not self._unwell or now - wrote >= self._settings.serve.flush_seconds):
                wrote = now
                self._try_to_write()

    def _look(self) -> None:
        ranker = self._ranking.ranker
        try:
            fresh = None if ranker is None else ranker.prepare()
        except Exception as error:  # what serves goes on
            log.warning("Looking for newer models failed: %s: %s", type(error).__name__, error)
            return
        if fresh is not None:
            self._ranking.offer(fresh)

    def _try_to_write(self) -> None:
        try:
            self._write()
            self._unwell = False
        except Exception as error:
            if not self._unwell:
                hint = f" {error.hint}" if isinstance(error, AdstoolError) else ""
                log.warning("The funnel log cannot be written and waits in memory: %s%s", error, hint)
            self._unwell = True

    def _write(self) -> None:
        with self._guard:
            batch = self._waiting.take()
        try:
            self._meters.log_written.inc(batch.keep(self._ws, self._settings))
        except BaseException:
            with self._guard:
                batch.extend(self._waiting)
                self._waiting = batch
            raise
