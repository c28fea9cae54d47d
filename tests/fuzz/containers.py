"""Whole files that are damaged, packed oddly or written in another encoding; and bytes changed at random."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.events import COLUMNS, balance
from fuzz.harness import Place, Said, expect, state_of_template

HEADER = ",".join(COLUMNS)


def event(number: int, **changes: Any) -> dict[str, Any]:
    """A good event."""
    row = {
        "event_id": f"e{number}",
        "ts": 1_700_000_000 + number,
        "user_id": f"u{number % 7}",
        "item_type": "ad",
        "item_id": "a1",
        "action": "click",
    }
    return row | changes


def jsonl(rows: int) -> bytes:
    """Good events as jsonl."""
    return b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(rows))


def csv_text(rows: int) -> str:
    """Good events as csv."""
    lines = [HEADER]
    lines += [",".join(str(event(n).get(name, "")) for name in COLUMNS) for n in range(rows)]
    return "\n".join(lines) + "\n"


def parquet(rows: int) -> bytes:
    """Good events as parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([event(n) for n in range(rows)]), sink)
    return bytes(sink.getvalue())


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def refused_whole(place: Place, said: Said, name: str) -> None:
    """The file was refused, its name said, and the warehouse is as it was."""
    expect(said.code in (1, 2), f"exit {said.code} for a file that is no good")
    expect(name in said.err, f"the message does not name {name}: {said.err[:300]}")
    expect(place.warehouse() == place.notes["before"], "a refused file changed the warehouse")


def loaded(said: Said, rows: int, table: str = "events") -> None:
    """All `rows` were taken."""
    expect(said.code == 0, f"refused: {said.err[:300]}")
    balance(said)
    counts = said.json["tables"][table]
    expect(counts["read"] == rows and counts["inserted"] == rows, f"{counts} of {rows} rows")


def container_case(rng: random.Random, place: Place) -> str:
    """A compressed file or parquet, whole in an odd way or damaged."""
    place.notes["before"] = place.warehouse()
    rows = rng.choice((1, 50, 3000))
    kind = rng.choice(("gz", "zst", "parquet"))
    data = parquet(rows) if kind == "parquet" else jsonl(rows)
    packed = {"gz": gzip.compress, "zst": zstd, "parquet": bytes}[kind](data)
    name = "events.parquet" if kind == "parquet" else f"events.jsonl.{kind}"
    odd: dict[str, Callable[[], tuple[str, bytes]]] = {
        "whole": lambda: (name, packed),
        "cut": lambda: (name, packed[: rng.randrange(1, len(packed))]),
        "cut at the end": lambda: (name, packed[: -rng.randrange(1, 12)]),
        "no beginning": lambda: (name, packed[rng.randrange(1, 12) :]),
        "zeros inside": lambda: (name, _holed(rng, packed)),
        "empty": lambda: (name, b""),
        "only magic": lambda: (name, packed[:4]),
        "wrong suffix": lambda: (rng.choice(("events.csv.gz", "events.jsonl.zst", "events.jsonl")), packed),
        "not packed": lambda: (name, jsonl(rows) if kind != "parquet" else csv_text(rows).encode()),
        "two members": lambda: (name, packed + packed),
        "rubbish behind": lambda: (name, packed + bytes(rng.randrange(256) for _ in range(50))),
        "zeros behind": lambda: (name, packed + bytes(512)),
        "twice packed": lambda: (
            name,
            {"gz": gzip.compress, "zst": zstd, "parquet": gzip.compress}[kind](packed),
        ),
        "another packer": lambda: (name, rng.choice((b"BZh91AY", b"\xfd7zXZ\x00", b"PK\x03\x04")) + packed),
    }
    how = rng.choice(sorted(odd))
    file, content = odd[how]()
    path = place.write(file, content)
    said = place.run("ingest", path)
    if how == "whole" or (how == "two members" and kind != "parquet"):
        loaded_twice = how == "two members"
        expect(said.code == 0, f"{kind} {how}: {said.err[:300]}")
        balance(said)
        counts = said.json["tables"]["events"]
        expect(counts["read"] == rows * (2 if loaded_twice else 1), f"{kind} {how}: {counts}")
        expect(counts["inserted"] == rows, f"{kind} {how}: {counts}")
    elif said.code:
        refused_whole(place, said, file)
    else:
        _accounted(place, said, rows, f"{kind} {how}")
        # Neither format has a sum over its content here, so zeros inside may pass for what was written.
        unseen = how == "zeros inside" and kind in ("zst", "parquet")
        damages = ("cut", "cut at the end", "no beginning", "zeros inside")
        cut = how in damages and content != packed and not unseen
        expect(not cut, f"{kind} {how}: a damaged file was taken for a whole one: {said.out[:200]}")
    return f"{kind} {how}"


def _holed(rng: random.Random, packed: bytes) -> bytes:
    """The bytes with some in the middle, which were others, set to zero."""
    place = rng.randrange(len(packed) // 3, max(len(packed) - 12, len(packed) // 3 + 1))
    return packed[:place] + bytes(4) + packed[place + 4 :]


def _accounted(place: Place, said: Said, rows: int, what: str) -> None:
    """What was read of a file that was taken is all there."""
    balance(said)
    for counts in said.json["tables"].values():
        expect(counts["inserted"] <= rows, f"{what}: more rows than were written: {counts}")


ENCODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "cp1252",
    "utf-7",
    "cp037",
    "utf-8-sig",
    "shift_jis",
)


def encoding_case(rng: random.Random, place: Place) -> str:
    """A file in another encoding, with other line ends, or without any content that could be rows."""
    place.notes["before"] = place.warehouse()
    form = rng.choice(("jsonl", "csv"))
    text = jsonl(20).decode() if form == "jsonl" else csv_text(20)
    text = text.replace("a1", rng.choice(("a1", "é", "ü")))
    how = rng.choice(
        (*ENCODINGS, "CR", "LFCR", "NUL between", "empty", "blank", "header", "BOM only", "one byte")
    )
    contents = {
        "CR": lambda: text.replace("\n", "\r").encode(),
        "LFCR": lambda: text.replace("\n", "\n\r").encode(),
        "NUL between": lambda: text.replace("\n", "\x00\n").encode(),
        "empty": lambda: b"",
        "blank": lambda: b"\n \n\t\n",
        "header": lambda: (HEADER + rng.choice(("", "\n", "\r\n"))).encode(),
        "BOM only": lambda: rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")),
        "one byte": lambda: bytes([rng.randrange(256)]),
    }
    content = contents[how]() if how in contents else text.encode(how, "replace")
    path = place.write(f"events.{form}", content)
    said = place.run("ingest", path)
    if said.code:
        refused_whole(place, said, path.name)
    else:
        balance(said)
        counts = said.json["tables"]["events"]
        if how in ("utf-8-sig",):
            loaded(said, 20)
        if how in ("empty", "blank", "header"):
            expect(counts["inserted"] == 0, f"{how}: rows out of nothing: {counts}")
        if form == "jsonl" and how in ("latin-1", "cp1252", "NUL between"):
            expect(counts["read"] == 20, f"{how}: {counts['read']} of 20 lines were read")
        listed = place.rows("select count(*) from rejects")[0][0]
        expect(listed == counts["rejected"], f"{how}: {listed} rejects listed, {counts['rejected']} counted")
    return f"{form} {how}"


SPLICES = (
    b"\x00",
    b"\xff",
    b'"',
    b'""',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"\r",
    b"\n",
    b",",
    b":",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"null",
    b" ",
    b"1e999",
)


def mutated(rng: random.Random, data: bytes, times: int) -> bytes:
    """The bytes with some of them changed, cut out, put in or repeated."""
    changed = bytearray(data)
    for _ in range(times):
        place = rng.randrange(len(changed) + 1)
        how = rng.randrange(5)
        if how == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            del changed[place : place + rng.choice((1, 1, 3, 40))]
        elif how == 2:
            changed[place:place] = rng.choice(SPLICES)
        elif how == 3:
            changed[place:place] = changed[place : place + rng.choice((1, 20, 200))]
        else:
            changed[place : place + 1] = bytes([rng.randrange(256)])
    return bytes(changed)


def mutation_case(rng: random.Random, place: Place) -> str:
    """A good file with random bytes changed: lines left alone are there, the others accounted for."""
    place.notes["before"] = place.warehouse()
    form = rng.choice(("jsonl", "csv", "parquet", "jsonl.gz"))
    rows = rng.choice((3, 60))
    plain = {
        "jsonl": jsonl(rows),
        "csv": csv_text(rows).encode(),
        "parquet": parquet(rows),
        "jsonl.gz": jsonl(rows),
    }[form]
    if form == "jsonl.gz":
        content = gzip.compress(mutated(rng, plain, rng.choice((1, 5, 30))))
        plain = gzip.decompress(content)
    else:
        content = plain = mutated(rng, plain, rng.choice((1, 5, 30)))
    path = place.write(f"events.{form}", content)
    said = place.run("ingest", path)
    if said.code:
        refused_whole(place, said, path.name)
        return f"{form} refused whole"
    balance(said)
    counts = said.json["tables"]["events"]
    refused = place.rows("select line, row from rejects")
    expect(len(refused) == counts["rejected"], f"{len(refused)} rejects listed, {counts['rejected']} counted")
    if form.startswith("jsonl"):
        _check_lines(place, plain, counts["read"], refused)
    elif form == "csv" and b'"' not in plain:
        lines = [line for line in plain.split(b"\n")[1:] if line.strip(b"\r\n")]
        expect(counts["read"] <= len(lines), f"read {counts['read']} of {len(lines)} lines")
        expect(counts["read"] >= len(lines) - plain.count(b"\r") - 1 or b"\r" in plain, "lines were lost")
    return f"{form} taken"


def _check_lines(place: Place, data: bytes, read: int, refused: list[tuple[Any, ...]]) -> None:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    there = [line for line in lines if line.strip()]
    expect(read == len(there), f"read {read} of {len(there)} lines that are not blank")
    original = set(jsonl(60).split(b"\n"))
    held = {key for (key,) in place.rows("select event_id from events")}
    for number, line in enumerate(lines, start=1):
        if line and line in original:
            key = json.loads(line)["event_id"]
            expect(key in held, f"line {number} was not touched, and {key} is not there")
    for line_number, text in refused:
        raw = lines[line_number - 1].rstrip(b"\r\n").decode(errors="backslashreplace")
        expect(text == raw, f"reject of line {line_number} shows {text!r:.80}, the line is {raw!r:.80}")


def huge_case(rng: random.Random, place: Place) -> str:
    """Fields of megabytes, very many columns, deep or wide JSON, names that come twice."""
    place.notes["before"] = place.warehouse()
    big = "z" * rng.choice((1 << 20, 3 << 20))
    how = rng.choice(
        (
            "jsonl field",
            "csv field",
            "quoted csv",
            "long line",
            "many keys",
            "many columns",
            "same name",
            "same key",
            "deep",
            "digits",
            "many quotes",
        )
    )
    if how == "jsonl field":
        path = place.write("events.jsonl", json.dumps(event(1, query=big)).encode() + b"\n{bad\n" + jsonl(2))
        counts = _counts(place.run("ingest", path))
        expect(counts == (4, 2, 1, 1), f"{how}: {counts}")
        expect(place.rows("select max(length(query)) from events") == [(len(big),)], "the field was cut")
    elif how in ("csv field", "quoted csv"):
        cell = big if how == "csv field" else '"' + big[: 1 << 20].replace("z", 'z""\n', 1000) + '"'
        line = f"e9,2026-10-01,u,ad,a,click,,,,{cell}\n"
        path = place.write("events.csv", csv_text(2) + line + "e10,soon,u,ad,a,click,,,,x\n")
        counts = _counts(place.run("ingest", path))
        expect(counts == (4, 3, 0, 1), f"{how}: {counts}")
        wanted = 4 + cell.count("\n")
        lines = place.rows("select line from rejects")
        expect(lines == [(wanted + 1,)], f"{how}: rejects at {lines}, not {wanted + 1}")
    elif how == "long line":
        size = (1 << 24) + rng.choice((-200, 1, 1 << 20))
        path = place.write(
            "events.jsonl", jsonl(1) + json.dumps(event(5, query="y" * size)).encode() + b"\n" + jsonl(3)
        )
        counts = _counts(place.run("ingest", path))
        expect(counts[0] == 5 and counts[1] >= 3, f"{how}: {counts}")
    elif how == "many keys":
        row = event(1, **{f"k{n}": n for n in range(3000)})
        path = place.write("events.jsonl", jsonl(1) + json.dumps(row).encode() + b"\n")
        loaded(place.run("ingest", path), 2)
    elif how == "many columns":
        extra = rng.choice((500, 20_000))
        names = [f"x{n}" for n in range(extra)]
        if rng.random() < 0.5:
            names = ["y" * 100 + name for name in names]
        good = rng.random() < 0.5
        head = [*(COLUMNS if good and extra == 500 else ()), *names]
        row = [
            *(["e1", "2026-10-01", "u", "ad", "a", "click", "", "", "", "q"] if len(head) > extra else ()),
            *(["1"] * extra),
        ]
        path = place.write("events.csv", ",".join(head) + "\n" + ",".join(row) + "\n")
        said = place.run("ingest", path)
        loaded(said, 1) if len(head) > extra else refused_whole(place, said, path.name)
    elif how == "same name":
        doubled = rng.choice(("event_id", "x", " ts", "USER_ID,USER_ID"))
        path = place.write("events.csv", f"{HEADER},{doubled},x\n")
        said = place.run("ingest", path)
        if said.code:
            refused_whole(place, said, path.name)
    elif how == "same key":
        raw = json.dumps(event(1))[:-1] + ', "event_id": "other", "query": "a", "query": "b"}\n'
        path = place.write("events.jsonl", raw.encode() + jsonl(1))
        expect(_counts(place.run("ingest", path))[0] == 2, how)
    elif how == "deep":
        depth = rng.choice((50, 900, 5000, 200_000))
        raw = json.dumps(event(1))[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}\n"
        path = place.write(
            "events.jsonl", jsonl(1) + raw.encode() + b"[" * depth + b"\n" + json.dumps(event(7)).encode()
        )
        said = place.run("ingest", path)
        counts = _counts(said)
        expect(counts[0] == 4 and counts[1] >= 2, f"{how} {depth}: {counts}")
    elif how == "digits":
        raw = (
            json.dumps(event(1))[:-1] + ', "value": ' + "9" * 100_000 + ', "position": 1' + "0" * 5000 + "}\n"
        )
        path = place.write("events.jsonl", jsonl(1) + raw.encode())
        expect(_counts(place.run("ingest", path))[0] == 2, how)
    else:
        good = "e%d,2026-10-01,u,ad,a,click,,,,x\n"
        bad = 'b%d,2026-10-01,u,ad,a,click,,,,"x\n'
        lines = [bad % n if n % 5 == 0 else good % n for n in range(400)]
        path = place.write("events.csv", csv_text(0) + "".join(lines))
        counts = _counts(place.run("ingest", path))
        expect(counts[0] == sum(counts[1:]) and counts[1] >= 320 - 80 * 4, f"{how}: {counts}")
    return how


def _counts(said: Said) -> tuple[int, int, int, int]:
    expect(said.code == 0, f"refused: {said.err[:400]}")
    balance(said)
    counts = said.json["tables"]["events"]
    return counts["read"], counts["inserted"], counts["duplicate"], counts["rejected"]


def same_as_template(place: Place) -> bool:
    """Whether the warehouse is as it was made."""
    return place.warehouse() == state_of_template(place.notes["template"])


def words_in(text: str) -> set[str]:
    """The words of a message."""
    return set(re.findall(r"\w+", text))
