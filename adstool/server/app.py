"""The application: routes, and around them a gate that counts, asks for the token and answers all errors."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adstool.config import Settings
from adstool.errors import DataError
from adstool.progress import log
from adstool.server.inputs import (
    DEADLINE_HEADER,
    JSON_TYPES,
    LINES_TYPES,
    Body,
    error_of,
    media_type,
    parse_deadline,
    parse_json,
    parse_rank,
    read_body,
)
from adstool.server.jobs import Job, Refused, too_late
from adstool.server.metrics import Meters
from adstool.server.ranking import RankingThread, to_json
from adstool.server.searching import IMAGE_TYPES, MAX_IMAGE_BYTES, Query, Searching

OPEN = "/healthz"  # asks for no token: whoever restarts a dead server needs none
WAY_MS = 20.0  # from here to the caller, on a busy machine; at most 5 % of a deadline
LAG_TICK = 0.01  # seconds
# Of every answer: a browser takes it for what it says it is, keeps it nowhere and runs nothing in it.
GUARDS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
DISCONNECTED = 499  # nobody is there to read the answer; nginx's number


def build_app(
    ranking: RankingThread,
    searching: Searching,
    settings: Settings,
    meters: Meters,
    lag: Lag,
    token: str | None,
) -> ASGIApp:
    """The application. token: that every caller needs, if there is one."""
    meters.gauge("adstool_queue_depth", "Requests that wait to be ranked.", lambda: len(ranking.queue))
    meters.gauge("adstool_ready", "1 when index and models are loaded.", lambda: float(ranking.ready))
    handlers = _Handlers(ranking, searching, settings, meters, lag)
    routes = [
        Route("/rank", handlers.rank, methods=["POST"]),
        Route("/search", handlers.search, methods=["POST"]),
        Route("/healthz", handlers.alive, methods=["GET"]),
        Route("/readyz", handlers.ready, methods=["GET"]),
        Route("/metrics", handlers.metrics, methods=["GET"]),
    ]
    meters.gauge("adstool_loop_lag_seconds", "How late the event loop is.", lambda: lag.seconds)
    gate = _Gate(meters, token, frozenset(route.path for route in routes))
    errors = {HTTPException: _not_ours, Refused: gate.refuse, DataError: gate.refuse, Exception: gate.fail}
    gate.app = Starlette(routes=routes, exception_handlers=errors)
    return gate


class Lag:
    """How late the event loop is: so long may a request have lain in the kernel before anything saw it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        """Measure it for ever; the worst of late counts, and is forgotten within a second."""
        while True:
            due = time.monotonic() + LAG_TICK
            await asyncio.sleep(LAG_TICK)
            self.seconds = max(time.monotonic() - due, 0.97 * self.seconds)


class _Handlers:
    def __init__(
        self,
        ranking: RankingThread,
        searching: Searching,
        settings: Settings,
        meters: Meters,
        lag: Lag,
    ) -> None:
        self._ranking, self._searching, self._meters, self._lag = ranking, searching, meters, lag
        self._settings, self._k = settings.serve, settings.funnel.slate

    async def rank(self, request: HttpRequest) -> Response:
        """Slates."""
        started, until = self._span(request)
        kind = media_type(request, JSON_TYPES + LINES_TYPES)
        text = await read_body(request, self._settings.max_body_bytes, until)
        body = parse_rank(text, kind, self._k, self._settings)
        until = min(until, started + self._within(body.deadline_ms) / 1e3)
        explain = request.query_params.get("explain", "") in ("1", "true")
        lines = await self._slates(body, until, explain) if body.requests else []
        if not body.batch:
            return _json(200, lines[0])
        return Response(b"".join(_in_order(body, lines)), media_type=LINES_TYPES[0])

    async def _slates(self, body: Body, until: float, explain: bool) -> list[bytes]:
        job = Job(body.requests, until, explain, asyncio.get_running_loop().create_future())
        self._ranking.submit(job)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                lines = await job.answer
        except TimeoutError:
            job.abandoned = True
            raise too_late("waiting") from None
        if time.monotonic() >= until:
            raise too_late("ranked")
        return lines

    async def search(self, request: HttpRequest) -> Response:
        """The items nearest to a text or a picture."""
        if not self._settings.search:
            raise Refused(
                501, "search_off", "Search is off, since it needs torch.", "Start adstool serve --search."
            )
        _, until = self._span(request)
        kind = media_type(request, JSON_TYPES + IMAGE_TYPES)
        picture = kind in IMAGE_TYPES
        content = await read_body(
            request, MAX_IMAGE_BYTES if picture else self._settings.max_body_bytes, until
        )
        if picture:
            asked = Query.parse({**request.query_params}, content)
        else:
            asked = Query.parse(parse_json(content), None)
        results = await self._searching.ask(asked, until)
        return _json(200, to_json({"results": results}))

    def _span(self, request: HttpRequest) -> tuple[float, float]:
        """When a request began and when its answer would be late, by time.monotonic()."""
        started: float = request.state.started - self._lag.seconds
        header = parse_deadline(request.headers.get(DEADLINE_HEADER), DEADLINE_HEADER)
        return started, started + self._within(header) / 1e3

    def _within(self, asked_ms: float | None) -> float:
        """The deadline in milliseconds, less what an answer needs to its caller.

        What is asked for can only lower that of the settings.
        """
        most = self._settings.deadline_ms if asked_ms is None else min(asked_ms, self._settings.deadline_ms)
        return most - min(WAY_MS, 0.05 * most)

    async def alive(self, request: HttpRequest) -> Response:
        """Whether the process answers at all."""
        return _json(200, to_json({"alive": True}))

    async def ready(self, request: HttpRequest) -> Response:
        """Whether requests can be answered."""
        ranker = self._ranking.ranker
        if not self._ranking.ready or ranker is None:
            raise Refused(503, "not_ready", "Index and models are not loaded.", "Ask again soon.")
        return _json(200, to_json({"ready": True, "runs": ranker.runs}))

    async def metrics(self, request: HttpRequest) -> Response:
        """What was counted and timed."""
        return Response(self._meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Gate:
    """Around every request: the token, the count, the time, and an answer whatever happens."""

    app: ASGIApp

    def __init__(self, meters: Meters, token: str | None, paths: frozenset[str]) -> None:
        self._meters, self._paths = meters, paths
        self._token = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.monotonic()
        scope["state"] = {"started": started}
        status = DISCONNECTED

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *GUARDS]
            await send(message)

        self._meters.in_flight.inc()
        try:
            app = self.app if self._may(scope) else _forbidden
            await app(scope, receive, sending)
        except Exception:  # the caller has gone, or `fail` has answered and said what is raised again
            pass
        finally:
            self._meters.in_flight.dec()
            route = scope["path"] if scope["path"] in self._paths else "other"
            self._meters.answered(route, status, time.monotonic() - started)

    def _may(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] == OPEN:
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._token)

    async def refuse(self, request: HttpRequest, error: Exception) -> Response:
        """The answer to what cannot be done, counted."""
        assert isinstance(error, Refused | DataError)
        status, reason = (error.status, error.reason) if isinstance(error, Refused) else (400, "bad_request")
        self._meters.refused.labels(reason).inc()
        response = _json(status, to_json(error_of(error)))
        if status == 503:
            response.headers["retry-after"] = "1"
        if status in (408, 413):
            response.headers["connection"] = "close"  # the rest of the body is not read
        return response

    async def fail(self, request: HttpRequest, error: Exception) -> Response:
        """The answer to what should not happen; what it was is said to the operator only."""
        if not isinstance(error, ClientDisconnect):
            log.error("%s failed: %s: %s", request.url.path, type(error).__name__, error)
        return _json(500, to_json({"error": "The server failed; its log says why."}))


_forbidden = Response(
    to_json({"error": "The token is missing or wrong.", "try": "Send Authorization: Bearer TOKEN."}) + b"\n",
    401,
    {"www-authenticate": "Bearer"},
    "application/json",
)


def _in_order(body: Body, lines: list[bytes]) -> Iterator[bytes]:
    """A line for every request of a batch: its slate, or what is wrong with it and where it stands."""
    slates = iter(lines)
    for number, entry in enumerate(body.entries, 1):
        line = to_json({"line": number, **error_of(entry)}) if isinstance(entry, DataError) else next(slates)
        yield line + b"\n"


def _json(status: int, content: bytes) -> Response:
    return Response(content + b"\n", status, media_type="application/json")


async def _not_ours(request: HttpRequest, error: Exception) -> Response:
    """Unknown paths and wrong methods."""
    assert isinstance(error, HTTPException)
    response = _json(
        error.status_code, to_json({"error": f"{request.method} {request.url.path}: {error.detail}."})
    )
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response
