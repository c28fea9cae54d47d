"""Thousands of bad inputs to everything that adstool reads, seeded, each held to the promises.

    python tests/bench/fuzz.py --cases 5000 --seed 8 [--only KIND] [--json FILE]
    python tests/bench/fuzz.py --bombs 2000

Every case runs in this machine's worker process, which is started anew should a case end it. A case that
breaks a promise is printed with the numbers that make it again: --only KIND --first N --cases 1. The end is a
table of counts by kind and, with --json, the same as JSON. Exits 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.bombs import bombs, picture_bomb, plain
from fuzz.harness import Violation, make_template, place_for, rng_of
from fuzz.kinds import KINDS

SLOW = 20.0  # CPU seconds of a case beyond which it counts as one without end
HANGING = 120.0  # after which its process is ended
CHUNK = 25  # cases handed to the worker at once
ADDRESS_SPACE = 12 << 30  # bytes a worker may have: what wants more has lost its bounds


def main() -> int:
    """Run the cases asked for and print what became of them."""
    options = parse()
    base = Path(tempfile.mkdtemp(prefix="fuzz-", dir=options.folder))
    names = [name for name in KINDS if not options.only or options.only == name]
    if not names:
        sys.exit(f"There is no kind {options.only!r}. Kinds: {', '.join(KINDS)}")
    wanted = not options.bombs and any(KINDS[name].shop for name in names)
    shop = make_shop(base) if wanted else None
    template = make_template(base / "template")
    total = sum(KINDS[name].weight for name in names)
    counts: dict[str, dict[str, Any]] = {}
    started = time.monotonic()
    try:
        if options.bombs:
            return burst(template.parent, options.bombs)
        for name in names:
            cases = max(round(options.cases * KINDS[name].weight / total), 1)
            plan = (base, template, shop, name, options.seed)
            counts[name] = run_kind(plan, options.first, cases)
            show(name, counts[name])
    finally:
        shutil.rmtree(base, ignore_errors=True)
    summary = {
        "seed": options.seed,
        "cases": sum(one["cases"] for one in counts.values()),
        "broken": sum(one["broken"] for one in counts.values()),
        "seconds": round(time.monotonic() - started, 1),
        "kinds": counts,
    }
    print(f"{summary['cases']:,} cases, {summary['broken']} broke a promise, {summary['seconds']} s")
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 1 if summary["broken"] else 0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="of all kinds, by their weights")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--only", default="", help=f"one of: {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, default=None, help="a file for the counts")
    parser.add_argument("--bombs", type=int, default=0, metavar="MIB", help="files that unpack to so much")
    parser.add_argument("--folder", type=Path, default=None, help="where temporary files go")
    return parser.parse_args()


def burst(base: Path, mebibytes: int) -> int:
    """Peak memory and time of files that unpack to so many MiB, beside those of a plain file."""
    (base / "bombs").mkdir()
    workspace, folder = base / "ws", base / "bombs"
    worst = 0
    for one in (
        plain(workspace, folder),
        *bombs(workspace, folder, mebibytes << 20),
        picture_bomb(workspace, folder),
    ):
        print(
            f"{one.name:<32}{one.packed:>11,} B ->{one.unpacked >> 20:>6} MiB   exit {one.code}"
            f" {one.peak_mib:>5} MiB peak {one.seconds:>6} s",
            flush=True,
        )
        worst |= one.code not in (0, 1) or "Traceback" in one.said or "--debug" in one.said
    return int(worst)


def make_shop(base: Path) -> Path:
    """A small workspace with models and an index."""
    from shop import make_shop as make

    (base / "shops").mkdir()
    return Path(make(base / "shops").root)


def run_kind(plan: tuple[Any, ...], first: int, cases: int) -> dict[str, Any]:
    """Counts of one kind: cases, broken, outcomes by what they were, the slowest, the peak of memory."""
    found: dict[str, Any] = {
        "cases": cases,
        "broken": 0,
        "outcomes": Counter(),
        "slowest": 0.0,
        "peak_mib": 0,
    }
    numbers = list(range(first, first + cases))
    while numbers:
        # A worker of its own for some cases: what one left behind does not change all others.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=limit_memory) as pool:
            while numbers:
                part = numbers[: 1 if found.get("careful") else CHUNK]
                try:
                    results = pool.submit(run_cases, plan, part).result(timeout=HANGING * len(part))
                except (BrokenProcessPool, TimeoutError) as error:
                    for process in list((pool._processes or {}).values()):
                        process.kill()
                    if len(part) == 1:
                        broke(found, plan[3], part[0], f"its process ended or hung: {type(error).__name__}")
                        numbers = numbers[1:]
                    found["careful"] = True
                    break
                numbers = numbers[len(part) :]
                for number, outcome, problem, seconds, peak in results:
                    found["slowest"] = max(found["slowest"], round(seconds, 2))
                    found["peak_mib"] = max(found["peak_mib"], peak)
                    if problem:
                        broke(found, plan[3], number, problem)
                    else:
                        found["outcomes"][outcome] += 1
    found.pop("careful", None)
    found["outcomes"] = dict(found["outcomes"].most_common())
    return found


def broke(found: dict[str, Any], name: str, number: int, problem: str) -> None:
    """Count and print a broken promise."""
    found["broken"] += 1
    print(f"BROKEN {name} {number}: {problem[:1500]}", flush=True)


def limit_memory() -> None:
    """Bound the worker, so that an input without bounds fails here and not the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.environ["OMP_NUM_THREADS"] = "1"


def run_cases(plan: tuple[Any, ...], numbers: list[int]) -> list[tuple[int, str, str, float, int]]:
    """Number, outcome, problem, seconds and peak MiB of the process of each case; in the worker."""
    base, template, shop, name, seed = plan
    kind = KINDS[name]
    results = []
    for number in numbers:
        started = time.process_time()  # of all threads; a machine that is paused makes nothing slow
        outcome = problem = ""
        with place_for(base / "cases", None if kind.bare else template, shop, f"c{number}") as place:
            try:
                outcome = kind.case(rng_of(name, seed, number), place)
            except Violation as found:
                problem = str(found)
            except Exception:
                problem = traceback.format_exc(limit=-6)
        seconds = time.process_time() - started
        if not problem and seconds > SLOW:
            problem = f"took {seconds:.0f} s"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        results.append((number, outcome, problem, seconds, peak))
    return results


def show(name: str, found: dict[str, Any]) -> None:
    """A line of the table."""
    most = "; ".join(f"{what} {count}" for what, count in list(found["outcomes"].items())[:4])
    print(
        f"{name:<18}{found['cases']:>6}{found['broken']:>5} broken {found['slowest']:>7.2f} s slowest"
        f" {found['peak_mib']:>6} MiB   {most}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
