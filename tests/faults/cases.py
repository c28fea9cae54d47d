"""The writing verbs, each with the workspace it starts from; and the workspaces, made one from another."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from faults.harness import Verbs

WORLD = ("--users", "60", "--ads", "30", "--pins", "30", "--days", "8", "--seed", "3")
SETTINGS = {
    "ADSTOOL_FUNNEL_RETRIEVE": "20",
    "ADSTOOL_FUNNEL_LIGHTWEIGHT": "10",
    "ADSTOOL_FUNNEL_SLATE": "5",
    "ADSTOOL_EVALUATION_BOOTSTRAP": "20",
}
SHORT = ("--epochs", "2", "--seed", "1")


@dataclass(frozen=True)
class Case:
    """A verb that writes. {world} and {extra} in its words are the folders of `make_inputs`."""

    name: str
    words: tuple[str, ...]
    before: str  # the state in which it is called, one of STATES
    codes: tuple[int, ...] = (0,)  # how it may end undisturbed
    chain: int = 1  # kills, one after another, before what stands is judged
    timed: tuple[str, ...] = ()  # files whose content depends on measured times

    def line(self, base: Path, *more: str) -> list[str]:
        """The words of the command line."""
        given = {"world": str(base / "world"), "extra": str(base / "extra")}
        return [word.format(**given) for word in (*self.words, *more)]


def _train(model: str, *words: str) -> tuple[str, ...]:
    return ("train", model, *SHORT, *words)


# State -> the one before and the verbs that lead from there.
STATES: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "nothing": ("", ()),
    "init": ("nothing", (("init",),)),
    "loaded": ("init", (("ingest", "{world}"),)),
    "embedded": ("loaded", (("embed",),)),
    "described": ("embedded", (("train", "semantic"), ("interests", "--refresh"))),
    "trained": (
        "described",
        (
            _train("retrieval"),
            _train("lightweight"),
            _train("engagement"),
            _train("conversion"),
            ("calibrate", "engagement"),
        ),
    ),
    "indexed": ("trained", (("index",),)),
}

CASES = (
    Case("init", ("init",), "nothing"),
    Case("sample", ("sample", "made", *WORLD), "nothing"),
    Case("ingest", ("ingest", "{world}", "{extra}"), "init"),
    Case("ingest more", ("ingest", "{extra}"), "indexed"),
    Case("ingest --source", ("ingest", "{extra}/ml", "--source", "movielens"), "init"),
    Case("embed", ("embed", "--batch-size", "2"), "loaded"),
    Case("interests", ("interests", "--refresh"), "embedded"),
    Case("enrich", ("enrich", "--with", "clip"), "embedded"),
    Case("train semantic", ("train", "semantic"), "embedded"),
    Case("train retrieval", _train("retrieval"), "described"),
    Case("train lightweight", _train("lightweight"), "trained"),
    Case("train engagement", _train("engagement"), "trained"),
    Case("train --resume", _train("engagement", "--resume"), "described"),
    Case("train conversion", _train("conversion"), "trained"),
    Case("train users", _train("users"), "described"),
    Case("train clip", _train("clip"), "loaded"),
    Case("calibrate", ("calibrate", "engagement"), "trained"),
    Case("quantize", ("quantize", "engagement"), "trained", codes=(0, 3)),
    Case("index", ("index",), "trained"),
    Case("index --tune", ("index", "--tune"), "indexed", timed=("models/index/index.json",)),
    Case("quota", ("quota",), "indexed"),
    Case("rank", ("rank", "--requests", "{extra}/requests.jsonl"), "indexed"),
    Case("evaluate", ("evaluate",), "indexed"),
    Case("evaluate utility", ("evaluate", "utility", "--write"), "indexed"),
    Case("simulate", ("simulate", "--days", "1"), "indexed"),
    Case("report", ("report",), "indexed"),
    Case("sql --output", ("sql", "select * from events", "--output", "events.parquet"), "indexed"),
    Case("run", ("run",), "loaded", chain=4),
    Case("demo", ("demo", "."), "nothing", chain=4),
)
BY_NAME = {case.name: case for case in CASES}


def make_inputs(base: Path, verbs: Verbs) -> None:
    """The world, and files beside it: rows that are refused, doubled and new, requests, MovieLens."""
    extra = base / "extra"
    if extra.is_dir():
        return
    base.mkdir(parents=True, exist_ok=True)
    done = verbs.run(["sample", base / "world", *WORLD], base)
    assert done.code == 0, done.err
    partial = base / "extra.part"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "ml").mkdir(parents=True)
    event = {"ts": "2026-11-11T10:00:00Z", "user_id": "u1", "item_type": "ad", "item_id": "a1"}
    rows: list[dict[str, object]] = [
        {**event, "event_id": f"e{i}", "action": "click", "user_id": f"u{i % 50}"} for i in range(3000)
    ]
    rows[5] = {**rows[5], "ts": "yesterday"}  # refused
    rows[6] = {"event_id": "e6"}  # refused
    rows[7] = rows[8]  # doubled
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (partial / "events-more.jsonl").write_text(text + "{not json\n")
    (partial / "ads-more.csv").write_text(
        "ad_id,campaign_id,title,price\na1,c1,Renamed,3\nz1,c1,New,1\nz2,c1,New,x\n"
    )
    (partial / "users-more.csv").write_text("user_id,country\nz1,DE\n,FR\n")
    users = [f"u{i}" for i in range(40)]
    requests = [{"user_id": user, "request_id": f"q-{user}", "k": 5} for user in users]
    (partial / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in requests))
    ratings = [
        f"{u}\t{i}\t{1 + (u * i) % 5}\t{880000000 + u * 50 + i}\n" for u in range(1, 40) for i in range(1, 40)
    ]
    (partial / "ml" / "u.data").write_text("".join(ratings))
    (partial / "ml" / "u.user").write_text("".join(f"{u}|30|M|writer|12345\n" for u in range(1, 40)))
    genres = "|".join("0" for _ in range(18))
    films = [f"{i}|Film {i} (1995)|01-Jan-1995||http://x|0|{genres}\n" for i in range(1, 40)]
    (partial / "ml" / "u.item").write_text("".join(films))
    partial.rename(extra)


def state_folder(base: Path, name: str, verbs: Verbs) -> Path:
    """A folder in that state, to be copied; made where it is not there yet."""
    folder = base / "states" / name
    if folder.is_dir():
        return folder
    before, steps = STATES[name]
    work = base / "work"  # one path for all, since some of what is stored names it
    shutil.rmtree(work, ignore_errors=True)
    if before:
        shutil.copytree(state_folder(base, before, verbs), work)
    else:
        work.mkdir(parents=True)
    for step in steps:
        done = verbs.run(Case("", step, before).line(base), work)
        assert done.code in (0, 3), f"{step}: {done.err}"
    folder.parent.mkdir(exist_ok=True)
    work.rename(folder)
    return folder
