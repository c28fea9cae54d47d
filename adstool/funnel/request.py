"""A request for a slate: its fields checked, its times read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adstool.errors import DataError, choose, quoted

FIELDS = ("user_id", "surface", "query", "ts", "request_id", "k")
MAX_SLATE = 1000
LONGEST_LINE = 1 << 20  # bytes of a request, as the server takes them


@dataclass(frozen=True)
class Request:
    """One request; `ts` None means the moment of the state that answers it."""

    user_id: str
    surface: str | None
    query: str | None
    ts: datetime | None
    request_id: str
    k: int

    @classmethod
    def parse(cls, value: Any, k: int) -> Request:
        """From a JSON object; only user_id is needed, `k` is the default length of the slate.

        Raises DataError naming the field that cannot be used.
        """
        if not isinstance(value, Mapping):
            raise DataError("A request must be a JSON object.", 'For example {"user_id": "u1"}.')
        unknown = [key for key in value if key not in FIELDS]
        if unknown:
            raise DataError(f"A request has no field {quoted(unknown[0])}.", choose(unknown[0], FIELDS))
        user = value.get("user_id")
        if isinstance(user, bool) or not isinstance(user, str | int) or user == "":
            raise DataError("A request needs a user_id that is text.", 'For example {"user_id": "u1"}.')
        _check_characters(user, "user_id")
        length = value.get("k")
        length = k if length is None else length
        if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MAX_SLATE:
            raise DataError(
                f"k = {quoted(length)} is no whole number from 1 to {MAX_SLATE}.", "Leave it out, or mend it."
            )
        return cls(
            user_id=str(user),
            surface=_text(value, "surface"),
            query=_text(value, "query"),
            ts=parse_time(value.get("ts"), "ts"),
            request_id=_text(value, "request_id") or f"r-{uuid.uuid4().hex[:16]}",
            k=length,
        )

    @classmethod
    def parse_line(cls, line: str | bytes, k: int) -> Request:
        """From a line of JSON, in UTF-8; raises DataError when it is none."""
        if len(line) > LONGEST_LINE:
            raise DataError(f"It is longer than {LONGEST_LINE:,} bytes.", 'For example {"user_id": "u1"}.')
        try:
            value = json.loads(line if isinstance(line, str) else line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"The request is not JSON: {error}", 'For example {"user_id": "u1"}.') from None
        return cls.parse(value, k)


def _text(value: Mapping[str, Any], field: str) -> str | None:
    given = value.get(field)
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise DataError(f"{field} = {quoted(given)} is not text.", "Give text or null.")
    _check_characters(given, field)
    return str(given)


def _check_characters(given: str | int, field: str) -> None:
    try:
        str(given).encode()
    except UnicodeEncodeError:
        # JSON can escape half of a character, which no column of text can hold: the log could not be written.
        raise DataError(f"{field} = {quoted(given)} holds half a character.", "Mend its encoding.") from None


def parse_time(value: Any, field: str) -> datetime | None:
    """ISO 8601, or seconds or milliseconds since 1970; UTC where no zone is given. None stays None.

    Raises DataError naming the field.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value) if isinstance(value, int | float) or str(value).isdigit() else None
        if number is not None:
            # Seconds reach this size only in the year 5138, milliseconds had passed it by 1973.
            return datetime.fromtimestamp(number / 1000 if abs(number) >= 1e11 else number, UTC)
        moment = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        raise DataError(
            f"{field} = {quoted(value)} is no time.",
            "Write it like 2026-11-15T18:00:00Z, or as epoch seconds.",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
