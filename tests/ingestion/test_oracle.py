"""Counts, contents and reject lines against a brute force that follows the rules row by row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# (value in the file, value in the warehouse); BAD: the row is refused; None: the value is missing.
BAD = object()
TIMES = [
    ("2026-10-01T02:00:00+02:00", datetime(2026, 10, 1)),
    ("2026-10-01", datetime(2026, 10, 1)),
    ("2026-10-01 10:11:12.5Z", datetime(2026, 10, 1, 10, 11, 12, 500000)),
    ("2026-10-01T00:00:00-03:30", datetime(2026, 10, 1, 3, 30)),
    ("1700000000", datetime(2023, 11, 14, 22, 13, 20)),
    ("1700000000123", datetime(2023, 11, 14, 22, 13, 20, 123000)),
    (1700000000.25, datetime(2023, 11, 14, 22, 13, 20, 250000)),
    ("yesterday", BAD),
    ("2026-13-01", BAD),
    ("-5", BAD),
    ("1e300", BAD),
    ("infinity", BAD),
]
IDS = [("a", "a"), ("b", "b"), ("c'\"; drop table events; --", "c'\"; drop table events; --"), ("ü☃", "ü☃")]
MISSING = [("", None), (None, None)]
TEXTS = [("home", "home"), ('two\nlines, "quoted"', 'two\nlines, "quoted"'), *MISSING]
FIELDS: dict[str, list[tuple[Any, Any]]] = {
    "event_id": IDS,
    "ts": TIMES,
    "user_id": [("u1", "u1"), ("u2", "u2"), *MISSING],
    "item_type": [("ad", "ad"), ("pin", "pin"), ("query", "query"), ("banner", BAD)],
    "action": [("click", "click"), ("save", "save")],
    "surface": TEXTS,
    "position": [
        ("0", 0),
        ("7", 7),
        ("3.0", 3),
        ("-1", BAD),
        ("1.5", BAD),
        ("x", BAD),
        ("1e99", BAD),
        *MISSING,
    ],
    "value": [("-2.5", -2.5), ("1e3", 1000.0), ("nan", BAD), ("inf", BAD), ("1,5", BAD), *MISSING],
    "propensity": [("1", 1.0), ("0.25", 0.25), ("0", BAD), ("1.01", BAD), ("-0.5", BAD), *MISSING],
    "colour": [("red", "red"), (None, None)],  # no column of ours
}
REQUIRED = ("event_id", "ts", "user_id", "item_type", "action")
COLUMNS = [name for name in FIELDS if name != "colour"]

good_first = {
    name: st.one_of(st.sampled_from([pair for pair in pairs if pair[1] is not BAD]), st.sampled_from(pairs))
    for name, pairs in FIELDS.items()
}
rows = st.lists(st.fixed_dictionaries(good_first), max_size=12)


def expected(files: list[list[dict[str, tuple[Any, Any]]]]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The table by key, counts by file, and the positions of refused rows by file."""
    table: dict[str, Any] = {}
    counts = []
    refused = []
    for file in files:
        inserted = duplicate = 0
        bad = []
        for index, row in enumerate(file):
            values = {name: pair[1] for name, pair in row.items()}
            if any(value is BAD for value in values.values()) or any(values[n] is None for n in REQUIRED):
                bad.append(index)
            elif values["event_id"] in table:
                duplicate += 1
            else:
                inserted += 1
                table[values["event_id"]] = values
        counts.append((len(file), inserted, duplicate, len(bad)))
        refused.append(bad)
    return table, counts, refused


def as_jsonl(file: list[dict[str, tuple[Any, Any]]]) -> tuple[bytes, list[int]]:
    """The file, every third row after a blank line; and the line of each row."""
    lines: list[str] = []
    where = []
    for index, row in enumerate(file):
        if index % 3 == 2:
            lines.append("  ")
        where.append(len(lines) + 1)
        lines.append(json.dumps({name: pair[0] for name, pair in row.items() if pair[0] is not None}))
    return ("\n".join(lines)).encode(), where


def as_csv(file: list[dict[str, tuple[Any, Any]]]) -> tuple[bytes, list[int]]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    where = []
    for row in file:
        where.append(text.getvalue().count("\n") + 1)
        writer.writerow([row[name][0] for name in FIELDS])
    return text.getvalue().encode(), where


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(rows, min_size=1, max_size=3), form=st.sampled_from(["jsonl", "csv", "jsonl.gz"]))
def test_every_row_is_inserted_a_duplicate_or_refused_as_a_brute_force_says(
    files: list[list[dict[str, tuple[Any, Any]]]], form: str, make_shop: Callable[[], Any]
) -> None:
    shop = make_shop()
    # A good row of its own makes sure that every file has every required column.
    whole = [
        [{**{name: pairs[0] for name, pairs in FIELDS.items()}, "event_id": (f"f{n}", f"f{n}")}, *file]
        for n, file in enumerate(files)
    ]
    table, counts, refused = expected(whole)
    for number, file in enumerate(whole):
        data, where = as_csv(file) if form == "csv" else as_jsonl(file)
        path = shop.ws.root / f"events-{number}.{form}"
        path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
        assert shop.counts(path)["events"] == counts[number]
        lines = shop.rows(f"select line from rejects where file = '{path}' order by line")
        assert [line for (line,) in lines] == [where[index] for index in refused[number]]
    held = shop.rows(f"select {', '.join(COLUMNS)}, attributes ->> 'colour' from events")
    assert {row[0]: row for row in held} == {
        key: tuple(values[name] for name in [*COLUMNS, "colour"]) for key, values in table.items()
    }
    assert len(held) == len(table)
