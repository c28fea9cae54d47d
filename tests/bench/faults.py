"""Faults in every writing verb: killed, signalled, out of disk, without permission; then called again.

    python tests/bench/faults.py [--kills 240] [--others 2] [--seed 0] [--only VERB] [--base DIR]

The end state after the second call is compared with an undisturbed one. --others is how many faults of each
other kind fall on each verb. Results are kept a line each in DIR/results.jsonl, and the same call goes on
where it was cut off; a kill takes about 5 s of one core, all of it about half an hour. As root on Linux:
a small disk is a tmpfs, and root gives up the right to pass over permissions.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this file has the name of the package
os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch: the same sums every time, and forks are safe

from faults.cases import BY_NAME, CASES, SETTINGS, Case, make_inputs  # noqa: E402
from faults.harness import Verbs  # noqa: E402
from faults.judge import KINDS, Court  # noqa: E402


def plan(kills: int, others: int, only: str | None, kinds: list[str]) -> list[tuple[Case, str, int]]:
    """The faults in order: the first of every verb, then the second of every verb, and so on."""
    cases = [BY_NAME[only]] if only else [case for case in CASES if case.name != "demo"]
    rounds = -(-kills // sum(case.chain for case in cases))
    found = [
        (case, kind, number) for number in range(others) for kind in kinds if kind != "kill" for case in cases
    ]
    found += [(case, "kill", number) for number in range(rounds) for case in cases if "kill" in kinds]
    found.sort(key=lambda fault: fault[2])
    if only is None and "kill" in kinds:
        found.append((BY_NAME["demo"], "kill", 0))  # the longest, once
    return found


def table(results: list[dict]) -> str:
    """Verb x kind: faults that fell / that left nothing behind."""
    cells: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for row in results:
        for name in (row["verb"], "all"):
            cell = cells[name, row["kind"]]
            cell[0] += row["blows"]
            cell[1] += row["blows"] if not row["problems"] else 0
            cell[2] += not row["blows"]
    lines = [f"{'survived of fallen':<20}" + "".join(f"{kind:>14}" for kind in KINDS)]
    for name in [case.name for case in CASES] + ["all"]:
        shown = [cells[name, kind] for kind in KINDS]
        if any(sum(cell) for cell in shown):
            lines.append(f"{name:<20}" + "".join(f"{f'{good} of {fell}':>14}" for fell, good, _ in shown))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--others", type=int, default=2, help="faults of each other kind a verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(BY_NAME), metavar="VERB", help=", ".join(BY_NAME))
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--base", type=Path, default=Path("/tmp/adstool-faults"))
    given = parser.parse_args()
    base = given.base.resolve()
    verbs = Verbs(base / "printed", environment=SETTINGS)
    verbs.preload()
    make_inputs(base, verbs)
    court, path = Court(base, verbs), base / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["verb"], row["kind"], row["number"], row["seed"]) for row in results}
    for case, kind, number in plan(given.kills, given.others, given.only, given.kinds.split(",")):
        if (case.name, kind, number, given.seed) in known:
            continue
        row = {"seed": given.seed, **court.try_fault(case, kind, number, given.seed).to_json()}
        results.append(row)
        with open(path, "a") as handle:
            handle.write(json.dumps(row) + "\n")
        for problem in row["problems"]:
            print(f"{case.name}, {kind} {number} ({row['moment']}): {problem}", flush=True)
    counts = collections.Counter(dict.fromkeys(KINDS, 0))
    for row in results:
        counts[row["kind"]] += row["blows"]
    failed = [row for row in results if row["problems"]]
    print(table(results))
    print(json.dumps({"faults": dict(counts), "with_problems": len(failed), "cases": len(results)}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
