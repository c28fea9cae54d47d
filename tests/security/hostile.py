"""A small synthetic shop whose texts from outside are hostile: ids, titles, categories, actions, files."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adstool.world.config import WorldConfig
from adstool.world.generate import generate

# What each is meant to break: SQL, HTML text, HTML attributes, paths, terminals, formats, markup of rich.
ATTACKS = (
    "'; drop table ads; --",
    "<script>alert(1)</script>",
    "\"><img src=http://evil.example/x onerror=alert(1)>' style='x",
    "/../../../../../tmp/adstool-escaped",
    "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m",
    "line\r\n<b>two</b>\t\x08\u202eback",
    "{0.__class__} %s%n ${HOME} `touch x` $(touch x)",
    "[link=http://evil.example]here[/link] ]]><svg onload=alert(1)>",
    'javascript:alert(1)//"&lt;&#x27;\\',
)
ACTIONS = ("click", "save", "hide")  # the heads of this shop; every other action of the world is left out
ID_COLUMNS = {
    "user_id",
    "ad_id",
    "pin_id",
    "advertiser_id",
    "campaign_id",
    "item_id",
    "event_id",
    "request_id",
    "conversion_id",
}
TEXT_COLUMNS = {
    "title",
    "description",
    "category",
    "landing_url",
    "name",
    "vertical",
    "country",
    "language",
    "surface",
    "source",
    "query",
    "kind",
    "board_id",
    "format",
}


def attacked(value: str) -> str:
    """The value with an attack behind it: always the same for the same value, so that ids still meet."""
    return value + ATTACKS[zlib.crc32(value.encode()) % len(ATTACKS)]


def action_of(name: str) -> str:
    """The shop's name of an action of the world; those that have a meaning of their own keep theirs."""
    return name if name in ("impression", "query", "click") else attacked(name)


def settings() -> str:
    """adstool.toml of the shop: heads with hostile names."""
    lines = ["[funnel]", "retrieve = 20", "lightweight = 10", "slate = 4"]
    for name in ACTIONS:
        quoted = json.dumps(action_of(name)).replace("\x7f", "\\u007f")
        lines += ["[[actions]]", f"name = {quoted}", f"positive = {json.dumps(name != 'hide')}"]
    return "\n".join(lines) + "\n"


def write_data(folder: Path) -> dict[str, int]:
    """Write the shop's files into `folder`; the number of rows by table."""
    world = folder / "world"
    config = WorldConfig(users=60, ads=36, pins=24, days=4, seed=3, requests_per_user_day=0.8)
    generate(config, world, None, None)
    data = folder / "data"
    data.mkdir()
    (data / "images").mkdir()
    counts: dict[str, int] = {}
    for table in ("ads", "advertisers", "campaigns", "pins", "users"):
        with open(world / f"{table}.csv", encoding="utf-8", newline="") as handle:
            rows = [_row(world, data, row) for row in csv.DictReader(handle)]
        with open(data / f"{table}.csv", "w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, [*rows[0], ATTACKS[2]])  # a column of nobody's: an attribute
            writer.writeheader()
            writer.writerows([{**row, ATTACKS[2]: ATTACKS[1]} for row in rows])
        counts[table] = len(rows)
    for table in ("events", "conversions"):
        lines = [line for path in sorted(world.glob(f"{table}*.gz")) for line in _lines(path)]
        kept = [row for row in lines if row.get("action", "query") in (*ACTIONS, "impression", "query", None)]
        text = "".join(json.dumps(_row(world, data, row)) + "\n" for row in kept)
        (data / f"{table}.jsonl").write_text(text, encoding="utf-8")
        counts[table] = len(kept)
    return counts


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def _row(world: Path, data: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(row)
    for column, value in row.items():
        if column in ID_COLUMNS | TEXT_COLUMNS and value:
            made[column] = attacked(value)
        elif column == "action":
            made[column] = action_of(value)
        elif column == "image" and value:
            made[column] = _picture(world, data, value)
    return made


def _picture(world: Path, data: Path, image: str) -> str:
    """The picture under a hostile name, as far as a file can have one."""
    name = "images/" + attacked(Path(image).stem).replace("/", "_")[:100] + ".png"
    try:
        (data / name).write_bytes((world / image).read_bytes())
    except OSError:  # this file system has no such names
        name = image
        (data / name).write_bytes((world / image).read_bytes())
    return name
