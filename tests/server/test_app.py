"""The application over a ranker that does what it is told: limits, deadlines, the queue, the token."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from adstool.config import Settings
from adstool.config_services import ServeSettings
from adstool.errors import DataError
from adstool.funnel.log import FunnelLog, StageRows
from adstool.funnel.request import Request
from adstool.server.app import Lag, build_app
from adstool.server.inputs import MAX_DEPTH, parse_json
from adstool.server.metrics import Meters
from adstool.server.ranking import RankingThread
from adstool.server.searching import Query, Searching
from adstool.workspace import Workspace


class Ranker:
    """Answers at once, or when it is let go."""

    runs: Mapping[str, str] = {"engagement": "r1"}

    def __init__(self) -> None:
        self.log, self.go, self.began = FunnelLog(), threading.Event(), threading.Event()
        self.go.set()
        self.seen: list[str] = []

    def rank(self, request: Request, *, explain: bool = False) -> dict[str, Any]:
        self.began.set()
        assert self.go.wait(5)
        if request.user_id == "bad":
            raise DataError("Nobody is called bad.")
        if request.user_id == "broken":
            raise RuntimeError("boom")
        self.seen.append(request.user_id)
        row = np.zeros(1, dtype=np.int64)
        stage = StageRows("heavy", row, row.astype(np.int8), row.astype(float), row == 0)
        self.log.add(request.request_id, 0, request.user_id, None, None, ("s",), (stage,), None)  # type: ignore[arg-type]
        return {
            "user_id": request.user_id,
            "k": request.k,
            "score": float("nan"),
            "latency_ms": {"total": 2.0},
        }

    def prepare(self) -> Any:
        return None

    def adopt(self, fresh: Any) -> None:
        self.runs = fresh


class Caller:
    """The application, and a client of it without a network."""

    def __init__(self, token: str | None = None, **settings: Any) -> None:
        self.ranker, self.meters = Ranker(), Meters()
        self.settings = ServeSettings(**settings)
        self.ranking = RankingThread(lambda: self.ranker, self.settings, self.meters)
        served = Settings(serve=self.settings)
        searching = Searching(Workspace(Path()), served)
        self.app = build_app(self.ranking, searching, served, self.meters, Lag(), token)

    def start(self) -> None:
        self.ranking.start()
        while not self.ranking.ready:
            time.sleep(0.001)

    async def call(
        self, path: str, body: Any = None, method: str = "POST", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or its lines, or text) and headers of the answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        lines = [(name.encode(), value.encode()) for name, value in given.items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": lines}
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in sent[1:])
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        kind = answered.get("content-type", "")
        value: Any = text.decode()
        if kind == "application/json":
            value = json.loads(text)
        elif "ndjson" in kind:
            value = [json.loads(line) for line in text.splitlines()]
        return sent[0]["status"], value, answered

    def metric(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.meters.text().decode())
        samples = [one for family in families for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


@pytest.fixture
def make() -> Iterator[Callable[..., Caller]]:
    """A started application with settings of one's own."""
    made: list[Caller] = []

    def build(**settings: Any) -> Caller:
        made.append(Caller(**settings))
        made[-1].start()
        return made[-1]

    yield build
    for one in made:
        one.ranker.go.set()
        one.ranking.stop(5)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


def test_one_request_many_requests_and_lines(make: Callable[..., Caller]) -> None:
    server = make()
    status, slate, _ = run(server.call("/rank", {"user_id": "u1", "k": 2}))
    assert (status, slate["user_id"], slate["k"], slate["score"]) == (200, "u1", 2, None)
    users = [{"user_id": "u1"}, {"name": "x"}, {"user_id": "u2"}]
    for body, kind in (
        ({"requests": users}, "application/json"),
        ("\n".join(map(json.dumps, users)).encode(), "application/x-ndjson"),
    ):
        status, lines, _ = run(server.call("/rank", body, content_type=kind))
        assert status == 200
        assert [line.get("user_id") for line in lines] == ["u1", None, "u2"]
        assert (lines[1]["line"], "no field 'name'" in lines[1]["error"]) == (2, True)
    assert server.metric("adstool_stage_seconds_count", stage="total") == 5
    assert server.metric("adstool_model_info", model="engagement", run="r1") == 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"user_id": ', 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "nested deeper"),
        (b'{"user_id": ' + b'{"a":' * 9 + b"1" + b"}" * 10, 400, "nested deeper"),
        (b"9" * 5000, 400, "not JSON"),
        ([], 400, "JSON object"),
        ({}, 400, "user_id"),
        ({"user_id": "\ud800"}, 400, "half a character"),
        ({"user_id": "u1", "k": 0}, 400, "k = 0"),
        ({"user_id": "u1", "deadline_ms": -1}, 400, "deadline_ms"),
        ({"requests": []}, 400, "no request"),
        ({"requests": [{}] * 5}, 400, "more than 4"),
        ({"requests": [{}], "k": 1}, 400, "Beside requests there is 'k'"),
        ({"requests": {}}, 400, "list"),
        ({"user_id": "x" * 2000}, 413, "larger than 1,000 bytes"),
        ({"user_id": "bad"}, 400, "Nobody is called bad"),
        ({"user_id": "broken"}, 500, "boom"),
    ],
)
def test_what_cannot_be_read_is_said(make: Callable[..., Caller], body: Any, status: int, says: str) -> None:
    server = make(max_batch=4, max_body_bytes=1000 if status == 413 else 200_000)
    answered, error, _ = run(server.call("/rank", body))
    assert (answered, says in error["error"]) == (status, True), error
    assert "Traceback" not in json.dumps(error)
    assert run(server.call("/rank", {"user_id": "u1"}))[0] == 200


def test_brackets_inside_texts_are_no_depth() -> None:
    assert parse_json(json.dumps(["[" * 50 + '"{\\']).encode()) == ["[" * 50 + '"{\\']
    with pytest.raises(DataError, match="nested"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_wrong_paths_methods_and_types(make: Callable[..., Caller]) -> None:
    server = make()
    assert run(server.call("/nope"))[0] == 404
    status, _, headers = run(server.call("/rank", method="GET"))
    assert (status, headers["allow"]) == (405, "POST")
    for kind in ("text/plain", "", "application/x-www-form-urlencoded"):
        assert run(server.call("/rank", {"user_id": "u1"}, content_type=kind))[0] == 415
    assert run(server.call("/rank", {"user_id": "u1"}, content_encoding="gzip"))[0] == 415
    assert run(server.call("/rank", {"user_id": "u1"}, x_deadline_ms="soon"))[0] == 400
    assert server.metric("adstool_requests_total", route="other", status="404") == 1
    assert server.ranker.seen == []


def test_the_token(make: Callable[..., Caller]) -> None:
    server = make(token="secret")
    body = {"user_id": "u1"}
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
        status, _, answered = run(server.call("/rank", body, **headers))
        assert (status, answered["www-authenticate"]) == (401, "Bearer")
        assert run(server.call("/metrics", method="GET", **headers))[0] == 401
    assert run(server.call("/rank", body, authorization="Bearer secret"))[0] == 200
    assert run(server.call("/healthz", method="GET"))[0] == 200
    assert server.metric("adstool_requests_total", status="401") == 6


def test_beyond_the_queue_is_503_and_counted(make: Callable[..., Caller]) -> None:
    server = make(queue=2, deadline_ms=5000)
    server.ranker.go.clear()

    async def burst() -> list[Any]:
        first = asyncio.create_task(server.call("/rank", {"user_id": "u0"}))
        while not server.ranker.began.is_set():
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(server.call("/rank", {"user_id": f"u{n}"})) for n in range(1, 6)]
        while sum(one.done() for one in others) < 3:
            await asyncio.sleep(0.001)
        assert server.metric("adstool_queue_depth") == 2
        assert server.metric("adstool_in_flight") == 3
        server.ranker.go.set()
        return [await first, *(await asyncio.gather(*others))]

    answers = run(burst())
    assert [status for status, *_ in answers] == [200, 200, 200, 503, 503, 503]
    assert all(headers["retry-after"] == "1" for status, _, headers in answers if status == 503)
    assert server.ranker.seen == ["u0", "u1", "u2"]
    assert server.metric("adstool_refused_total", reason="queue_full") == 3
    assert server.metric("adstool_requests_total", route="/rank", status="503") == 3


def test_nothing_is_answered_late(make: Callable[..., Caller]) -> None:
    server = make(deadline_ms=5000)
    server.ranker.go.clear()

    async def work() -> list[int]:
        started = time.monotonic()
        ranking = asyncio.create_task(server.call("/rank", {"user_id": "ranked", "deadline_ms": 60}))
        waiting = asyncio.create_task(server.call("/rank", {"user_id": "waiting"}, x_deadline_ms="40"))
        statuses = [(await one)[0] for one in (waiting, ranking)]
        assert time.monotonic() - started < 1  # answered at once, though the ranker still works
        server.ranker.go.set()
        statuses.append((await server.call("/rank", {"user_id": "next"}))[0])
        return statuses

    assert run(work()) == [504, 504, 200]
    assert server.ranker.seen == ["ranked", "next"]  # what waited too long was not ranked
    assert server.ranker.log.pending == 1  # a slate that nobody saw is not logged
    assert server.metric("adstool_refused_total", reason="deadline_waiting") == 2


def test_what_cannot_be_ranked_in_time_is_refused_at_once(make: Callable[..., Caller]) -> None:
    server = make(deadline_ms=5000)
    server.ranking.queue.took(0.1)
    server.ranker.go.clear()

    async def work() -> list[int]:
        tasks = [asyncio.create_task(server.call("/rank", {"user_id": f"u{n}"})) for n in range(3)]
        while len(server.ranking.queue) < 2:
            await asyncio.sleep(0.001)
        hurried = await server.call("/rank", {"user_id": "u3", "deadline_ms": 300})
        tasks.append(asyncio.create_task(server.call("/rank", {"user_id": "u4", "deadline_ms": 1000})))
        await asyncio.sleep(0.01)
        server.ranker.go.set()
        return [status for status, *_ in [*(await asyncio.gather(*tasks)), hurried]]

    assert run(work()) == [200, 200, 200, 200, 503]
    assert server.metric("adstool_refused_total", reason="no_time") == 1


def test_a_server_that_stops_finishes_what_is_queued(make: Callable[..., Caller]) -> None:
    server = make()
    handed: list[FunnelLog] = []
    server.ranking.outbox = handed.append
    server.ranker.go.clear()

    async def work() -> list[Any]:
        tasks = [asyncio.create_task(server.call("/rank", {"user_id": f"u{n}"})) for n in range(3)]
        while not server.ranker.began.is_set() or len(server.ranking.queue) < 2:
            await asyncio.sleep(0.001)
        server.ranking.queue.close()
        late = await server.call("/rank", {"user_id": "late"})
        server.ranker.go.set()
        return [status for status, *_ in [*(await asyncio.gather(*tasks)), late]]

    assert run(work()) == [200, 200, 200, 503]
    server.ranking.stop(5)
    assert sum(log.pending for log in handed) == 3
    assert run(server.call("/readyz", method="GET"))[0] == 503
    assert run(server.call("/healthz", method="GET"))[0] == 200


def test_newer_models_serve_from_the_next_request_on(make: Callable[..., Caller]) -> None:
    server = make()
    server.ranking.offer({"engagement": "r2"})
    while server.ranker.runs != {"engagement": "r2"}:
        time.sleep(0.01)
    assert run(server.call("/readyz", method="GET"))[1]["runs"] == {"engagement": "r2"}
    time.sleep(0.01)
    assert server.metric("adstool_model_info", run="r2") == 1
    assert server.metric("adstool_model_info", run="r1") == 0
    assert server.metric("adstool_model_swaps_total") == 1


def test_nothing_loaded_yet_is_not_ready() -> None:
    server = Caller()
    assert run(server.call("/readyz", method="GET"))[0] == 503
    assert run(server.call("/rank", {"user_id": "u1"}))[0] == 503
    assert run(server.call("/healthz", method="GET"))[0] == 200


def test_search_says_that_it_is_off(make: Callable[..., Caller]) -> None:
    status, error, _ = run(make().call("/search", {"text": "red dress"}))
    assert (status, "--search" in error["try"]) == (501, True)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "object"),
        ({}, "needs a text"),
        ({"text": " "}, "needs a text"),
        ({"text": "x", "in": "users"}, "in = 'users'"),
        ({"text": "x", "in": []}, "in = "),
        ({"text": "x", "k": 0}, "k = 0"),
        ({"text": "x", "k": True}, "k = True"),
        ({"text": "x", "where": 1}, "no field 'where'"),
    ],
)
def test_searches_that_cannot_be_read(value: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Query.parse(value, None)
    assert Query.parse({"in": "ads", "k": "3"}, b"picture") == Query(None, b"picture", ("ad",), 3)
