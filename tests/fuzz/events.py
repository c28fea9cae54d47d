"""Files of events whose every record is known to be good or bad: jsonl, csv and parquet."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adstool.ingestion.lines import LONGEST_TEXT
from fuzz.harness import Place, Said, expect
from fuzz.values import (
    BAD,
    BAD_CHANCES,
    BAD_NUMBERS,
    BAD_POSITIONS,
    BAD_TIMES,
    EITHER,
    EITHER_TIMES,
    GOOD_CHANCES,
    GOOD_NUMBERS,
    GOOD_POSITIONS,
    GOOD_TIMES,
    TEXTS,
    one_id,
)

COLUMNS = (
    "event_id",
    "ts",
    "user_id",
    "item_type",
    "item_id",
    "action",
    "position",
    "value",
    "propensity",
    "query",
)
CHECKED = ("ts", "position", "value", "propensity", "query")


@dataclass
class Record:
    """One record of a file, and what must become of it."""

    line: int  # the first physical line, from 1
    good: bool | None  # None: as the format defines it
    key: str | None = None  # its event_id, where it is good
    values: dict[str, Any] = field(default_factory=dict)  # of a good one, as the warehouse should hold them
    reason: str = ""  # a pattern of the reject's reason, where it is bad
    text: str | None = None  # the reject's text, where it is known


@dataclass
class Truth:
    """The records of a file."""

    records: list[Record] = field(default_factory=list)

    def check(self, place: Place, path: Path, said: Said, table: str = "events") -> None:
        """Raise Violation unless every record became what it must."""
        expect(said.code == 0, f"{path.name} was refused whole: {said.err[:500]}")
        counts = said.json["tables"][table]
        balance(said)
        expect(
            counts["read"] == len(self.records),
            f"read {counts['read']} of {len(self.records)} records: {counts}",
        )
        refused = place.rows(
            f"select line, reason, row from rejects where table_name = '{table}' order by line"
        )
        lines = [line for line, _, _ in refused]
        expect(len(set(lines)) == len(lines), f"a line is refused twice: {lines}")
        bad = {one.line for one in self.records if one.good is False}
        either = {one.line for one in self.records if one.good is None}
        lost, wrong = bad - set(lines), set(lines) - bad - either
        expect(not lost, f"bad lines that are no rejects: {sorted(lost)[:5]}")
        expect(not wrong, f"good lines that are rejects: {[r for r in refused if r[0] in wrong][:3]!r:.600}")
        by_line = {one.line: one for one in self.records}
        for line, reason, text in refused:
            one = by_line[line]
            pattern = one.reason
            expect(re.search(pattern, reason), f"line {line}: reason {reason!r} is not like {pattern!r}")
            if one.text is not None:
                expect(
                    text == one.text[:LONGEST_TEXT],
                    f"line {line}: text {text!r:.200} is not {one.text!r:.200}",
                )
        self._check_good(place)

    def _check_good(self, place: Place) -> None:
        columns = ", ".join(("event_id", *CHECKED))
        held = {row[0]: row[1:] for row in place.rows(f"select {columns} from events")}
        for one in self.records:
            if one.good:
                expect(one.key in held, f"line {one.line}: the good row {one.key!r:.80} is not there")
                for name, value in zip(CHECKED, held[str(one.key)], strict=True):
                    if name in one.values:
                        wanted = one.values[name]
                        expect(
                            value == wanted, f"line {one.line}: {name} is {value!r:.80}, not {wanted!r:.80}"
                        )


def balance(said: Said) -> None:
    """read = inserted + duplicate + rejected, of every table."""
    for name, counts in said.json["tables"].items():
        total = counts["inserted"] + counts["duplicate"] + counts["rejected"]
        expect(counts["read"] == total, f"{name}: read {counts['read']}, and {total} accounted for")


def _column(rng: random.Random, name: str) -> tuple[Any, Any]:
    """A value of a column and what it becomes: BAD, EITHER or a value."""
    choices = {
        "ts": (GOOD_TIMES, BAD_TIMES, EITHER_TIMES),
        "position": (GOOD_POSITIONS, BAD_POSITIONS, ()),
        "value": (GOOD_NUMBERS, BAD_NUMBERS, ()),
        "propensity": (GOOD_CHANCES, BAD_CHANCES, ()),
    }
    good, bad, either = choices[name]
    draw = rng.random()
    if draw < 0.7:
        value, becomes = rng.choice(good)
        return value, becomes
    if draw < 0.9 or not either:
        return rng.choice(bad), BAD
    return rng.choice(either), EITHER


def draw_row(rng: random.Random, number: int, text: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row as the file has it and what each column becomes; `text`: values are text in the file (csv)."""
    row: dict[str, Any] = {
        "event_id": one_id(rng, number),
        "ts": "2026-10-01",
        "user_id": rng.choice(TEXTS[:-1]),
        "item_type": "ad",
        "item_id": rng.choice(TEXTS[:-1]),
        "action": "click",
    }
    becomes: dict[str, Any] = {}
    if rng.random() < 0.5:
        row["query"] = rng.choice(TEXTS)
        becomes["query"] = row["query"]
    for name in rng.sample(("ts", "position", "value", "propensity"), rng.randrange(3)):
        value, wanted = _column(rng, name)
        if text and isinstance(value, bool | list | dict):
            value = json.dumps(value)  # false and [0] are texts in csv, and no numbers either
        row[name], becomes[name] = value, wanted
    if rng.random() < 0.1:
        name = rng.choice(("item_type", "event_id", "user_id", "action"))
        row[name], becomes[name] = ("zeppelin" if name == "item_type" else ""), BAD
    return row, becomes


def judge(line: int, row: dict[str, Any], becomes: dict[str, Any]) -> Record:
    """The record of a row."""
    bad = [name for name, value in becomes.items() if value is BAD]
    either = [name for name, value in becomes.items() if value is EITHER]
    pattern = "^(" + "|".join(bad + either) + ") "
    if bad:
        return Record(line, False, reason=pattern)
    if either:
        return Record(line, None, reason=pattern)
    return Record(line, True, row["event_id"], dict(becomes))


BROKEN_LINES = (
    (b"{broken", "not valid JSON"),
    (b"[1, 2]", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"null", "not a JSON object"),
    (b"12", "not a JSON object"),
    (b"\x00", "not valid"),
    (b'{"event_id": "a\x00b"}', "not valid JSON"),
    (b'{"event_id": "\xff\xfe", "ts": 1}', "not valid UTF-8"),
    (b'{"event_id": "\xc0\xaf", "ts": 1}', "not valid UTF-8"),
    (b'{"event_id": "\xed\xa0\x80", "ts": 1}', "not valid UTF-8"),
    (b'{"event_id": "\\ud800", "ts": 1}', "not valid|is missing"),
    (b'{"event_id": "e", "value": NaN}', "is missing"),
    (b'{"event_id": "e", "value": Infinity}', "is missing"),
    (b'{"event_id": "e", "ts": 1} trailing', "not valid JSON"),
    (b'{"event_id": "e", "ts": 1}{"event_id": "f", "ts": 1}', "not valid JSON"),
    (b"{'event_id': 'e'}", "not valid JSON"),
    (b"{}", "is missing"),
    (b'{"event_id": "e"}', "is missing"),
    (b'{"EVENT_ID": "e", "ts": 1}', "is missing"),
    (b"event_id,ts,user_id", "not valid JSON"),
    (b"<html><body>502</body></html>", "not valid JSON"),
    (b'{"a":' * 2000 + b"1" + b"}" * 2000, "not valid|is missing"),
    (b"[" * 50_000, "not valid"),
    (b'{"event_id": "' + b"z" * 200_000, "not valid JSON"),
)


def jsonl_file(rng: random.Random, rows: int, structure: bool) -> tuple[bytes, Truth]:
    """A jsonl file with its truth; with `structure` some lines are no records at all."""
    ending = rng.choice((b"\n", b"\r\n"))
    parts: list[bytes] = []
    truth = Truth()
    for number in range(rows):
        if rng.random() < 0.05:
            parts.append(rng.choice((b"", b"  ", b"\t")) + ending)
        line = len(parts) + 1
        if structure and rng.random() < 0.3:
            raw, reason = rng.choice(BROKEN_LINES)
            parts.append(raw + ending)
            text = raw.decode(errors="backslashreplace")
            truth.records.append(Record(line, False, reason=reason, text=text))
            continue
        row, becomes = draw_row(rng, number, text=False)
        if rng.random() < 0.15:
            row[rng.choice(("note", "Event_Id", "attributes", "ts ", "\U0001f600", "a" * 300))] = rng.choice(
                ([1, None], {"deep": {"er": []}}, "x", None, 1e300, "\x00")
            )
        items = list(row.items())
        rng.shuffle(items)
        raw = json.dumps(dict(items), ensure_ascii=rng.random() < 0.5).encode()
        parts.append(raw + ending)
        truth.records.append(judge(line, row, becomes))
    data = b"".join(parts)
    if rng.random() < 0.3:
        data = data.removesuffix(ending)
    if rng.random() < 0.15:
        data = b"\xef\xbb\xbf" + data
        for one in truth.records:
            if one.line == 1:
                one.text = None
    return data, truth


def csv_file(rng: random.Random, rows: int, structure: bool) -> tuple[bytes, Truth]:
    """A csv file with its truth; with `structure` some lines are ragged or not UTF-8."""
    delimiter = rng.choice((",", "\t", ";", "|"))
    ending = rng.choice(("\n", "\r\n"))
    names = list(COLUMNS)
    rng.shuffle(names)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending)
    writer.writerow(names)
    data = text.getvalue().encode()
    truth = Truth()
    for number in range(rows):
        line = data.count(b"\n") + 1
        if structure and rng.random() < 0.25:
            raw, reason = _broken_csv(rng, delimiter, len(names), number)
            data += raw + ending.encode()
            truth.records.append(
                Record(line, False, reason=reason, text=raw.decode(errors="backslashreplace"))
            )
            continue
        row, becomes = draw_row(rng, number, text=True)
        # A value of csv cannot end lines as its file does not, so that physical lines stay countable.
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=rng.choice((0, 0, 1)))
        writer.writerow([row.get(name, "") for name in names])
        data += text.getvalue().encode()
        truth.records.append(judge(line, row, becomes))
    if rng.random() < 0.3:
        data = data.removesuffix(ending.encode())
    if rng.random() < 0.15:
        data = b"\xef\xbb\xbf" + data
    return data, truth


def _broken_csv(rng: random.Random, delimiter: str, width: int, number: int) -> tuple[bytes, str]:
    """A line that is no record of the file, and why."""
    cells = [f"r{number}"] * width
    mark = delimiter.encode()
    options = (
        (mark.join(c.encode() for c in cells[:-1]), "values where there should be"),
        (mark.join(c.encode() for c in (*cells, "more", "more")), "values where there should be"),
        (b"alone", "values where there should be"),
        (mark.join((b"\xe9t\xe9", *(c.encode() for c in cells[1:]))), "not valid UTF-8"),
        (mark.join((b"\xff\xfe", *(c.encode() for c in cells[1:]))), "not valid UTF-8"),
    )
    return rng.choice(options)


def jsonl_case(rng: random.Random, place: Place) -> str:
    """Rows of jsonl, some with values that are refused, perhaps lines that are none."""
    structure = rng.random() < 0.6
    data, truth = jsonl_file(rng, rng.choice((1, 3, 30, 200)), structure)
    path = place.write("events.jsonl", data)
    good = any(one.good for one in truth.records)
    said = place.run("ingest", path)
    if said.code and (
        not good or data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    ):  # no required column anywhere: refused whole, and nothing is loaded
        expect(path.name in said.err, "the message does not name the file")
        return "jsonl refused whole"
    truth.check(place, path, said)
    return "jsonl lines" if structure else "jsonl values"


def csv_case(rng: random.Random, place: Place) -> str:
    """Rows of csv, some refused for a value, perhaps lines that are no records."""
    structure = rng.random() < 0.6
    data, truth = csv_file(rng, rng.choice((1, 3, 30, 200)), structure)
    path = place.write(rng.choice(("events.csv", "events.tsv", "events.csv")), data)
    truth.check(place, path, place.run("ingest", path))
    return "csv lines" if structure else "csv values"
