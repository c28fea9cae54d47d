"""Verbs over more data than the memory they may have, by hand:

    python tests/bench/memory_limit.py FOLDER [--limit-mb 1000] [--times 4] [--users 43000] [--by cgroup]

Files of `times` the limit (jsonl, jsonl.gz of as many rows, csv, parquet) are ingested, a world of `users`
(4 million events with 43,000) goes from ingest to report, and a stream of requests is ranked, all in
processes that may hold `limit-mb`: by a control group of their own (Linux, as root, versions 1 and 2), whose
kernel kills what needs more, or by `ulimit -v`, which counts mapped libraries, so that what importing them
takes is added. Settings are the defaults: adstool finds the limit by itself. Prints a row a case; exit 1 if
one failed or counted wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from adstool.warehouse import load_sql

BYTES_A_ROW = 157.5  # of the jsonl that sql/bench_events.sql writes
STREAM = 6_000  # requests
BASE_MB = {"duckdb": 1100, "torch": 6000}  # address space of the imported libraries, for ulimit


@dataclass
class Held:
    """What became of a process: anonymous memory is what cannot be dropped and read again."""

    code: int
    seconds: float
    anonymous_mb: float
    stdout: str
    notes: str
    over_time: list[float]  # anonymous MB, ten times a second


class Group:
    """A control group of version 1 or 2 with a limit of memory."""

    def __init__(self, limit: int) -> None:
        root = Path("/sys/fs/cgroup")
        old = (root / "memory").is_dir()
        self.folder = (root / "memory" if old else root) / f"adstool-{os.getpid()}"
        self.folder.mkdir()
        (self.folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
        self._key = "rss" if old else "anon"

    def join(self) -> None:
        """Put the calling process in."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def anonymous_mb(self) -> float:
        """What its processes hold now."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == self._key) / 1e6

    def remove(self) -> None:
        """Once its processes are gone."""
        self.folder.rmdir()


@contextmanager
def limits(
    limit_mb: int, by: str, base_mb: int
) -> Iterator[tuple[Callable[[], None], Callable[[int], float]]]:
    """What a child does before it begins, and how much a process holds."""
    if by == "cgroup":
        group = Group(limit_mb * 1_000_000)
        try:
            yield group.join, lambda _: group.anonymous_mb()
        finally:
            group.remove()
        return
    most = (limit_mb + base_mb) * 1_000_000
    yield lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)), _anonymous_mb


def _anonymous_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon")), 0.0)


def run(words: list[str], limit_mb: int, by: str, base: str, stdin: Path | None = None) -> Held:
    """`adstool WORDS` under the limit."""
    with limits(limit_mb, by, BASE_MB[base]) as (join, held), open(stdin or os.devnull, "rb") as source:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "adstool", *words],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=join,
            text=True,
        )
        over_time: list[float] = []

        def watch() -> None:
            while process.poll() is None:
                over_time.append(held(process.pid))
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        stdout, notes = process.communicate()
        watcher.join()
        seconds = time.perf_counter() - begun
    return Held(process.returncode, seconds, max(over_time, default=0.0), stdout, notes, over_time)


def files(folder: Path, size: int) -> dict[str, Path]:
    """The same rows in four forms; the jsonl has `size` bytes."""
    made = {kind: folder / f"events.{kind}" for kind in ("jsonl", "jsonl.gz", "csv", "parquet")}
    con = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(folder / "spill")})
    rows = round(size / BYTES_A_ROW)
    con.execute(load_sql("bench_events"), {"rows": rows, "path": str(made["jsonl"])})
    read = f"from read_json('{made['jsonl']}', format = 'newline_delimited')"
    con.execute(f"copy ({read}) to '{made['csv']}' (header)")
    con.execute(f"copy ({read}) to '{made['parquet']}' (compression uncompressed)")
    con.execute(f"copy ({read}) to '{made['jsonl.gz']}' (format json, compression gzip)")
    con.close()
    return made


def ingests(folder: Path, limit_mb: int, times: float, by: str) -> bool:
    """Every form into a new warehouse, and the jsonl once more, of which nothing is new."""
    made = files(folder, int(times * limit_mb * 1e6))
    rows = round(int(times * limit_mb * 1e6) / BYTES_A_ROW)
    good = True
    for kind, path in made.items():
        shop = folder / "ingested"
        shutil.rmtree(shop, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "adstool", "--quiet", "init", str(shop)], check=True)
        words = ["--workspace", str(shop), "--json", "--quiet", "ingest", "--table", "events"]
        held = run([*words, str(path)], limit_mb, by, "duckdb")
        counts = json.loads(held.stdout)["tables"]["events"] if held.code == 0 else {}
        right = counts.get("inserted") == counts.get("read") == rows
        good &= show(f"ingest {kind}, {path.stat().st_size / 1e9:.2f} GB", held, right, f"{rows:,} rows")
        path.unlink()
    shutil.rmtree(folder / "ingested")
    return good


def funnel(folder: Path, users: int, limit_mb: int, by: str) -> bool:
    """A world of many users and few items, from ingest to report, and a stream of requests."""
    shop, world = folder / "shop", folder / "world"
    subprocess.run([sys.executable, "-m", "adstool", "--quiet", "init", str(shop)], check=True)
    sizes = ["--users", str(users), "--ads", "600", "--pins", "600"]
    steps = [["sample", str(world), *sizes], ["ingest", str(world)], ["embed", "all"], ["train", "semantic"]]
    steps += [["interests", "--refresh"]]
    steps += [
        ["train", name, "--epochs", "1"] for name in ("retrieval", "lightweight", "engagement", "conversion")
    ]
    steps += [["calibrate", "engagement"], ["index"], ["evaluate"], ["report"]]
    good = True
    for words in steps:
        held = run(["--workspace", str(shop), "--quiet", *words], limit_mb, by, "torch")
        good &= show(" ".join(words[:2] if words[0] == "train" else words[:1]), held, True, _sizes(shop))
    requests = folder / "requests.jsonl"
    lines = (json.dumps({"user_id": f"u{number % users + 1}"}) + "\n" for number in range(STREAM))
    requests.write_text("".join(lines))
    words = ["--workspace", str(shop), "--quiet", "rank", "--requests", "-"]
    held = run(words, limit_mb, by, "torch", requests)
    answers = held.stdout.count("\n")
    third = max(len(held.over_time) // 3, 1)
    middle, last = (
        max(held.over_time[third : 2 * third], default=0.0),
        max(held.over_time[2 * third :], default=0.0),
    )
    flat = f"{answers:,} slates; second third {middle:.0f} MB, last third {last:.0f} MB"
    return good & show("rank --requests -", held, answers == STREAM, flat)


def _sizes(shop: Path) -> str:
    warehouse = shop / "warehouse.duckdb"
    examples = sum(path.stat().st_size for path in (shop / "cache" / "examples").rglob("*.npy"))
    stored = warehouse.stat().st_size if warehouse.is_file() else 0
    return f"warehouse {stored / 1e6:,.0f} MB, examples {examples / 1e6:,.0f} MB"


def show(case: str, held: Held, right: bool, about: str) -> bool:
    """A row of the table; whether the case is good."""
    good = held.code == 0 and right
    verdict = (
        "ok" if good else f"FAILED ({held.code}): {' '.join(held.notes.strip().splitlines()[-3:])[-300:]}"
    )
    print(f"{case:32} {held.seconds:8.1f} s {held.anonymous_mb:8,.0f} MB  {about}  {verdict}", flush=True)
    return good


def main() -> int:
    """Run all of it in FOLDER, which is emptied afterwards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-mb", type=int, default=1000)
    parser.add_argument("--times", type=float, default=4.1)
    parser.add_argument("--users", type=int, default=43_000)
    parser.add_argument("--by", choices=("cgroup", "ulimit"), default="cgroup")
    parser.add_argument("--only", choices=("ingest", "funnel"))
    asked = parser.parse_args()
    folder = asked.folder / f"memory-limit-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        good = asked.only == "funnel" or ingests(folder, asked.limit_mb, asked.times, asked.by)
        good &= asked.only == "ingest" or funnel(folder, asked.users, asked.limit_mb, asked.by)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
