"""Odd texts, ids, times and numbers, with what they should become; BAD marks what must be refused."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

BAD = object()
EITHER = object()  # taken or refused, as the format defines it, but never lost

IDS = (
    "a'; drop table events; --",
    '"quoted" id',
    "comma, id",
    "two\nlines",
    "tab\tid",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "$(touch /tmp/fuzz-owned)",
    "../../../etc/passwd",
    "/etc/passwd",
    "--help",
    "-k",
    "=cmd|' /C calc'!A0",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u202eevil\u202c",
    "e\u0301 \u00e9 \ufb01",
    "\ufeffbom inside",
    "nul\x00inside",
    "\x1b[31mred",
    "%s%n%d{}",
    "NULL",
    "null",
    "None",
    "nan",
    "true",
    "0",
    "-1",
    "00012",
    "1e5",
    "9" * 40,
    " leading and trailing ",
    "x" * 5000,
    "\\",
    "\\n",
    "C:\\users\\con",
    "con",
    "..",
    "*",
    "?[a]",
    "\u2028line\u2029",
    "\U00010ffff",
)
GOOD_TIMES: tuple[tuple[Any, Any], ...] = (
    ("2026-10-01T02:00:00+02:00", datetime(2026, 10, 1)),
    ("2026-10-01", datetime(2026, 10, 1)),
    ("2026-10-01 10:11:12.5Z", datetime(2026, 10, 1, 10, 11, 12, 500000)),
    ("2026-10-01T00:00:00-03:30", datetime(2026, 10, 1, 3, 30)),
    ("2026-10-01T00:00:00+14:00", datetime(2026, 9, 30, 10)),
    ("2026-10-01T00:00:00+05:45", datetime(2026, 9, 30, 18, 15)),
    ("2024-02-29T23:59:59.999999Z", datetime(2024, 2, 29, 23, 59, 59, 999999)),
    ("1900-01-01T00:00:00Z", datetime(1900, 1, 1)),
    ("2199-12-31T23:59:59Z", datetime(2199, 12, 31, 23, 59, 59)),
    ("1700000000", datetime(2023, 11, 14, 22, 13, 20)),
    ("1700000000123", datetime(2023, 11, 14, 22, 13, 20, 123000)),
    (1700000000.25, datetime(2023, 11, 14, 22, 13, 20, 250000)),
    (0, datetime(1970, 1, 1)),
    ("1.7e9", datetime(2023, 11, 14, 22, 13, 20)),
)
BAD_TIMES: tuple[Any, ...] = (
    "yesterday",
    "now",
    "today",
    "infinity",
    "-infinity",
    "0000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "0001-01-01",
    "1899-12-31T23:59:59Z",
    "2200-01-01T00:00:01Z",
    "9999-12-31T23:59:59Z",
    "10000-01-01",
    "294247-01-10T04:00:54.775807Z",
    "2026-13-01",
    "2026-02-30",
    "2023-02-29",
    "2026-10-01T25:00:00Z",
    "31/12/2026",
    "-5",
    -5,
    -1700000000,
    "1e300",
    "nan",
    "1e999",
    10**30,
    "9" * 400,
    "\x00",
    "2026-10-01\x00",
    "'; select 1; --",
    True,
    [],
    {},
    [1700000000],
)
EITHER_TIMES: tuple[Any, ...] = (
    "2026-10-01T00:00:00+99:00",
    "2016-12-31T23:59:60Z",
    "epoch",
    "2026-10-01T24:00:00Z",
    "2026-10-01T00:00:00 Europe/Amsterdam",
    "2026-10-01T00:00:00+0530",
    "2026-10-01 (BC)",
    " 2026-10-01 ",
    "2026-1-1",
    "20261001",
    "1_700_000_000",
    "\u0661\u0667\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660",
)
GOOD_NUMBERS: tuple[tuple[Any, float], ...] = (
    ("-2.5", -2.5),
    (1e3, 1000.0),
    ("1e-300", 1e-300),
    (0, 0.0),
    (-0.0, 0.0),
    (2**60, float(2**60)),
)
BAD_NUMBERS: tuple[Any, ...] = (
    "nan",
    "inf",
    "-Infinity",
    "1e999",
    "9" * 400,
    "1,5",
    "1.2.3",
    "0x10",
    "ten",
    "\x00",
    True,
    [],
    {"a": 1},
    [1],
)
GOOD_POSITIONS: tuple[tuple[Any, int], ...] = (("0", 0), (7, 7), ("3.0", 3), (2**31 - 1, 2**31 - 1))
BAD_POSITIONS: tuple[Any, ...] = (-1, "-1", 1.5, "x", 1e99, 2**31, 2**63, 10**30, "nan", [0], False)
GOOD_CHANCES: tuple[tuple[Any, float], ...] = (("1", 1.0), (0.25, 0.25), (1e-9, 1e-9))
BAD_CHANCES: tuple[Any, ...] = (0, "0", 1.01, -0.5, "nan", "inf", "1e999", "half")
TEXTS: tuple[Any, ...] = (*IDS, "home", "zürich", "日本語", "y" * 100_000)


def one_id(rng: random.Random, number: int) -> str:
    """An id that no other row of the file has: an odd text and a number."""
    return f"{rng.choice(IDS)}#{number}"


def bad_text(rng: random.Random) -> str:
    """Any text at all."""
    if rng.random() < 0.6:
        return str(rng.choice(TEXTS[:-1]))
    return "".join(
        chr(rng.choice((rng.randrange(32), rng.randrange(127), rng.randrange(0xD7FF)))) for _ in range(12)
    )
