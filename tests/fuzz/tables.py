"""Tables that other verbs read: logged policies, recorded auctions, flat tables, real catalogues."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from adstool.errors import AdstoolError
from fuzz.containers import mutated
from fuzz.harness import Place, expect, run
from fuzz.values import IDS, bad_text

ODD_CELLS = (
    "",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "x",
    "true",
    "NULL",
    "9" * 400,
    '"',
    "é",
    "\x00",
    "1,5",
    " 1 ",
    "0x1p3",
)


def _rows(rng: random.Random, names: tuple[str, ...], count: int, odd: float) -> list[dict[str, Any]]:
    """Rows of plausible numbers, some cells odd."""
    rows = []
    for number in range(count):
        row = {
            "reward": rng.randrange(2),
            "propensity": round(rng.uniform(0.1, 1), 3),
            "target": round(rng.uniform(0, 1), 3),
            "user": f"u{number % 9}",
            "click": rng.randrange(2),
            "label": rng.randrange(2),
            "x": round(rng.gauss(0, 1), 4),
            "c": rng.choice("abc"),
        }
        rows.append(
            {name: rng.choice(ODD_CELLS) if rng.random() < odd else row.get(name, number) for name in names}
        )
    return rows


def _csv(rows: list[dict[str, Any]], names: tuple[str, ...], mark: str = ",") -> bytes:
    lines = [mark.join(names), *(mark.join(str(row[name]) for name in names) for row in rows)]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _table(rng: random.Random, place: Place, names: tuple[str, ...], stem: str, count: int = 120) -> Path:
    """A file of a table, in some form and some state."""
    odd = rng.choice((0.0, 0.0, 0.01, 0.3))
    rows = _rows(rng, names, count, odd)
    form = rng.choice(
        ("csv", "csv", "parquet", "csv.gz", "tsv") if stem != "log" else ("csv", "jsonl", "parquet", "csv.gz")
    )
    if form == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(
            pa.table({name: [str(row[name]) if odd else row[name] for row in rows] for name in names}), sink
        )
        content = sink.getvalue()
    else:
        content = _csv(rows, names, "\t" if form == "tsv" else ",")
    how = rng.random()
    if how < 0.15:
        content = mutated(rng, content, rng.choice((1, 10)))
    elif how < 0.25:
        content = rng.choice(
            (
                b"",
                b"\n",
                bytes(300),
                content[: len(content) // 2],
                content.decode("utf-8", "replace").encode("utf-16"),
                b"<html></html>",
                _csv([], names),
            )
        )
    if form == "csv.gz":
        content = gzip.compress(content)
        if rng.random() < 0.3:
            content = content[: -rng.randrange(1, 20)]
    name = rng.choice(
        (f"{stem}.{form}",) * 16
        + (f"{stem}[1]*.{form}", f"{stem}'.{form}", f"{stem}.txt", stem, f"year=1/{stem}.{form}")
    )
    return place.write(name, content)


def ope_case(rng: random.Random, place: Place) -> str:
    """A log of `evaluate ope`: judged, refused by its own gate, or refused with the file's name."""
    names = rng.choice(
        (
            ("reward", "propensity", "target", "user"),
            ("reward", "propensity", "target", "user"),
            ("reward", "propensity", "target", "n_reward", "bad_reward"),
            ("reward", "reward", "target"),
            ('re"ward', "propensity", "target"),
        )
    )
    path = _table(rng, place, names, "log")
    reward = rng.choice((names[0],) * 9 + tuple(bad_text(rng).replace("\x00", "") for _ in range(2)))
    words = ["--log", path, "--reward", reward, "--propensity", "propensity", "--target", "target"]
    if rng.random() < 0.3:
        words += [
            rng.choice(("--user", "--q-hat", "--embedding", "--context", "--action")),
            rng.choice(("user", "reward", "nowhere")),
        ]
    said = run("--json", "--workspace", _workspace(place), "evaluate", "ope", *words)
    if said.code in (1, 2) and said.err.startswith("error"):
        named = (
            path.name.encode("ascii", "replace").decode() in said.err
            or "--" in said.err
            or "olumn" in said.err
        )
        expect(named, f"the message does not say where: {said.err[:300]}")
    if said.code == 0:
        for key in ("ips", "snips", "dr"):
            value = said.json[key]
            expect(value is None or np.isfinite(value), f"{key} = {value}")
    return f"ope {said.code}"


def _workspace(place: Place) -> Path:
    """A workspace without a warehouse."""
    place.workspace.mkdir(exist_ok=True)
    (place.workspace / "adstool.toml").touch()
    return place.workspace


def replay_case(rng: random.Random, place: Place) -> str:
    """Recorded auctions of `simulate --replay`."""
    lines = [
        f"{rng.randrange(2)} {rng.randrange(1, 300)} {rng.uniform(0, 0.1):.5f}"
        for _ in range(rng.choice((2, 3, 80)))
    ]
    odd = (
        "",
        "# note",
        "1",
        "1 2",
        "1 2 3 4",
        "2 5 0.1",
        "1 -5 0.1",
        "1 5 1.5",
        "nan 5 0.1",
        "1 inf 0.1",
        "1 nan nan",
        "x y z",
        "1,5,0.1",
        "1 0 0",
        "0 0 0",
        "1 1e308 1",
        "1 1e-308 1e-308",
        "1_0 5 0.1",
        "é",
        "\x00",
        "1 5 0x1p-3",
    )
    for _ in range(rng.choice((0, 0, 1, 3))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(odd))
    if rng.random() < 0.1:
        lines = [f"0 0 {rng.choice(('0', '0.5'))}"] * rng.choice((2, 50))
    content = "\n".join(lines).replace(" ", rng.choice((" ", "\t", ","))).encode()
    name = "auctions.txt"
    how = rng.random()
    if how < 0.15:
        content = rng.choice(
            (
                b"",
                b"\n\n",
                bytes(300),
                b"\xff\xfe1\x00",
                content + b"\xe9",
                mutated(rng, content, 5),
                b"1 2 " + b"9" * 100_000,
                b"1" * 300_000,
            )
        )
    elif how < 0.4:
        name = rng.choice(("auctions.gz", "auctions.txt.gz", "auctions.bz2", "auctions.xz"))
        packed = gzip.compress(content)
        content = rng.choice(
            (
                packed,
                packed[: len(packed) // 2],
                packed[:-6],
                packed + b"x",
                content,
                b"",
                packed[:-8] + bytes(8),
            )
        )
    path = place.write(name, content)
    path = rng.choice((path,) * 9 + (place.files, place.files / "gone.txt"))
    budget = rng.choice(
        (
            "1/8",
            "1/8",
            "all",
            "100",
            "0",
            "-1",
            "1/0",
            "nan",
            "inf",
            "1e999",
            "1e400/1",
            "x",
            "9" * 400,
            "1/" + "9" * 400,
            "1/",
            "9e999999999",
            "",
        )
    )
    strategy = rng.choice(("all", "linear", "dual", "ortb", "pid", "fixed", "x", ""))
    said = run("--json", "simulate", "--replay", path, "--budget", budget, "--strategy", strategy)
    if said.code in (1, 2):
        expect(
            path.name in said.err
            or "--budget" in said.err
            or "--strategy" in said.err
            or "strategy" in said.err,
            said.err[:300],
        )
    return "replay refused" if said.code else "replay"


def flat_case(rng: random.Random, place: Place) -> str:
    """A flat table of `train engagement --train`: encoded whole, or refused with the file's name."""
    from adstool.config import load_settings
    from adstool.training.flat import prepare
    from adstool.training.flat_table import FlatRequest
    from adstool.workspace import Workspace

    names = rng.choice(
        (
            ("label", "x", "c"),
            ("label", "c0", "n0", "bad0"),
            ("label", "x", 'co"l', "c"),
            ("label", "x", "c"),
            ("label", "x", "c"),
            ("label",),
            ("x", "c"),
            ("label", *(f"f{n}" for n in range(300))),
        )
    )
    train = _table(rng, place, names, "train", 200)
    test = rng.choice((train, _table(rng, place, names, "test", 60)))
    numeric = tuple(name for name in names if name in ("x", "n0", "bad0"))
    categorical = tuple(name for name in names if name not in (*numeric, "label"))
    guessed = rng.random() < 0.4
    if rng.random() < 0.1:
        numeric = (bad_text(rng), *numeric)
    request = FlatRequest(
        train, test, None, "label", () if guessed else categorical, () if guessed else numeric, 2, 4
    )
    ws = Workspace(_workspace(place))
    try:
        examples = prepare(ws, load_settings(None, environment={}), request)
    except AdstoolError as error:
        expect(len(error.message) < 4000 and error.hint, f"{error.message[:200]} / {error.hint}")
        named = any(name in error.message for name in (train.name, test.name, "olumn", "label"))
        expect(named, f"the message does not say where: {error.message[:300]}")
        left = sorted(path.name for path in (ws.cache / "flat").glob("*")) if ws.cache.is_dir() else []
        expect(not left, f"left behind: {left}")
        return "flat refused"
    expect(np.isfinite(examples.numeric).all(), "numbers that are none")
    expect(np.isin(examples.labels, (0, 1)).all(), "labels that are none")
    return "flat"


def catalogue_case(rng: random.Random, place: Place) -> str:
    """A catalogue of `sample --catalog`."""
    from adstool.world.config import WorldConfig
    from adstool.world.real import count_items, read_catalogue

    names = rng.choice(
        (
            ("id", "title", "category", "image"),
            ("id", "title", "category", "price"),
            ("title", "category"),
            ("id", "name"),
            ("id", "id", "title", "category"),
            ("", "title", "category"),
        )
    )
    lines = [",".join(names)]
    cells = {"price": ODD_CELLS, "category": ("shoes", "", "a/b", *IDS), "title": ("Red shoe", "", *IDS)}
    pictures = (
        "a.png",
        "../../etc/passwd",
        "/etc/passwd",
        "http://x/y.png",
        "loop.png",
        "nul\x00.png",
        "x" * 300 + ".png",
        "",
        "bomb.png",
        ".",
        "..",
    )
    for number in range(rng.choice((0, 1, 60, 60, 60))):
        row = []
        for name in names:
            value = (
                f"i{number}"
                if name in ("id", "")
                else rng.choice(pictures if name == "image" else cells.get(name, ("x",)))
            )
            row.append('"' + str(value).replace('"', '""') + '"' if rng.random() < 0.98 else '"' + str(value))
        lines.append(",".join(row))
    content = "\n".join(lines).encode("utf-8", "replace")
    if rng.random() < 0.2:
        content = rng.choice(
            (
                mutated(rng, content, 5),
                b"",
                bytes(200),
                content.decode().encode("utf-16"),
                content + b"\xe9",
                b"title,category\n" + b"z" * 300_000 + b",x\n",
            )
        )
    path = place.write("items.csv", content)
    place.write("a.png", _bomb())
    (place.files / "loop.png").symlink_to(place.files / "loop.png")
    place.write("bomb.png", _bomb())
    path = rng.choice((path,) * 20 + (place.files, place.files / "gone.csv"))
    try:
        total = count_items(path)
        raw, _ = read_catalogue(
            path, rng.choice((None, place.files)), WorldConfig(ads=total // 2, pins=total - total // 2)
        )
    except AdstoolError as error:
        expect(len(error.message) < 4000 and error.hint, f"{error.message[:200]} / {error.hint}")
        return "catalogue refused"
    for picture in raw.pictures:
        expect(
            picture is None or picture.resolve().is_relative_to(place.files.resolve()),
            f"{picture} is outside",
        )
    return "catalogue"


def _bomb() -> bytes:
    from fuzz.pictures import png_bomb

    return png_bomb(30_000, 30_000)
