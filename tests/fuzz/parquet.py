"""Parquet files whose columns have any type that parquet has, with the truth of every row."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.events import Record, Truth, balance
from fuzz.harness import Place, expect
from fuzz.values import TEXTS

DAY = dt.datetime(2026, 10, 1)
SECONDS = int(DAY.replace(tzinfo=dt.UTC).timestamp())
MILLISECONDS = [1000 * (SECONDS + n) for n in range(40)]


def _ids(rng: random.Random, rows: int) -> tuple[pa.Array, list[str]]:
    """An event_id of every row, of some type, and the text it becomes."""
    texts = [f"{rng.choice(TEXTS[:-1])}#{n}" for n in range(rows)]
    numbers = [10**6 + n for n in range(rows)]
    plain = [f"p{n}" for n in range(rows)]
    wholes = [str(n) for n in numbers]
    options: list[tuple[pa.Array, list[str]]] = [
        (pa.array(texts), texts),
        (pa.array(texts, pa.large_string()), texts),
        (pa.array(plain).dictionary_encode(), plain),
        (pa.array([text.encode() for text in plain], pa.binary()), plain),
        (pa.array(numbers, pa.int64()), wholes),
        (pa.array(numbers, pa.uint32()), wholes),
        (pa.array([decimal.Decimal(n) for n in numbers], pa.decimal128(20, 0)), wholes),
    ]
    return rng.choice(options)


def _times(rng: random.Random, rows: int) -> tuple[pa.Array, list[Any]]:
    """A ts of every row, of some type, and what it becomes; None: the row is refused."""
    good = [DAY + dt.timedelta(seconds=n) for n in range(rows)]
    far = dt.datetime(9999, 12, 31)
    odd = [far if rng.random() < 0.1 else one for one in good]
    kept = [None if one == far else one for one in odd]
    numbers = [SECONDS + n for n in range(rows)]
    days = [dt.date(2026, 10, 1)] * rows
    midnight = [DAY] * rows
    options: list[tuple[pa.Array, list[Any]]] = [
        (pa.array(odd, pa.timestamp("us")), kept),
        (pa.array(odd, pa.timestamp("ms")), kept),
        (pa.array(odd, pa.timestamp("s")), kept),
        (pa.array(good, pa.timestamp("ns")), good),
        (pa.array(good, pa.timestamp("us", "Asia/Tokyo")), good),
        (pa.array(days, pa.date32()), midnight),
        (pa.array(days, pa.date64()), midnight),
        (pa.array(numbers, pa.int64()), good),
        (pa.array([1000 * n for n in numbers], pa.int64()), good),
        (pa.array([float(n) for n in numbers], pa.float64()), good),
        (pa.array([one.isoformat() for one in good]), good),
        (pa.array([dt.time(1, 2, 3)] * rows, pa.time64("us")), [None] * rows),
        (pa.array([True] * rows), [None] * rows),
        (pa.array([[n] for n in numbers]), [None] * rows),
        (pa.array([None if rng.random() < 0.3 else n for n in numbers]), []),
        (pa.array([2**62] * rows, pa.int64()), [None] * rows),
        (pa.array([float("nan")] * rows, pa.float64()), [None] * rows),
        (pa.array([2**31 - 1] * rows, pa.int32()).cast(pa.date32()), [None] * rows),
        (pa.array([-(2**31)] * rows, pa.int32()).cast(pa.date32()), [None] * rows),
        (pa.array([2**60] * rows, pa.int64()).cast(pa.timestamp("s")), [None] * rows),
        (pa.array([2**62] * rows, pa.int64()).cast(pa.timestamp("ms")), [None] * rows),
        (pa.array([2**62, *MILLISECONDS[1:rows]], pa.int64()).cast(pa.timestamp("ms")), [None, *good[1:]]),
    ]
    column, becomes = rng.choice(options)
    if not becomes:
        becomes = [good[n] if column[n].is_valid else None for n in range(rows)]
    return column, becomes


def _values(rng: random.Random, rows: int) -> tuple[pa.Array, list[Any]]:
    """A value of every row, of some type, and what it becomes; BAD as the text "bad"."""
    options: list[tuple[pa.Array, list[Any]]] = [
        (pa.array([1.5] * rows, pa.float64()), [1.5] * rows),
        (pa.array([1.5] * rows, pa.float32()), [1.5] * rows),
        (pa.array([7] * rows, pa.int8()), [7.0] * rows),
        (pa.array([decimal.Decimal("1.25")] * rows, pa.decimal128(9, 2)), [1.25] * rows),
        (pa.array([decimal.Decimal("1.25")] * rows, pa.decimal256(60, 2)), [1.25] * rows),
        (pa.nulls(rows), [None] * rows),
        (pa.array([float("inf")] * rows), ["bad"] * rows),
        (pa.array([True] * rows), ["bad"] * rows),
        (pa.array(["1.5"] * rows), [1.5] * rows),
        (pa.array(["x"] * rows), ["bad"] * rows),
        (pa.array([{"a": 1}] * rows), ["bad"] * rows),
        (pa.array([[1.0]] * rows), ["bad"] * rows),
        (pa.array([dt.timedelta(1)] * rows, pa.duration("us")), []),
        (pa.array([dt.date(2026, 1, 1)] * rows), ["bad"] * rows),
        (pa.array([2**64 - 1] * rows, pa.uint64()), [float(2**64 - 1)] * rows),
    ]
    return rng.choice(options)


def _others(rng: random.Random, rows: int) -> dict[str, pa.Array]:
    """Columns that no table has."""
    options = {
        "tags": pa.array([["x", None]] * rows),
        "nested": pa.array([{"a": {"b": [1, None]}}] * rows),
        "map": pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int32())),
        "blob": pa.array([b"\x00\x01"] * rows, pa.binary(2)),
        "file_row_number": pa.array(list(range(rows))),
        "filename": pa.array(["f"] * rows),
        "rowid": pa.array([9] * rows),
        "_row": pa.array([9] * rows),
        'quo"te': pa.array(["q"] * rows),
        "": pa.array(["q"] * rows),
        "Event-Id": pa.array(["q"] * rows),
        "c0": pa.array(["q"] * rows),
        "attributes": pa.array(['{"a": 1}'] * rows),
        "problem": pa.array(["none"] * rows),
        "nothing": pa.nulls(rows),
        "half": pa.array([1.5] * rows, pa.float32()).cast(pa.float16()),
    }
    chosen = rng.sample(sorted(options), rng.randrange(4))
    if "" in chosen and "c0" in chosen:
        chosen.remove("")  # DuckDB calls a column without a name c0, and cannot read the file
    return {name: options[name] for name in chosen}


def parquet_case(rng: random.Random, place: Place) -> str:
    """Columns of every type, some of whose rows are refused."""
    rows = rng.choice((1, 5, 40))
    ids, keys = _ids(rng, rows)
    times, moments = _times(rng, rows)
    values, amounts = _values(rng, rows)
    columns = {
        "event_id": ids,
        "ts": times,
        "user_id": pa.array(["u"] * rows),
        "item_type": pa.array(["ad"] * rows),
        "action": pa.array(["click"] * rows).dictionary_encode(),
        "value": values,
        **_others(rng, rows),
    }
    names = list(columns)
    rng.shuffle(names)
    table = pa.table([columns[name] for name in names], names=names)
    target = io.BytesIO()
    int96 = rng.random() < 0.2 and pa.types.is_timestamp(times.type)
    try:
        pq.write_table(
            table,
            target,
            use_deprecated_int96_timestamps=int96,
            compression=rng.choice(("none", "snappy", "gzip", "zstd", "brotli", "lz4")),
            row_group_size=rng.choice((1, 3, 1000)),
            data_page_version=rng.choice(("1.0", "2.0")),
            version=rng.choice(("1.0", "2.6")),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return "parquet that Arrow cannot write"
    path = place.write("events.parquet", target.getvalue())
    said = place.run("ingest", path)
    type_names = (
        f"ts {times.type} value {values.type} int96={int96} {sorted(set(names) - {'event_id', 'ts'})}"
    )
    expect(said.code == 0, f"{type_names}: {said.err[:500]}")
    balance(said)
    if not amounts:
        return "parquet types, loose"
    truth = Truth()
    for number in range(rows):
        good = moments[number] is not None and amounts[number] != "bad"
        held = {"ts": moments[number], "value": amounts[number]}
        if int96:
            held.pop("ts")
        truth.records.append(
            Record(
                number + 1,
                None if int96 and moments[number] is None else good,
                keys[number],
                held if good else {},
                "^(ts|value) ",
            )
        )
    try:
        truth.check(place, path, said)
    except Exception as error:
        raise type(error)(f"{type_names}: {error}") from None
    return "parquet types"
