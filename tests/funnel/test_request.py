"""Requests as they arrive: what is read, what is refused and in which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adstool.errors import DataError
from adstool.funnel.request import Request, parse_time


def test_only_the_user_is_needed() -> None:
    request = Request.parse({"user_id": "u1"}, 7)
    assert (request.user_id, request.surface, request.query, request.ts, request.k) == (
        "u1",
        None,
        None,
        None,
        7,
    )
    assert request.request_id.startswith("r-")
    assert request.request_id != Request.parse({"user_id": "u1"}, 7).request_id


def test_every_field_is_read() -> None:
    line = json.dumps(
        {"user_id": 12, "surface": "home", "query": "", "ts": 1763200000, "request_id": "q", "k": 3}
    )
    request = Request.parse_line(line, 10)
    assert (request.user_id, request.query, request.request_id, request.k) == ("12", None, "q", 3)
    assert request.ts == datetime(2025, 11, 15, 9, 46, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ("{}", "user_id"),
        ('{"user_id": ""}', "user_id"),
        ('{"user_id": null}', "user_id"),
        ('{"user_id": true}', "user_id"),
        ('{"user_id": "u", "k": 0}', "k = 0"),
        ('{"user_id": "u", "k": "3"}', "k = '3'"),
        ('{"user_id": "u", "ts": "soon"}', "ts = 'soon'"),
        ('{"user_id": "u", "surface": ["home"]}', "surface"),
        ('{"user_id": "u", "usr": 1}', "usr"),
    ],
)
def test_what_cannot_be_read_is_named(line: str, named: str) -> None:
    with pytest.raises(DataError, match=named.replace("'", ".")):
        Request.parse_line(line, 10)


@given(st.datetimes(datetime(1975, 1, 1), datetime(2500, 1, 1)))
def test_times_in_all_their_spellings(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    seconds = int(whole.timestamp())
    assert parse_time(whole.isoformat(), "ts") == whole
    assert parse_time(whole.replace(tzinfo=None).isoformat(), "ts") == whole
    assert (
        parse_time(seconds, "ts")
        == parse_time(str(seconds), "ts")
        == parse_time(seconds * 1000, "ts")
        == whole
    )
