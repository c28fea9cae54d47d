"""Requests for slates and searches: lines of `rank --requests` and bodies over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from fuzz.harness import Place, expect, run
from fuzz.values import BAD_TIMES, EITHER_TIMES, GOOD_TIMES, TEXTS, bad_text

DEEP = b"[" * 100_000
ODD_LINES = (
    b"{",
    b"[]",
    b"5",
    b'"u1"',
    b"null",
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b'{"user_id": "\xff"}',
    b'{"user_id": "\\ud800"}',
    b'{"user_id": "u1", "query": "\\udfff"}',
    b'{"user_id": NaN}',
    b'{"user_id": ["u1"]}',
    b'{"user_id": "u1", "k": 1e999}',
    b'{"user_id": "u1", "k": NaN}',
    b'{"user_id": "u1", "k": -1}',
    b'{"user_id": "u1", "k": 1.5}',
    b'{"user_id": "u1", "k": true}',
    b'{"user_id": "u1", "k": 1' + b"0" * 4000 + b"}",
    b'{"user_id": "u1", "k": 1' + b"0" * 5000 + b"}",
    b'{"user_id": "u1", "ts": 1' + b"0" * 400 + b"}",
    b'{"user_id": "u1", "ts": "1' + b"0" * 400 + b'"}',
    b'{"user_id": "u1", "ts": "\xc2\xb2"}',
    b'{"user_id": "u1", "colour": "red"}',
    b'{"user_id": "u1"} {"user_id": "u2"}',
    b'{"USER_ID": "u1"}',
    b'{"user_id": ""}',
    b'{"user_id": null}',
    b'{"user_id": true}',
    b'{"user_id": "u1", "query": {"a": [1]}}',
    b'{"user_id": "u1", "surface": ["home"]}',
    b'{"user_id": "u1", "' + b"x" * 100_000 + b'": 1}',
    b'{"user_id": "u1", "surface": [' + b"1," * 50_000 + b"1]}",
    DEEP,
    b'{"user_id": ' + DEEP,
    b'{"user_id": "' + b"y" * 1_100_000 + b'"}',
)


def good_request(rng: random.Random) -> dict[str, Any]:
    """A request that must be answered, however odd its texts."""
    request: dict[str, Any] = {"user_id": rng.choice(("u1", "u2", *TEXTS[:-1], 7, -1, 10**30))}
    if rng.random() < 0.3:
        request["surface"] = rng.choice(("home", "search", None, "", *TEXTS[:-1]))
    if rng.random() < 0.3:
        request["query"] = rng.choice((None, "", "red dress", *TEXTS))
    if rng.random() < 0.3:
        request["ts"] = rng.choice(
            [value for value, _ in GOOD_TIMES if not isinstance(value, str) or value != "1.7e9"]
        )
    if rng.random() < 0.2:
        request["request_id"] = rng.choice((None, *TEXTS[:-1]))
    if rng.random() < 0.3:
        request["k"] = rng.choice((1, 3, 1000, None))
    return request


def either_request(rng: random.Random) -> dict[str, Any]:
    """A request that may be refused or answered, but not break anything."""
    request = good_request(rng)
    request["ts"] = rng.choice(
        (*BAD_TIMES, *EITHER_TIMES, -62135596800, 253402300799, 253402300800, -1e12, 1e11, 1e18)
    )
    return request


def lines_case(rng: random.Random, place: Place) -> str:
    """Lines of `rank --requests`: every one is answered or named with its number."""
    lines: list[tuple[bytes, bool | None]] = []
    for _ in range(rng.choice((1, 4, 12))):
        draw = rng.random()
        if draw < 0.45:
            lines.append((json.dumps(good_request(rng), ensure_ascii=rng.random() < 0.5).encode(), True))
        elif draw < 0.65:
            lines.append((json.dumps(either_request(rng)).encode(), None))
        elif draw < 0.7:
            lines.append((rng.choice((b"", b"  ", b"\r")), None))
        else:
            lines.append((rng.choice(ODD_LINES), False))
    content = b"\n".join(line for line, _ in lines) + rng.choice((b"", b"\n", b"\r\n"))
    assert place.shop is not None
    words = ["--workspace", place.shop, "rank", *(["--explain"] if rng.random() < 0.2 else [])]
    if rng.random() < 0.5:
        said = run(*words, "--requests", "-", stdin=content)
    else:
        said = run(*words, "--requests", place.write("requests.jsonl", content))
    errors = [json.loads(line) for line in said.err.split("\n") if line.startswith('{"line"')]
    refused = {one["line"] for one in errors}
    slates = [json.loads(line) for line in said.out.split("\n") if line]
    asked = [number for number, (line, _) in enumerate(lines, start=1) if line.strip()]
    expect(
        len(slates) + len(refused) == len(asked),
        f"{len(slates)} slates and {len(refused)} refusals of {len(asked)} lines: {said.err[:800]}",
    )
    expect((said.code == 0) == (not refused), f"exit {said.code} with {len(refused)} refused")
    for number, (line, good) in enumerate(lines, start=1):
        if good is not None and line.strip():
            expect(
                (number in refused) == (not good),
                f"line {number}: {line[:200]!r} good={good}, refused {refused}",
            )
    answered = [
        line for number, (line, _) in enumerate(lines, start=1) if line.strip() and number not in refused
    ]
    for line, slate in zip(answered, slates, strict=True):
        wanted = str(json.loads(line)["user_id"])
        expect(slate["user_id"] == wanted, f"slate of {slate['user_id']!r:.60}, asked for {wanted!r:.60}")
        expect(not slate.get("fallbacks"), f"a stage failed on {line[:300]!r}: {slate.get('fallbacks')}")
    for one in errors:
        expect(len(one["error"]) < 1000, f"an error of {len(one['error'])} characters")
    return "lines refused" if refused else "lines"


def options_case(rng: random.Random, place: Place) -> str:
    """Options of rank with odd values: answered, or wrong usage."""
    assert place.shop is not None
    words: list[str] = ["--user", rng.choice((*TEXTS[:-1], bad_text(rng)))]
    for name, options in (
        ("--at", [str(value) for value in (*BAD_TIMES, *EITHER_TIMES, "1e99", "")]),
        ("--surface", list(TEXTS[:-1])),
        ("--query", [*TEXTS[:-1], " ", "w " * 5000]),
        ("-k", ["0", "-1", "1000", "1001", "x", "1e3", "9" * 30]),
        ("--budget-ms", ["0", "nan", "inf", "-1", "1e308", "0.1", "x"]),
    ):
        if rng.random() < 0.3:
            words += [name, rng.choice(options)]
    words = [word.replace("\x00", "") for word in words]
    said = run("--json", "--workspace", place.shop, "rank", *words)
    if said.code == 0:
        answer = said.json
        expect(answer["user_id"] == words[1], f"slate of {answer['user_id']!r:.60}")
        expect(not answer.get("fallbacks"), f"a stage failed: {answer.get('fallbacks')}")
    return "rank options refused" if said.code else "rank options"


@lru_cache(maxsize=1)
def served(shop: Path) -> Any:
    """The application over the shop's ranker, started once."""
    from adstool.config import load_settings
    from adstool.funnel.rank import Ranker
    from adstool.server.app import Lag, build_app
    from adstool.server.metrics import Meters
    from adstool.server.ranking import RankingThread
    from adstool.workspace import Workspace

    ws = Workspace(shop)
    settings = load_settings(
        None, {"serve.deadline_ms": 30_000.0, "serve.search": True, "funnel.retrieve": 40}, {}
    )
    meters = Meters()
    ranking = RankingThread(lambda: Ranker(ws, settings), settings.serve, meters)
    ranking.start()
    while not ranking.ready:
        time.sleep(0.01)
    return build_app(ranking, _NoSearch(ws, settings), settings, meters, Lag(), None)


class _NoSearch:
    """Searching without its process: what is asked of it was read and found right."""

    def __new__(cls, ws: Any, settings: Any) -> Any:
        from adstool.server.searching import Searching

        class Echo(Searching):
            async def ask(self, query: Any, until: float) -> list[dict[str, Any]]:
                json.dumps(
                    {"text": query.text, "kinds": query.kinds, "k": query.k}
                ).encode()  # as its process is asked
                return [{"item_id": "a", "k": query.k}]

        return Echo(ws, settings)


async def post(
    app: Any, path: str, body: bytes, kind: str, query: bytes, headers: dict[str, str]
) -> tuple[int, bytes]:
    """Status and body of one request, without a network."""
    given = {"content-type": kind, **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query,
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in given.items()],
    }
    sent: list[Any] = []
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    expect(sent, "no answer at all")
    return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent[1:])


def body_case(rng: random.Random, place: Place) -> str:
    """A body of POST /rank or /search: answered, or refused with a reason; never 500."""
    assert place.shop is not None
    app = served(place.shop)
    draw = rng.random()
    kind = "application/json"
    path, query, headers = "/rank", b"", {}
    one = json.dumps(rng.choice((good_request, either_request))(rng)).encode()
    if draw < 0.2:
        body = one
    elif draw < 0.4:
        body = rng.choice(ODD_LINES)
    elif draw < 0.55:
        entries: list[Any] = [
            rng.choice((good_request(rng), either_request(rng), 5, None, [], {"user_id": []}))
            for _ in range(rng.choice((0, 1, 5, 65)))
        ]
        body = json.dumps(
            {
                "requests": rng.choice((entries, entries, {}, "x", None)),
                **rng.choice(
                    (
                        {},
                        {"deadline_ms": 10**400},
                        {"deadline_ms": "5e3"},
                        {"deadline_ms": [1]},
                        {"x" * 5000: 1},
                    )
                ),
            }
        ).encode()
    elif draw < 0.7:
        kind = rng.choice(("application/x-ndjson", "application/jsonl"))
        body = b"\n".join(rng.choice((one, rng.choice(ODD_LINES))) for _ in range(rng.choice((1, 3, 65))))
    else:
        path = "/search"
        kind = rng.choice(("application/json", "application/json", "image/png", "image/jpeg", "text/html"))
        body = json.dumps(
            {
                "text": rng.choice((*TEXTS, "", " ", None, 5, ["x"])),
                **rng.choice(
                    (
                        {},
                        {"k": 10**30},
                        {"k": "5"},
                        {"k": "\u0665"},
                        {"in": "ads"},
                        {"in": []},
                        {"in": "x" * 5000},
                        {"zz": 1},
                    )
                ),
            }
        ).encode()
        if rng.random() < 0.3:
            body = rng.choice((*ODD_LINES, b'{"text": "\\ud800"}'))
        query = rng.choice((b"", b"k=3&in=ads", b"k=-1", b"in=%ff%00", b"k=" + b"9" * 5000, b"a=1&a=2"))
    if rng.random() < 0.15:
        headers["x-deadline-ms"] = rng.choice(
            ("nan", "inf", "-1", "0", "1e400", "x", "9" * 500, "\u0665000", "30000")
        )
    if rng.random() < 0.05:
        headers["content-encoding"] = "gzip"
    status, answer = asyncio.run(post(app, path, body, kind, query, headers))
    what = f"{path} {kind} {headers} {body[:200]!r} -> {status} {answer[:300]!r}"
    expect(status in (200, 400, 408, 413, 415, 503, 504), what)
    text = answer.decode()
    lines = [line for line in text.split("\n") if line]
    for line in lines if path == "/rank" and status == 200 else [text]:
        said = json.loads(line)
        expect("Traceback" not in line and len(said.get("error", "")) < 1000, what)
    if path == "/rank" and status == 200 and kind != "application/json":
        expect(len(lines) == len([x for x in body.split(b"\n") if x.strip()]), f"lines lost: {what}")
    return f"{path} {status}"
