"""Which stages are stale and why, and running them in order."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.errors import AdstoolError, WorkspaceLocked
from adstool.progress import log
from adstool.stages import BY_NAME, STAGES, Job, Stage
from adstool.warehouse import load_sql, open_warehouse
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Verdict:
    """Whether a stage's result still stands, and why not."""

    stage: Stage
    stale: bool
    reason: str


def _identity(parts: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _inputs(job: Job, stage: Stage, recorded: dict[str, dict[str, str]]) -> dict[str, str]:
    """Everything the stage's result depends on, by name."""
    parts: dict[str, str] = {}
    if stage.tables:
        # Read to the end: a result cut off by fetchone keeps the connection busy for the stage's own work.
        rows = job.connection.execute(load_sql("pipeline_inputs"), {"tables": list(stage.tables)}).fetchall()
        parts["the data"] = str(rows[0][0]) if rows else ""
    for section in stage.sections:
        parts[f"[{section}]"] = job.settings.fingerprint(section)
    for need in stage.needs:
        parts[f"the result of {BY_NAME[need].verb}"] = _identity(recorded.get(need, {}))
    if "semantic" in stage.needs:
        ids = job.workspace.current_run("semantic")
        parts["the semantic ids"] = ids.name if ids else ""
    if stage.name == "index" and (users := job.workspace.current_run("users")) is not None:
        parts["the users' vectors"] = users.name
    if "features" in stage.sections and job.settings.features.knowledge:
        rows = job.connection.execute(load_sql("pipeline_knowledge")).fetchall()
        parts["what enrich found"] = str(rows[0][0])
    if stage.artefact is not None:
        run = job.workspace.current_run(stage.artefact)
        if stage.name in ("calibrate", "quantize"):
            parts["the model"] = run.name if run else ""
    return parts


def _recorded(job: Job) -> dict[str, dict[str, str]]:
    rows = job.connection.execute(load_sql("pipeline_latest_run")).fetchall()
    return {stage: json.loads(fingerprint) for stage, _, fingerprint, _ in rows}


def _require_data(job: Job) -> None:
    what = lacking(job.connection)
    if what:
        raise AdstoolError(
            f"The warehouse of {job.workspace.root} holds no {what}.",
            "Load some: adstool ingest FILES (or adstool sample world && adstool ingest world).",
        )


def lacking(con: duckdb.DuckDBPyConnection) -> str:
    """What the stages cannot do without and the warehouse does not hold; empty where they have all."""
    for table, what in (("events", "events"), ("catalog", "ads or pins")):
        ((rows,),) = con.execute(f"select count(*) from {table}").fetchall()
        if rows == 0:
            return what
    return ""


def check_stage(job: Job, stage: Stage) -> Verdict:
    """Whether `stage` must be done, and why."""
    recorded = _recorded(job)
    before = recorded.get(stage.name)
    if before is None:
        return Verdict(stage, True, "never done")
    if stage.artefact is not None and job.workspace.current_run(stage.artefact) is None:
        return Verdict(stage, True, "its model is gone")
    now = _inputs(job, stage, recorded)
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed:
        return Verdict(stage, True, f"{' and '.join(changed)} changed")
    return Verdict(stage, False, "up to date")


def stale_stages(job: Job) -> list[Verdict]:
    """The stages that must be done, judged one by one; a stage after a stale one is stale with it."""
    verdicts: list[Verdict] = []
    stale: set[str] = set()
    for stage in STAGES:
        verdict = check_stage(job, stage)
        waiting = [BY_NAME[need].verb for need in stage.needs if need in stale]
        if not verdict.stale and waiting:
            verdict = Verdict(stage, True, f"{' and '.join(waiting)} must be done before")
        if verdict.stale:
            stale.add(stage.name)
            verdicts.append(verdict)
    return verdicts


def record(ws: Workspace, settings: Settings, name: str, result: dict[str, Any], started: datetime) -> None:
    """Note that stage `name` was done with the inputs as they are now, so that `run` knows; does nothing for
    other verbs.

    Opens the warehouse for writing for a moment, which the stage itself mostly only reads; where somebody
    reads on for longer than a writer waits, the result stands and `run` does the stage again.
    """
    stage = BY_NAME.get(name)
    if stage is None:
        return
    run = ws.current_run(stage.artefact) if stage.artefact else None
    try:
        with open_warehouse(ws, settings) as con:
            job = Job(ws, settings, con)
            parts = _inputs(job, stage, _recorded(job))
            con.execute(
                "insert into runs values ($stage, $run, $parts, $metrics, $started, $finished)",
                {
                    "stage": name,
                    "run": run.name if run else None,
                    "parts": json.dumps(parts, sort_keys=True),
                    "metrics": json.dumps(result, default=str),
                    "started": started.replace(tzinfo=None),
                    "finished": datetime.now(UTC).replace(tzinfo=None),
                },
            )
    except WorkspaceLocked as locked:
        log.warning("%s is done, but not noted as done: %s `run` does it again.", stage.verb, locked.message)


@dataclass(frozen=True)
class Done:
    """One stage of a pipeline run: `state` is done, fresh or (in a dry run) stale."""

    name: str
    verb: str
    state: str
    reason: str
    seconds: float
    result: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The stage as `run --json` lists it."""
        return {**self.__dict__}


def plan_stages(job: Job, stages: tuple[Stage, ...], *, force: bool = False) -> Iterator[Done]:
    """What `run_stages` would do, were it called now; raises as it does."""
    _require_data(job)
    reasons = {verdict.stage.name: verdict.reason for verdict in stale_stages(job)}
    for stage in stages:
        stale = force or stage.name in reasons
        reason = "asked for" if force else reasons.get(stage.name, check_stage(job, stage).reason)
        yield Done(stage.name, stage.verb, "stale" if stale else "fresh", reason, 0.0, {})


def run_stages(
    ws: Workspace, settings: Settings, stages: tuple[Stage, ...], *, force: bool = False
) -> Iterator[Done]:
    """Do the stale ones of `stages` in order (all of them with `force`), yielding each as it ends.

    The caller holds the workspace's lock. The warehouse is opened by each stage, for writing only where it
    writes, so that others can read beside a stage that takes long. Raises AdstoolError when there is nothing
    to work on.
    """
    with open_warehouse(ws, settings, read_only=True) as con:
        _require_data(Job(ws, settings, con))
    for stage in stages:
        started, clock = datetime.now(UTC), time.perf_counter()
        with open_warehouse(ws, settings, read_only=not stage.writes) as con:
            job = Job(ws, settings, con)
            verdict = check_stage(job, stage)
            if not verdict.stale and not force:
                yield Done(stage.name, stage.verb, "fresh", verdict.reason, 0.0, {})
                continue
            reason = "asked for" if force else verdict.reason
            log.info("%s: %s", stage.verb, reason)
            result = stage.work(job)
        record(ws, settings, stage.name, result, started)
        yield Done(stage.name, stage.verb, "done", reason, round(time.perf_counter() - clock, 2), result)
