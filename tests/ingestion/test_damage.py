"""Damaged rows are refused with their line; damaged files are refused whole, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adstool.errors import DataError

HEADER = "event_id,ts,user_id,item_type,item_id,action,query"


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "ts": "2026-10-01T00:00:00Z",
        "user_id": "u1",
        "item_type": "ad",
        "item_id": "a1",
        "action": "click",
        **changes,
    }


def line(number: int, **changes: Any) -> bytes:
    return json.dumps(event(number, **changes)).encode() + b"\n"


def rejects(shop: Any) -> dict[int, tuple[str, str]]:
    return {n: (reason, row) for n, reason, row in shop.rows("select line, reason, row from rejects")}


@pytest.mark.parametrize("extra", [{}, {"colour": "red"}], ids=["known keys", "other keys"])
def test_a_jsonl_file_with_every_tenth_row_damaged(shop: Any, extra: dict[str, str]) -> None:
    rng = random.Random(5)
    damages = [
        lambda n: b"{broken\n",
        lambda n: line(n)[:40] + b"\n",
        lambda n: line(n, action="\x01")[:-4] + b'\xff\xfe"}\n',
        lambda n: b'{"event_id": "a\x00b"}\n',
        lambda n: b"[1, 2]\n",
        lambda n: b'"text"\n',
        lambda n: line(n, ts="soon"),
        lambda n: line(n, propensity=2),
        lambda n: line(n)[:-1] + line(n + 1),
        lambda n: b'{"event_id": "\\ud800", "ts": 1}\n',
    ]
    data: list[bytes] = []
    damaged = []
    for number in range(20_000):
        if number % 997 == 0:
            data.append(b" \t\r\n")
        if number % 10 == 3:
            damaged.append(len(data) + 1)
            data.append(rng.choice(damages)(number))
        else:
            data.append(line(number, **extra))
    path = shop.ws.root / "events.jsonl"
    path.write_bytes(b"".join(data))
    assert shop.counts(path) == {"events": (20_000, 18_000, 0, 2_000)}
    assert sorted(rejects(shop)) == damaged
    assert shop.counts(path) == {"events": (20_000, 0, 18_000, 2_000)}
    assert len(rejects(shop)) == 2_000
    kept = shop.rows("select count(*), count(attributes) from events")
    assert kept == [(18_000, 18_000 if extra else 0)]


def test_what_is_no_object_says_so_with_its_text(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl"
    path.write_bytes(
        line(1) + b"\n{oops\n[1]\n5\nnull\n" + line(2, user_id="") + b'{"a": "\xff"}\n' + line(3)
    )
    assert shop.counts(path) == {"events": (8, 2, 0, 6)}
    assert rejects(shop) == {
        3: ("not valid JSON", "{oops"),
        4: ("not a JSON object", "[1]"),
        5: ("not a JSON object", "5"),
        6: ("not a JSON object", "null"),
        7: ("user_id is missing", line(2, user_id="").decode().strip()),
        8: ("not valid UTF-8", '{"a": "\\xff"}'),
    }


def test_a_byte_order_mark_costs_no_row(shop: Any) -> None:
    first, second = shop.ws.root / "events-1.jsonl", shop.ws.root / "events-2.csv"
    first.write_bytes(b"\xef\xbb\xbf" + line(1) + line(2) + b"{\n")
    second.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\ne9,2026-10-01,u,ad,a,click,\n".encode())
    assert shop.counts(first, second) == {"events": (4, 3, 0, 1)}
    assert list(rejects(shop)) == [3]


def test_csv_with_quotes_that_span_lines_and_rows_of_bad_values(shop: Any) -> None:
    path = shop.ws.root / "events.csv"
    path.write_text(
        f'{HEADER}\ne1,2026-10-01,u,ad,a,click,"two\nlines, and ""quotes"""\n\n'
        'e2,bad,u,ad,a,click,q\ne3,2026-10-01,u,ad,a,click,"x\ny"\ne4,2026-10-01,u,zeppelin,a,click,\n'
    )
    assert shop.counts(path) == {"events": (4, 2, 0, 2)}
    assert {n: row for n, (_, row) in rejects(shop).items()} == {
        5: "e2,bad,u,ad,a,click,q",
        8: "e4,2026-10-01,u,zeppelin,a,click,",
    }
    assert shop.rows("select query from events order by event_id") == [
        ('two\nlines, and "quotes"',),
        ("x\ny",),
    ]


def test_csv_whose_structure_is_broken_loses_only_the_broken_lines(shop: Any) -> None:
    path = shop.ws.root / "events.csv"
    good = "2026-10-01,u,ad,a,click"
    path.write_bytes(
        f'{HEADER}\ne1,{good},"two\nlines"\ne2,{good}\ne3,{good},"never closed\ne4,{good},q\n'.encode()
        + f"e5,{good},q,more\ne6,{good},".encode()
        + b"\xe9\n"
        + f"e7,{good},nul\x00inside\n".encode()
        + f"e8,{good},last".encode()
    )
    assert shop.counts(path) == {"events": (8, 4, 0, 4)}
    assert {n: reason for n, (reason, _) in rejects(shop).items()} == {
        4: "6 values where there should be 7",
        5: "a quote is opened and not closed",
        7: "8 values where there should be 7",
        8: "not valid UTF-8",
    }
    assert shop.rows("select event_id from events order by 1") == [("e1",), ("e4",), ("e7",), ("e8",)]


def test_parquet_keeps_types_and_names_refused_rows_by_number(shop: Any) -> None:
    path = shop.ws.root / "events.parquet"
    table = pa.table(
        {
            "event_id": ["p1", "p2", "p3", "p4"],
            "ts": pa.array([1_700_000_000_000, 1_700_000_000_000, None, 0], pa.timestamp("ms", "UTC")),
            "user_id": [1, 2, 3, 4],
            "item_type": ["ad", "blimp", "ad", "pin"],
            "action": ["click"] * 4,
            "value": [0.5, 1.0, 1.0, float("nan")],
            "tags": [["x", "y"], None, [], []],
        }
    )
    pq.write_table(table, path)
    assert shop.counts(path) == {"events": (4, 1, 0, 3)}
    found = rejects(shop)
    assert [found[n][0].split()[0] for n in (2, 3, 4)] == ["item_type", "ts", "value"]
    assert json.loads(found[2][1])["event_id"] == "p2"
    assert shop.rows("select epoch_ms(ts), user_id, value, attributes from events") == [
        (1_700_000_000_000, "1", 0.5, '{"tags":["x","y"]}')
    ]


@pytest.mark.parametrize(
    "kind", ["truncated gzip", "bad gzip checksum", "truncated zstd", "parquet", "no gzip"]
)
def test_a_file_damaged_as_a_whole_loads_nothing(shop: Any, kind: str) -> None:
    data = b"".join(line(n, user_id=f"u{n * 7919 % 1000}") for n in range(20_000))
    zipped = gzip.compress(data)
    path = shop.ws.root / "events.jsonl.gz"
    if kind == "truncated gzip":
        path.write_bytes(zipped[: len(zipped) // 2])
    elif kind == "bad gzip checksum":
        path.write_bytes(zipped[:-8] + b"\x00\x01\x02\x03" + zipped[-4:])
    elif kind == "no gzip":
        path.write_bytes(data)
    elif kind == "truncated zstd":
        path = shop.ws.root / "events.jsonl.zst"
        with pa.output_stream(str(path), compression="zstd") as target:
            target.write(data)
        path.write_bytes(path.read_bytes()[:-5000])
    else:
        path = shop.ws.root / "events.parquet"
        pq.write_table(pa.table({"event_id": ["a"] * 1000}), path)
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=str(path)):
        shop.ingest(path)
    assert shop.rows("select (select count(*) from events), (select count(*) from files)") == [(0, 0)]
    assert shop.rows("select count(*) from rejects") == [(0,)]


def test_files_before_a_damaged_one_stay_and_a_missing_one_stops_all(shop: Any) -> None:
    good, bad = shop.ws.root / "events-1.jsonl", shop.ws.root / "events-2.parquet"
    good.write_bytes(line(1))
    bad.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"events-2\.parquet is damaged"):
        shop.ingest(good, bad)
    assert shop.rows("select count(*) from events") == [(1,)]
    other = shop.ws.root / "events-3.jsonl"
    other.write_bytes(line(3))
    with pytest.raises(DataError, match="does not exist"):
        shop.ingest(other, shop.ws.root / "events-nowhere.jsonl")
    assert shop.rows("select count(*) from events") == [(1,)]


def test_abort_stops_at_the_first_refused_row_and_loads_nothing_of_the_file(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl"
    path.write_bytes(line(1) + line(2) + line(3, position=-1) + line(4, ts="x"))
    with pytest.raises(DataError, match=r"events\.jsonl:3: position \"-1\".*2 such rows"):
        shop.ingest(path, on_error="abort")
    assert shop.rows("select (select count(*) from events), (select count(*) from rejects)") == [(0, 0)]


def test_keys_that_come_late_are_kept_and_keys_in_text_are_not_taken_for_keys(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl"
    rows = [line(n, query='say "size": null') for n in range(3000)]
    rows.append(line(3000, note={"deep": [1, None]}, rank=3))
    path.write_bytes(b"".join(rows))
    assert shop.counts(path) == {"events": (3001, 3001, 0, 0)}
    assert shop.rows("select event_id, attributes from events where attributes is not null") == [
        ("e3000", '{"note":{"deep":[1,null]},"rank":3}')
    ]


def test_names_that_look_like_patterns_are_files(shop: Any, tmp_path: Path) -> None:
    odd = tmp_path / "events-[1]*'?.jsonl"
    odd.write_bytes(line(1))
    (tmp_path / "events-1x.jsonl").write_bytes(line(2))
    assert shop.counts(odd) == {"events": (1, 1, 0, 0)}
    assert shop.rows("select event_id, (select path from files) from events") == [("e1", str(odd))]


def test_a_parquet_column_of_duckdbs_own_name_is_a_column(shop: Any) -> None:
    path = shop.ws.root / "events.parquet"
    rows = [event(n, file_row_number=9 - n, ts="soon" if n == 1 else 0) for n in range(3)]
    pq.write_table(pa.table({key: [str(row[key]) for row in rows] for key in rows[0]}), path)
    assert shop.counts(path) == {"events": (3, 2, 0, 1)}
    found = rejects(shop)
    assert list(found) == [2]
    assert json.loads(found[2][1])["file_row_number"] == "8"


def test_a_byte_order_mark_before_a_blank_line_is_no_row(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbf  \n" + line(1) + b"\n" + line(2))
    assert shop.counts(path) == {"events": (2, 2, 0, 0)}


def test_a_line_of_megabytes_is_refused_and_the_next_is_read(shop: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("adstool.ingestion.inputs.LONGEST_LINE", 1 << 10)
    monkeypatch.setattr("adstool.ingestion.lines.LONGEST_LINE", 1 << 10)
    path = shop.ws.root / "events.csv"
    good = "2026-10-01,u,ad,a,click"
    path.write_text(f"{HEADER}\ne1,{good},q\ne2,{good},{'z' * 5000}\ne3,{good}\ne4,{good},q\n")
    assert shop.counts(path) == {"events": (4, 2, 0, 2)}
    assert [reason.split()[0] for reason, _ in rejects(shop).values()] == ["longer", "6"]


def test_a_name_too_long_to_exist_does_not(shop: Any) -> None:
    with pytest.raises(DataError, match="does not exist"):
        shop.ingest(shop.ws.root / ("x" * 300), table="events")


BEYOND = 1 << 62  # milliseconds that no microseconds can hold: DuckDB refuses to read such a file


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_a_moment_beyond_duckdbs_costs_its_row_alone(shop: Any, zone: str | None) -> None:
    path = shop.ws.root / "events.parquet"
    moments = [1_790_000_000_001, BEYOND, None, -BEYOND, 253_402_300_800_000, 1_790_000_000_002]
    table = {
        "event_id": [f"e{number}" for number in range(6)],
        "ts": pa.array(moments, pa.timestamp("ms", zone)),
        "user_id": ["u"] * 6,
        "item_type": ["ad"] * 6,
        "action": pa.array(["click"] * 6).dictionary_encode(),
        "seen": pa.array([1, 2, 3, 4, 5, 10**18], pa.timestamp("ns")),
        "tags": [["x"]] * 6,
    }
    pq.write_table(pa.table(table), path)
    assert shop.counts(path) == {"events": (6, 2, 0, 4)}
    first, last = datetime(2026, 9, 21, 14, 13, 20, 1000), datetime(2026, 9, 21, 14, 13, 20, 2000)
    assert shop.rows("select event_id, ts from events order by 1") == [("e0", first), ("e5", last)]
    seen = "select attributes ->> 'seen', attributes -> 'tags' from events order by event_id"
    assert shop.rows(seen)[1] == ("2001-09-09 01:46:40.000000000", '["x"]')
    refused = shop.rows("select line, reason, row from rejects order by 1")
    assert [line for line, _, _ in refused] == [2, 3, 4, 5]
    assert [str(moment) in reason for moment, (_, reason, _) in zip(moments[1:5], refused, strict=True)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert f"timestamp[ms] {BEYOND}" in refused[0][2]
    assert shop.counts(path) == {"events": (6, 0, 2, 4)}


def test_old_parquet_times_beyond_duckdbs_cost_their_rows_alone(shop: Any) -> None:
    path = shop.ws.root / "events.parquet"
    moments = [datetime(2026, 9, 21, 1, 2, 3, 4000), datetime(9999, 12, 31)]
    table = {
        "event_id": ["e0", "e1"],
        "ts": pa.array(moments, pa.timestamp("us")),
        "user_id": ["u", "u"],
        "item_type": ["ad", "ad"],
        "action": ["click", "click"],
    }
    pq.write_table(pa.table(table), path, use_deprecated_int96_timestamps=True)
    assert shop.counts(path) == {"events": (2, 1, 0, 1)}
    assert shop.rows("select ts from events") == [(moments[0],)]


def test_days_beyond_all_moments_cost_their_rows_even_where_a_time_may_be_missing(shop: Any) -> None:
    path = shop.ws.root / "conversions.parquet"
    days = pa.array([20_000, 2**31 - 1, -(2**31), None], pa.int32()).cast(pa.date32())
    table = {
        "conversion_id": ["c0", "c1", "c2", "c3"],
        "ts": pa.array([datetime(2026, 9, 21)] * 4, pa.timestamp("us")),
        "user_id": ["u"] * 4,
        "advertiser_id": ["v"] * 4,
        "kind": ["purchase"] * 4,
        "reported_at": days,
    }
    pq.write_table(pa.table(table), path)
    assert shop.counts(path) == {"conversions": (4, 2, 0, 2)}
    assert shop.rows("select conversion_id, reported_at from conversions order by 1") == [
        ("c0", datetime(2024, 10, 4)),
        ("c3", None),
    ]
