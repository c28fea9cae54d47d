"""One fault and its verdict: a verb is disturbed, what stands is looked at, the verb runs again."""

from __future__ import annotations

import json
import random
import shutil
import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults import harness, state
from faults.cases import Case, state_folder
from faults.harness import Blow, Ended, Limits, Verbs, aside

KINDS = ("kill", "term", "int", "disk", "permission")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
MACHINE = {"python", "processor", "memory", "disk", "serve"}  # checks of doctor that are none of ours


@dataclass
class Reference:
    """The undisturbed way of a verb: how long it takes, what it changes, what stands at the end."""

    seconds: float
    changes: int
    megabytes: float  # by which the folder grows
    state: dict[str, str]
    unstable: list[str]  # names that two undisturbed ways do not have in common


@dataclass
class Verdict:
    """What became of one fault."""

    verb: str
    kind: str
    number: int
    moment: str
    blows: int = 0  # faults that fell on the verb at work; 0: it ended before
    code: int = 0
    message: str = ""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The verdict as a line of the results."""
        return asdict(self)


@dataclass(frozen=True)
class Court:
    """Where faults are tried: inputs, states and the one workspace, all below `base`."""

    base: Path
    verbs: Verbs

    @property
    def work(self) -> Path:
        """The workspace that is disturbed; always the same path, since some of what is stored names it."""
        return self.base / "work"

    def prepare(self, case: Case) -> None:
        """The workspace as it is before the verb."""
        before = state_folder(self.base, case.before, self.verbs)
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(before, self.work)

    def reference(self, case: Case) -> Reference:
        """The undisturbed way, gone twice to see what never is the same; kept for later calls."""
        path = self.base / "references" / f"{case.name.replace(' ', '_')}.json"
        if path.is_file():
            return Reference(**json.loads(path.read_text()))
        states, sizes = [], []
        for _ in range(2):
            self.prepare(case)
            before = _size(self.work)
            done = self.verbs.run(case.line(self.base), self.work, watch=self.work)
            if done.code not in case.codes:
                raise RuntimeError(f"{case.name} undisturbed ends with {done.code}: {done.err}")
            states.append(aside(state.state_of, self.work))
            sizes.append(_size(self.work) - before)
        unstable = sorted({*state.differences(*states), *case.timed})
        found = Reference(done.seconds, done.changes, max(sizes), states[0], unstable)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(found)))
        return found

    def try_fault(self, case: Case, kind: str, number: int, seed: int) -> Verdict:
        """The fault of that number under that seed, and its verdict."""
        reference = self.reference(case)
        rng = random.Random(f"{seed}/{case.name}/{kind}/{number}")
        verdict = Verdict(case.name, kind, number, "")
        self.prepare(case)
        with ExitStack() as stack:
            if kind in SIGNALS:
                for _ in range(case.chain if kind == "kill" else 1):
                    self._strike(case, kind, rng, reference, verdict)
            elif kind == "disk":
                self._fill_disk(case, rng, reference, verdict, stack)
            else:
                self._forbid(case, rng, verdict)
            verdict.problems += self._look(case, reference)
            self._again(case, reference, verdict)
        return verdict

    def _strike(
        self, case: Case, kind: str, rng: random.Random, reference: Reference, verdict: Verdict
    ) -> None:
        blow = moment(rng, SIGNALS[kind], reference)
        done = self.verbs.run(case.line(self.base), self.work, blow=blow, watch=self.work)
        verdict.moment = f"change {blow.change}" if blow.change is not None else f"{blow.seconds:.2f} s"
        verdict.code, verdict.message = done.code, done.message
        if kind == "kill":
            verdict.blows += done.code == -signal.SIGKILL
        elif done.struck:
            verdict.blows += 1
            # A signal that comes when all is done finds nothing to interrupt.
            if done.code != 130 and done.code not in case.codes:
                verdict.problems.append(f"ended with {done.code}: {done.err[-500:]}")
            elif done.code == 130 and "Interrupted" not in done.err:
                verdict.problems.append(f"130 without a word: {done.err[-500:]}")
        verdict.problems += _words(done)

    def _fill_disk(
        self, case: Case, rng: random.Random, reference: Reference, verdict: Verdict, stack: ExitStack
    ) -> None:
        held = self.base / "held"
        shutil.rmtree(held, ignore_errors=True)
        self.work.rename(held)
        stack.callback(shutil.rmtree, held, ignore_errors=True)
        stack.enter_context(harness.small_disk(self.work, 2048))
        shutil.copytree(held, self.work, dirs_exist_ok=True)
        room = rng.uniform(0.01, 1.0) * max(reference.megabytes, 0.1)
        harness.enlarge_disk(self.work, harness.used_megabytes(self.work) + room)
        done = self.verbs.run(case.line(self.base), self.work)
        verdict.moment = f"{room:.2f} MB free"
        self._refused(case, done, verdict)
        harness.enlarge_disk(self.work, 2048)

    def _forbid(self, case: Case, rng: random.Random, verdict: Verdict) -> None:
        folders = [path for path in self.work.glob("*/") if path.name != "made"]
        targets = [self.work, *folders, *(self.work / "models").glob("*/"), self.work / "warehouse.duckdb"]
        target = rng.choice(sorted(path for path in targets if path.exists()))
        with harness.read_only(target):
            done = self.verbs.run(case.line(self.base), self.work, limits=Limits(powerless=True))
        verdict.moment = f"{target.relative_to(self.work).as_posix()} read-only"
        self._refused(case, done, verdict)

    def _refused(self, case: Case, done: Ended, verdict: Verdict) -> None:
        verdict.code, verdict.message = done.code, done.message
        verdict.blows = int(done.code not in case.codes)
        if done.code not in (1, *case.codes):
            verdict.problems.append(f"ended with {done.code}: {done.err[-500:]}")
        verdict.problems += _words(done)

    def _look(self, case: Case, reference: Reference) -> list[str]:
        """What is wrong with the workspace as the fault left it."""
        problems = []
        if (self.work / "adstool.toml").is_file():
            done = self.verbs.run(["--json", "status"], self.work)
            if done.code != 0:
                problems.append(f"status: {done.message}")
            done = self.verbs.run(["--json", "doctor"], self.work)
            problems += _words(done) + _unfit(done.out)
        before = aside(state.rows_of, state_folder(self.base, case.before, self.verbs))
        now = aside(state.rows_of, self.work)
        derived = ("interest", "query_intents")
        problems += [
            f"{table} had {rows} rows and has {now.get(table, 0)}"
            for table, rows in before.items()
            if now.get(table, 0) < rows and not table.startswith(derived)
        ]
        return problems + state.broken_runs(self.work, reference.state)

    def _again(self, case: Case, reference: Reference, verdict: Verdict) -> None:
        """The same command once more; afterwards all must be as if nothing had happened."""
        done = self.verbs.run(case.line(self.base), self.work)
        if done.code not in case.codes:
            verdict.problems.append(f"again: {done.code} {done.err[-500:]}")
            return
        now = aside(state.state_of, self.work)
        changed = [n for n in state.differences(now, reference.state) if n not in reference.unstable]
        verdict.problems += [f"differs: {name}" for name in changed]
        verdict.problems += [f"left over: {name}" for name in state.leftovers(self.work)]
        verdict.problems += state.broken_runs(self.work, reference.state)


def moment(rng: random.Random, number: signal.Signals, reference: Reference) -> Blow:
    """A moment of the verb: two of three times a change of a file, else a point in time."""
    if reference.changes and rng.random() < 2 / 3:
        return Blow(number, change=rng.randint(1, reference.changes))
    # A signal within the first 0.1 s may come before anything listens to it, and ends the process by itself.
    return Blow(number, seconds=max(rng.uniform(0.02, 1.0) * reference.seconds, 0.1))


def _words(done: Ended) -> list[str]:
    """What is wrong with how a verb spoke of its failure."""
    problems = []
    if "Traceback (most recent call last)" in done.err:
        problems.append(f"traceback: {done.err[-800:]}")
    if done.code == 1 and ("\n  try: " not in done.err or "--debug for the traceback" in done.err):
        problems.append(f"unexplained: {done.err[-500:]}")
    return problems


def _unfit(text: str) -> list[str]:
    """The checks of the workspace that doctor does not like."""
    try:
        checks = json.loads(text)["checks"]
    except (ValueError, KeyError):
        return [f"doctor said {text[:200]!r}"]
    ours = ("workspace", "settings", "lock", "warehouse", "model ")
    return [
        f"doctor: {c['name']}: {c['found']}" for c in checks if not c["ok"] and c["name"].startswith(ours)
    ]


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
