"""Where files come from: standard input, pipes, folders, links, odd names; and what --map and options say."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

from fuzz.containers import csv_text, event, jsonl, loaded, parquet, refused_whole
from fuzz.events import balance
from fuzz.harness import Place, expect
from fuzz.values import IDS, bad_text

NAMES = (
    "events-'; drop table events; --.jsonl",
    'events-"quoted".jsonl',
    "events-[a-z]*?.jsonl",
    "events-{a,b}.jsonl",
    "events- spaced .jsonl",
    "events-\U0001f600.jsonl",
    "events-\u202e.jsonl",
    "events-line\nfeed.jsonl",
    "events-\x1b[31m.jsonl",
    "events-$HOME-`id`.jsonl",
    "events-%s%n.jsonl",
    "events-year=2026.jsonl",
    "events-" + "n" * 200 + ".jsonl",
    "-events.jsonl",
    "events-\udcff.jsonl",  # a name that is no UTF-8
)


def place_case(rng: random.Random, place: Place) -> str:
    """Good events from an odd place: all taken, or refused with the name."""
    place.notes["before"] = place.warehouse()
    how = rng.choice(
        (
            "stdin",
            "stdin packed",
            "stdin rubbish",
            "pipe",
            "folder",
            "links",
            "loop",
            "odd name",
            "device",
            "missing",
            "nothing inside",
            "option",
            "unreadable",
        )
    )
    if how.startswith("stdin"):
        data = rng.choice((jsonl(30), csv_text(30).encode(), parquet(30)))
        if how == "stdin packed":
            data = gzip.compress(jsonl(30))
        if how == "stdin rubbish":
            data = rng.choice(
                (b"", bytes(100), os.urandom(0) + bytes(rng.randrange(256) for _ in range(300)))
            )
        said = place.run("ingest", "-", "--table", "events", stdin=data)
        if how == "stdin rubbish":
            expect(said.code or said.json["tables"]["events"]["inserted"] == 0, "rows out of rubbish")
        else:
            loaded(said, 30)
    elif how == "pipe":
        return _pipe(rng, place)
    elif how in ("folder", "links", "loop", "nothing inside"):
        return _folder(how, place)
    elif how == "odd name":
        name = rng.choice(NAMES)
        path = place.write(name, jsonl(5))
        other = place.write("events-a.jsonl", b"{}\n") if rng.random() < 0.5 else None
        expect(other is None or other.is_file(), "no file beside it")
        said = place.run("ingest", "--table", "events", *(["--"] if rng.random() < 0.5 else []), path)
        if "\udcff" in name:
            refused_whole(place, said, "not UTF-8")
            return "name that is no UTF-8"
        loaded(said, 5)
        held = place.rows("select path from files where path not like '%-0.jsonl'")
        expect(len(held) == 1, f"files: {held}")
    elif how == "device":
        said = place.run(
            "ingest",
            rng.choice(("/dev/null", "/proc/self/mem", "/proc/self/status", "/proc/self")),
            "--table",
            "events",
        )
        expect(said.code or said.json["tables"]["events"]["inserted"] == 0, "rows out of a device")
    elif how == "unreadable":
        path = place.write("events.jsonl", jsonl(3))
        said = place.run("ingest", f"{path}/inside")
        refused_whole(place, said, "inside")
    elif how == "missing":
        gone = rng.choice(
            ("events-gone.jsonl", "x" * 300, "events.jsonl/", "~nobody/events.jsonl", "events\udcff", "")
        )
        said = place.run("ingest", str(place.files / gone) if gone else "", "--table", "events")
        expect(said.code != 0, f"{gone!r} was found")
    else:
        return _option(rng, place)
    return how


def _pipe(rng: random.Random, place: Place) -> str:
    path = place.files / "events.pipe"
    os.mkfifo(path)
    data = rng.choice((jsonl(30), gzip.compress(jsonl(30))))
    writer = threading.Thread(target=lambda: path.write_bytes(data), daemon=True)
    writer.start()
    loaded(place.run("ingest", path, "--table", "events"), 30)
    return "pipe"


def _folder(how: str, place: Place) -> str:
    folder = place.files / "export"
    (folder / "deeper" / "truth").mkdir(parents=True)
    if how == "nothing inside":
        (folder / "notes.txt").write_text("x")
        refused_whole(place, place.run("ingest", folder), "export")
        return how
    (folder / "deeper" / "events-1.jsonl").write_bytes(jsonl(10))
    (folder / "deeper" / "truth" / "events-2.jsonl").write_bytes(jsonl(99))
    (folder / "adserver.csv").write_text("a,b\n1,2\n")
    (folder / ".hidden.jsonl").write_bytes(jsonl(99))
    if how == "links":
        outside = place.write("events-other.jsonl", json.dumps(event(50)) + "\n")
        (folder / "events-2.jsonl").symlink_to(outside)
        loaded(place.run("ingest", folder), 11)
        return how
    if how == "loop":
        (folder / "around").symlink_to(folder)
        (folder / "events-3.jsonl").symlink_to(folder / "events-3.jsonl")
        (folder / "events-4.jsonl").symlink_to(folder / "gone.jsonl")
        said = place.run("ingest", folder)
        if said.code:
            expect("events-3" in said.err or "events-4" in said.err, said.err[:300])
        else:
            loaded(said, 10)
        return how
    loaded(place.run("ingest", folder), 10)
    return how


def _option(rng: random.Random, place: Place) -> str:
    """Options of ingest and rejects with odd values."""
    path = place.write("events.jsonl", jsonl(3))
    odd = bad_text(rng).replace("\x00", "")
    words: list[Any] = rng.choice(
        (
            ["ingest", path, "--table", odd],
            ["ingest", path, "--format", odd],
            ["ingest", path, "--source", odd],
            ["ingest", path, "--on-error", odd],
            ["ingest", path, "--images", odd],
            ["ingest", path, "--map", odd],
            ["ingest", odd],
            ["ingest", path, "--dry-run"],
            ["rejects", "--table", odd],
            ["rejects", "--limit", rng.choice(("-1", "0", "9" * 30, "nan", odd))],
            ["status", odd],
            [odd],
        )
    )
    said = place.run(*words)
    if said.code or "--dry-run" in words or words[0] != "ingest":
        expect(place.warehouse() == place.notes["before"], f"{words} changed the warehouse")
    return "options refused" if said.code else "options"


KEYS = ("event_id", "ts", "user_id", "item_type", "item_id", "action")


def map_case(rng: random.Random, place: Place) -> str:
    """Columns renamed to anything and mapped back by --map: every row is there, whatever they are called."""
    place.notes["before"] = place.warehouse()
    taken: dict[str, str] = {}
    for ours in rng.sample(KEYS, rng.randrange(1, 4)):
        theirs = rng.choice(
            (*IDS, *KEYS, "c0", "json", "record", "problem", "$.a", "a.b", "$", "\u00fc", '"', "''")
        )
        theirs = theirs.replace("\x00", "").removeprefix("\ufeff").strip()  # at a file's start it is a mark
        if theirs and theirs not in taken.values() and (theirs not in KEYS or theirs == ours):
            taken[ours] = theirs
    form = rng.choice(("jsonl", "csv", "parquet"))
    rows = [{taken.get(key, key): value for key, value in event(n).items()} for n in range(4)]
    path = _renamed(place, form, rows)
    if path is None:
        return "no such file can be written"
    words = [word for ours, theirs in taken.items() for word in ("--map", f"{theirs}={ours}")]
    if rng.random() < 0.2:
        words += [
            "--map",
            rng.choice(("=", "a=", "=ts", "x", "nowhere=ts", "a=ts", "a=colour", "ts=event_id")),
        ]
        said = place.run("ingest", path, *words)
        if said.code:
            refused_whole(place, said, "--map")
        else:
            balance(said)
        return f"{form} odd map"
    loaded(place.run("ingest", path, *words), 4)
    held = place.rows("select count(*) from events where item_id = 'a1' and action = 'click'")
    expect(held == [(4,)], f"columns went elsewhere: {taken}")
    return f"{form} mapped"


def _renamed(place: Place, form: str, rows: list[dict[str, Any]]) -> Path | None:
    import csv
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    if form == "jsonl":
        return place.write("events.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    names = list(rows[0])
    if form == "csv":
        if any("\n" in name or '"' in name or len(name) > 4000 for name in names):
            return None  # the first line is one line
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(row.values() for row in rows)
        return place.write("events.csv", text.getvalue())
    if len({name.lower() for name in names}) < len(names):
        return None
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return place.write("events.parquet", sink.getvalue())
