"""A server from start to end: bind, load, answer, stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError
from adstool.progress import log
from adstool.server.app import Lag, build_app
from adstool.server.keeping import KeepingThread
from adstool.server.metrics import Meters
from adstool.server.ranking import RankingThread, Ranks
from adstool.server.searching import Searching
from adstool.workspace import Workspace

KEEP_ALIVE_SECONDS = 30
WATCH_SECONDS = 0.05
HEAD_BYTES = 32_768  # of a request line and its headers


def serve(ws: Workspace, settings: Settings, announce: Callable[[str], None]) -> dict[str, float]:
    """Answer until SIGTERM or SIGINT, then finish what is queued and write the funnel log; what was done.

    announce: is called with the address once index and models are loaded. A second signal ends the process
    at once. Raises AdstoolError when it cannot listen, load the models or write the log.
    """
    token = _token(settings)
    listening = _listen(settings.serve.host, settings.serve.port)
    if token is None and not _is_loopback(listening):
        log.warning("Anybody who reaches %s may ask: no serve.token_env is set.", _address(listening))
    meters = Meters()
    ranking = RankingThread(lambda: _load(ws, settings), settings.serve, meters)
    keeping = KeepingThread(ws, settings, ranking, meters)
    meters.gauge("adstool_log_rows_pending", "Candidates that wait to be written.", lambda: keeping.pending)
    searching = Searching(ws, settings)
    app = build_app(ranking, searching, settings, meters, lag := Lag(), token)
    ranking.start()
    keeping.start()
    try:
        asyncio.run(_answer(app, settings, listening, ranking, searching, lag, announce))
    finally:
        ranking.stop(settings.serve.stop_seconds)
        keeping.stop()
    if ranking.failure is not None:
        raise ranking.failure
    return meters.summary()


def _load(ws: Workspace, settings: Settings) -> Ranks:
    from adstool.device import limit_threads
    from adstool.funnel.rank import Ranker

    limit_threads(settings.funnel.threads)
    ranker = Ranker(ws, settings)
    ranker.check()  # every file is read before the first request waits for it
    return ranker


class _Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]
    """uvicorn, but it leaves signals to us: it would end the process by them before the log is written."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _answer(
    app: ASGIApp,
    settings: Settings,
    listening: socket.socket,
    ranking: RankingThread,
    searching: Searching,
    lag: Lag,
    announce: Callable[[str], None],
) -> None:
    config = uvicorn.Config(
        app,
        http="h11",  # the one of uvicorn's parsers that limits the head of a request
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.serve.stop_seconds)),
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    server = _Server(config)
    stop = _Stop(server)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    address = _address(listening)
    await searching.start()
    watching = asyncio.create_task(lag.watch())
    task = asyncio.create_task(server.serve(sockets=[listening]))
    announced = False
    while not task.done():
        await asyncio.wait([task], timeout=WATCH_SECONDS)
        if ranking.failure is not None:
            server.should_exit = True
        if not announced and server.started and ranking.ready:
            announced = True
            announce(address)
    watching.cancel()
    await searching.stop()
    await task


class _Stop:
    """The first signal asks the server to stop, the second ends the process."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server, self._asked = server, False

    def __call__(self, number: int, frame: Any) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        self._server.should_exit = True


def _token(settings: Settings) -> str | None:
    """The bearer token; raises UsageError when its variable is named but empty."""
    name = settings.serve.token_env
    if not name:
        return None
    value = os.environ.get(name, "")
    if not value:
        raise UsageError(
            f"serve.token_env names {name}, which is not set.", f"Export {name}, or leave the setting out."
        )
    if not value.isascii() or value != value.strip():
        raise UsageError(f"The token in {name} has letters that no header can hold.", "Use plain ASCII.")
    return value


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises AdstoolError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise AdstoolError(
            f"{host}:{port} cannot be listened at: {error}", "Try another --port; 0 takes any free one."
        ) from None
    # Accepted sockets inherit it. asyncio sets it only where a socket names its protocol, as this one does
    # not; without it every answer, head and body, waits 40 ms for the caller's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
