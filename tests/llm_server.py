"""An HTTP server that speaks the protocol of OpenAI-compatible endpoints, with faults on demand."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COLOURS = ("red", "blue", "green", "black")


@dataclass
class Reply:
    """What the server sends: `text` in a whole completion, or `body` as it is."""

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    drip: float = 0.0  # seconds between single bytes


@dataclass
class Request:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    payload: dict[str, Any]

    @property
    def system(self) -> str:
        """The system message."""
        return str(self.payload["messages"][0]["content"])

    @property
    def data(self) -> Any:
        """The JSON between the marks of the user message."""
        content = self.payload["messages"][1]["content"]
        found = re.fullmatch(r"<item_data>\n(.*)\n</item_data>", content, re.DOTALL)
        assert found, content
        return json.loads(found.group(1))

    @property
    def repairs(self) -> bool:
        """Whether it sends back an unfit answer."""
        return len(self.payload["messages"]) > 2


def attributes_of(title: str, **fields: Any) -> str:
    """A fitting answer: the colours that the title names."""
    words = title.lower().split()
    lists = {name: [] for name in ("colour", "material", "style", "occasion", "intents", "audience")}
    answer: dict[str, Any] = {**lists, "colour": [c for c in COLOURS if c in words], "category": words[1]}
    return json.dumps({**answer, **fields})


Script = Callable[[Request, int], Reply]


def describe(request: Request, _: int) -> Reply:
    """The usual script: a fitting answer of attributes."""
    return Reply(attributes_of(request.data["title"]))


class LlmServer:
    """A running server; `requests` has all that came in, `most_at_once` how many were under way together."""

    def __init__(self, script: Script = describe) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._active = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(self.path, dict(self.headers.items()), json.loads(raw))
                with outer._lock:
                    outer.requests.append(request)
                    number = len(outer.requests)
                    outer._active += 1
                    outer.most_at_once = max(outer.most_at_once, outer._active)
                reply = outer.script(request, number)
                time.sleep(reply.delay)
                with outer._lock:
                    outer._active -= 1  # before the client can know, or its next request would count too
                # A client that gave up, as some tests want, is no fault of the server.
                with suppress(BrokenPipeError, ConnectionResetError):
                    self._send(reply)

            def _send(self, reply: Reply) -> None:
                body = completion(reply.text or "") if reply.body is None else reply.body
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if not reply.drip:
                    self.wfile.write(body)
                    return
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.drip)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def completion(text: str) -> bytes:
    """A completion with its usage: 100 prompt tokens and 10 for the answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


@contextmanager
def llm_server(script: Script = describe) -> Iterator[LlmServer]:
    """A server for the block."""
    server = LlmServer(script)
    try:
        yield server
    finally:
        server.close()
