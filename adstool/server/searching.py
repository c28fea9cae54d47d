"""Search over HTTP: asked of a process of its own, so that the one that ranks never loads torch."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adstool.config import Settings
from adstool.errors import DataError, choose, quoted
from adstool.progress import log
from adstool.server.jobs import Refused, too_late
from adstool.workspace import Workspace

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff")
MAX_IMAGE_BYTES = 8 * 2**20
MAX_RESULTS = 1000
MAX_LINE = 2**24  # bytes of the process's answer
KINDS = {None: ("ad", "pin"), "ads": ("ad",), "pins": ("pin",)}
STOP_SECONDS = 2.0
RETRY_SECONDS = 10.0  # between starts of the process, should it die again and again


@dataclass(frozen=True)
class Query:
    """What is looked for."""

    text: str | None
    image: bytes | None
    kinds: tuple[str, ...]
    k: int

    @classmethod
    def parse(cls, value: Any, image: bytes | None) -> Query:
        """From {"text": ..., "in": "ads" | "pins" | null, "k": 10}; beside a picture there is no text.

        Raises DataError naming what cannot be used.
        """
        if not isinstance(value, Mapping):
            raise DataError("A search must be a JSON object.", 'For example {"text": "red dress"}.')
        known = ("in", "k") if image is not None else ("text", "in", "k")
        unknown = [key for key in value if key not in known]
        if unknown:
            raise DataError(f"A search has no field {quoted(unknown[0])}.", choose(unknown[0], known))
        text, where, k = value.get("text"), value.get("in"), value.get("k", 10)
        if image is None and (not isinstance(text, str) or not text.strip()):
            raise DataError("A search needs a text.", 'For example {"text": "red dress"}.')
        if where is not None and (not isinstance(where, str) or where not in KINDS):
            raise DataError(f"in = {quoted(where)} cannot be searched.", "Use ads, pins or null.")
        k = int(k) if isinstance(k, str) and k.isdecimal() and len(k) < 5 else k
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_RESULTS:
            raise DataError(
                f"k = {quoted(k)} is no whole number from 1 to {MAX_RESULTS}.",
                f"Leave out k, or give a number from 1 to {MAX_RESULTS}.",
            )
        return cls(text, image, KINDS[where], k)


class Searching:
    """The process that searches, one question after the other; it is started again when it dies."""

    def __init__(self, ws: Workspace, settings: Settings) -> None:
        self._ws, self._settings = ws, settings
        self._process: Process | None = None
        self._loading: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._again = 0.0  # not started again before then

    async def start(self) -> None:
        """Start the process, if search is on and it was not just tried; it is ready some seconds later."""
        now = time.monotonic()
        if self._settings.serve.search and now >= self._again and (not self._loading or self._loading.done()):
            self._again = now + RETRY_SECONDS
            self._loading = asyncio.create_task(self._load())

    async def ask(self, query: Query, until: float) -> list[dict[str, Any]]:
        """The items found. Raises Refused when there is no room or time, DataError for a wrong query."""
        if self._process is None or self._process.returncode is not None:
            await self.start()
            raise Refused(503, "not_ready", "The model of search is not loaded.", "Ask again soon.")
        if self._waiting >= self._settings.serve.queue:
            raise Refused(503, "queue_full", f"{self._waiting} searches wait already.", "Ask again later.")
        self._waiting += 1
        # The process answers in turn, so an exchange goes on to its end although nobody waits for it.
        exchange = asyncio.create_task(self._exchange(self._process, query, until))
        exchange.add_done_callback(self._left)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                answer = await asyncio.shield(exchange)
        except TimeoutError:
            raise too_late("waiting") from None
        if time.monotonic() >= until:
            raise too_late("ranked")
        if "status" in answer:
            raise Refused(answer["status"], "search_failed", answer["error"], answer["try"])
        if "error" in answer:
            raise DataError(answer["error"], answer["try"])
        results: list[dict[str, Any]] = answer["results"]
        return results

    async def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
        if process is None or process.returncode is not None:
            return
        try:
            process.kill()  # it holds nothing that could be lost
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except (ProcessLookupError, TimeoutError):
            return

    def _left(self, exchange: asyncio.Task[Any]) -> None:
        self._waiting -= 1
        if not exchange.cancelled():
            exchange.exception()  # seen, whether or not somebody still waits

    async def _load(self) -> None:
        parts = {name: dataclasses.asdict(getattr(self._settings, name)) for name in ("content", "warehouse")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "adstool.server.search_process", str(self._ws.root), json.dumps(parts)),
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_LINE,
            start_new_session=True,  # Ctrl-C is for the server, which ends this one
        )
        try:
            said = await _read(process)
        except ValueError:
            said = {"error": "Its process ended while it loaded.", "try": "Look at its words above."}
        except BaseException:
            process.kill()
            raise
        if "error" in said:
            log.warning("Search is not there: %s %s", said["error"], said["try"])
            return
        self._process = process

    async def _exchange(self, process: Process, query: Query, until: float) -> dict[str, Any]:
        async with self._turn:
            if time.monotonic() >= until:
                raise too_late("waiting")
            asked = dataclasses.asdict(query)
            asked["image"] = None if query.image is None else base64.b64encode(query.image).decode()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                await process.stdin.drain()
                return await _read(process)
            except (OSError, ValueError) as error:
                raise Refused(
                    503, "search_died", "The process that searches ended.", "Ask again soon."
                ) from error


async def _read(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    value: dict[str, Any] = json.loads(line)
    return value
