"""How time and memory of every verb grow with the log: worlds of ten times the size through the whole funnel.

Each verb is a process of its own, so that what it takes is what a user's command takes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from adstool.bench.figure import Figure
from adstool.bench.process import spend
from adstool.evaluation.growth import Measured, exponent, pairs
from adstool.progress import log
from adstool.workspace import read_json, write_json

SIZES = (10_000, 100_000, 1_000_000)  # events, about
EVENTS_A_USER = 93.0  # of the sample world's rates over its 14 days
ITEMS_A_USER = 0.4  # ads, and as many pins: 5 users to 2 ads to 2 pins, as in the sample world
REQUESTS_A_USER = 0.2  # of the stream that is ranked
EPOCHS = "3"  # of every model, so that what grows is the data and not the patience


@dataclass(frozen=True)
class World:
    """A size: its folders, and how much is in it."""

    folder: Path
    events: int

    @property
    def users(self) -> int:
        """People on the site."""
        return max(10, round(self.events / EVENTS_A_USER))

    @property
    def items(self) -> int:
        """Ads; pins are as many."""
        return max(20, round(self.users * ITEMS_A_USER))

    @property
    def files(self) -> Path:
        """The files that `sample` writes."""
        return self.folder / "world"

    @property
    def requests(self) -> Path:
        """The stream of requests."""
        return self.folder / "requests.jsonl"


@dataclass(frozen=True)
class Step:
    """A verb of the funnel: its words, and what it works through."""

    verb: str
    words: Callable[[World], Sequence[str | Path]]
    works_on: str = "events"  # events | items | requests


def _train(model: str) -> Step:
    return Step(f"train {model}", lambda _: ("train", model, "--epochs", EPOCHS))


def _sample(world: World) -> Sequence[str | Path]:
    return ("sample", world.files, "--users", str(world.users), "--ads", str(world.items),
            "--pins", str(world.items))  # fmt: skip


STEPS: tuple[Step, ...] = (
    Step("sample", _sample),
    Step("ingest", lambda world: ("ingest", world.files)),
    Step("embed", lambda _: ("embed", "all"), "items"),
    Step("train semantic", lambda _: ("train", "semantic"), "items"),
    Step("interests", lambda _: ("interests", "--refresh")),
    _train("retrieval"),
    _train("lightweight"),
    _train("engagement"),
    _train("conversion"),
    Step("calibrate", lambda _: ("calibrate", "engagement")),
    Step("quantize", lambda _: ("quantize", "engagement")),
    Step("index", lambda _: ("index",), "items"),
    Step("rank", lambda world: ("rank", "--requests", world.requests), "requests"),
    Step("evaluate", lambda _: ("evaluate",)),
    Step("simulate", lambda _: ("simulate",)),
    Step("report", lambda _: ("report",)),
)


def measure_size(world: World, steps: Sequence[Step] = STEPS) -> Iterator[Measured]:
    """Every step, one after the other, on a new workspace in the world's folder.

    Raises AdstoolError when a verb fails.
    """
    shop = world.folder / "shop"
    spend(("init", shop))
    asked = max(1, round(world.users * REQUESTS_A_USER))
    lines = (json.dumps({"user_id": f"u{number}"}) + "\n" for number in range(1, asked + 1))
    world.requests.write_text("".join(lines), encoding="utf-8")
    events = world.events
    for step in steps:
        spent = spend(("--workspace", shop, "--json", "--quiet", *step.words(world)))
        if step.verb == "sample":
            events = json.loads(spent.stdout)["tables"]["events"]
        rows = {"events": events, "items": 2 * world.items, "requests": asked}[step.works_on]
        log.info("%s of %s events: %.1f s", step.verb, f"{events:,}", spent.seconds)
        yield Measured(step.verb, events, rows, spent.seconds, spent.cpu_seconds, spent.peak_mb)


def measure_growth(
    folder: Path, kept: Path | None, sizes: Sequence[int] = SIZES, steps: Sequence[Step] = STEPS
) -> list[Measured]:
    """All steps at all sizes, in `folder`; a size that is done is taken away again.

    `kept` is a file in which finished sizes wait for a measurement that was cut off to go on, as long as
    the code is the same; it goes when all are done.
    """
    code = _code()
    before = read_json(kept) if kept is not None and kept.is_file() else {}
    done: dict[str, list[dict[str, Any]]] = before["sizes"] if before.get("code") == code else {}
    for size in sizes:
        if str(size) in done:
            log.info("%s events were measured before.", f"{size:,}")
            continue
        world = World(folder / str(size), size)
        world.folder.mkdir(parents=True)
        done[str(size)] = [asdict(one) for one in measure_size(world, steps)]
        shutil.rmtree(world.folder)
        if kept is not None:
            write_json(kept, {"code": code, "sizes": done})
    if kept is not None:
        kept.unlink(missing_ok=True)
    return [Measured(**one) for size in sizes for one in done[str(size)]]


def figures(measured: Sequence[Measured]) -> list[Figure]:
    """A figure a measurement; its floor is what linear growth from the size before would give."""
    found = []
    for before, one in pairs(measured):
        linear = before.seconds * one.events / before.events if before else one.seconds
        beside = {
            "cpu_seconds": one.cpu_seconds,
            "peak_mb": one.peak_mb,
            "rows_per_second": one.rows / one.seconds,
            "exponent": exponent(before, one, "cpu_seconds") if before else None,
            "memory_exponent": exponent(before, one, "peak_mb") if before else None,
        }
        name = f"growth_{one.verb.replace(' ', '_')}_{one.events}"
        floor_is = f"linear from {before.events:,} events" if before else "itself, the smallest size"
        found.append(Figure(name, "s", one.seconds, linear, floor_is, beside))
    return found


def _code() -> str:
    """What the package is made of, so that figures of other code are not taken for its own."""
    digest = hashlib.sha256()
    with_queries = [Path(str(files(name))) for name in ("adstool", "adstool.commands", "adstool.sql")]
    for folder in with_queries:
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.sql")]):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
