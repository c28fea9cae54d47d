"""What comes in over HTTP, checked: size, depth, shape, deadline. Nothing here trusts what it reads."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest

from adstool.config_services import ServeSettings
from adstool.errors import DataError, quoted
from adstool.funnel.request import Request
from adstool.server.jobs import Refused

MAX_DEPTH = 8  # of brackets; a batch of requests has three
JSON_TYPES = ("application/json",)
LINES_TYPES = ("application/x-ndjson", "application/jsonl", "application/jsonlines")
DEADLINE_HEADER = "x-deadline-ms"

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]')


@dataclass(frozen=True)
class Body:
    """The requests of one body in their order, an error in the place of one that cannot be used."""

    entries: list[Request | DataError]
    batch: bool  # answered as JSON Lines
    deadline_ms: float | None

    @property
    def requests(self) -> list[Request]:
        """Those that can be ranked."""
        return [entry for entry in self.entries if isinstance(entry, Request)]


async def read_body(request: HttpRequest, most: int, until: float) -> bytes:
    """The whole body. Raises Refused beyond `most` bytes, or when it is not there at `until`."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "bad_request", "Compressed bodies are not read.", "Send it as it is.")
    parts, size = [], 0
    try:
        async with asyncio.timeout(until - time.monotonic()):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refused(
                        413, "bad_request", f"The body is larger than {most:,} bytes.", "Send less at once."
                    )
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "slow_body", "The body did not arrive in time.", "Ask again.") from None
    return b"".join(parts)


def media_type(request: HttpRequest, known: tuple[str, ...]) -> str:
    """The content type, one of `known`; raises Refused otherwise.

    One must be named: what a page in a browser may send anywhere unasked has none of these.
    """
    given: str = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in known:
        raise Refused(
            415, "bad_request", f"Content-Type is {given or 'missing'}.", f"Send one of: {', '.join(known)}."
        )
    return given


def parse_deadline(value: Any, where: str) -> float | None:
    """Milliseconds; None stays None. Raises DataError for what is no positive number."""
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not 0 < number < float("inf"):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where} = {quoted(value)} is no positive number.", "Give milliseconds.") from None
    return number


def parse_json(text: bytes) -> Any:
    """The value of a JSON text. Raises DataError when it is none, or too deep."""
    depth = 0
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        for token in _TOKENS.findall(text):
            depth += token in (b"[", b"{")
            depth -= token in (b"]", b"}")
            if depth > MAX_DEPTH:
                raise DataError(
                    f"The body is nested deeper than {MAX_DEPTH}.", 'For example {"user_id": "u1"}.'
                )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The body is not JSON: {error}", 'For example {"user_id": "u1"}.') from None


def parse_rank(text: bytes, kind: str, k: int, settings: ServeSettings) -> Body:
    """The requests of a body of POST /rank: one object, {"requests": [...]}, or JSON Lines.

    k: the default length of a slate. Raises DataError when nothing of it can be used.
    """
    if kind in LINES_TYPES:
        lines = [line for line in text.split(b"\n") if line.strip()]
        return Body([_entry_of_line(line, k) for line in _limited(lines, settings)], True, None)
    value = parse_json(text)
    if not isinstance(value, dict):
        raise DataError("A body must be a JSON object.", 'For example {"user_id": "u1"}.')
    deadline = parse_deadline(value.pop("deadline_ms", None), "deadline_ms")
    if "requests" not in value:
        return Body([Request.parse(value, k)], False, deadline)
    listed = value.pop("requests")
    if value:
        raise DataError(f"Beside requests there is {quoted(next(iter(value)))}.", "Put it into each request.")
    if not isinstance(listed, list):
        raise DataError(
            "requests of a body must be a list.", 'For example {"requests": [{"user_id": "u1"}]}.'
        )
    return Body([_entry(one, k) for one in _limited(listed, settings)], True, deadline)


def _limited(listed: list[Any], settings: ServeSettings) -> list[Any]:
    if not listed:
        raise DataError("The body holds no request.", 'For example {"user_id": "u1"}.')
    if len(listed) > settings.max_batch:
        raise DataError(
            f"{len(listed)} requests are more than {settings.max_batch} at once.", "Send several bodies."
        )
    return listed


def _entry(value: Any, k: int) -> Request | DataError:
    try:
        return Request.parse(value, k)
    except DataError as error:
        return error


def _entry_of_line(line: bytes, k: int) -> Request | DataError:
    try:
        return _entry(parse_json(line), k)
    except DataError as error:
        return error


def error_of(error: DataError | Refused) -> Mapping[str, str]:
    """An error as the JSON that is answered."""
    return {"error": error.message, "try": error.hint} if error.hint else {"error": error.message}
