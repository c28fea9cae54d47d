"""The stages from a filled warehouse to a report: which are stale, why, and running them in order."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.errors import GateNotPassed, UsageError, choose
from adstool.progress import log
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

CATALOGUE = ("users", "pins", "advertisers", "campaigns", "ads")
EVERYTHING = (*CATALOGUE, "events", "conversions")


@dataclass(frozen=True)
class Job:
    """What a stage works on."""

    workspace: Workspace
    settings: Settings
    connection: duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Stage:
    """One step: what it reads (tables, settings, earlier stages), what it leaves and how it is done."""

    name: str
    verb: str
    tables: tuple[str, ...]
    sections: tuple[str, ...]
    needs: tuple[str, ...]
    artefact: str | None  # the model run that must be there
    work: Callable[[Job], dict[str, Any]]


def _embed(job: Job) -> dict[str, Any]:
    from adstool.content.embedding import embed_items

    done = embed_items(job.workspace, job.settings, job.connection, images=None)
    if done.complaint:
        # Items without a usable picture have their words, so that the rest of the pipeline stands.
        log.warning(done.complaint)
    return done.to_json()


def _interests(job: Job) -> dict[str, Any]:
    from adstool.content.interests import load_catalogue, refresh

    catalogue = load_catalogue(job.workspace, job.settings, job.connection)
    return refresh(job.connection, job.settings, catalogue).to_json()


def _semantic(job: Job) -> dict[str, Any]:
    from adstool.content.semantic_ids import refresh_semantic
    from adstool.errors import DataError

    try:
        return refresh_semantic(job.workspace, job.settings, job.connection).to_json()
    except DataError as lacking:
        # Without vectors items have no semantic ids, and everything else works without them.
        log.info("%s", lacking.message)
        return {"model": "semantic", "items": 0}


def _train(name: str) -> Callable[[Job], dict[str, Any]]:
    def work(job: Job) -> dict[str, Any]:
        from adstool.serving.export import export_run
        from adstool.training.train import TrainOptions, train_model

        options = TrainOptions()
        return train_model(
            job.workspace, job.settings, job.connection, name, options, export=export_run
        ).to_json()

    return work


def _conversion(job: Job) -> dict[str, Any]:
    from adstool.errors import DataError

    try:
        return _train("conversion")(job)
    except DataError as lacking:
        # A log without conversions, or too short for them, has a funnel all the same.
        log.info("%s", lacking.message)
        return {"model": "conversion", "skipped": lacking.message}


def _calibrate(job: Job) -> dict[str, Any]:
    from adstool.training.calibration import calibrate_run

    run = job.workspace.require_run("engagement", "train engagement")
    return calibrate_run(run)


def _quantize(job: Job) -> dict[str, Any]:
    from adstool.serving.quantization import quantize_run

    try:
        return quantize_run(job.workspace, job.settings, job.connection, "engagement")
    except GateNotPassed as refused:
        # The full-precision model serves on, so the rest of the pipeline stands.
        log.warning(refused.message)
        return refused.result


def _index(job: Job) -> dict[str, Any]:
    from adstool.funnel.index import build_index

    with job.workspace.new_run("index") as run:
        return build_index(job.workspace, job.settings, job.connection, run)


def _evaluate(job: Job) -> dict[str, Any]:
    from adstool.evaluation.evaluate import evaluate

    return evaluate(job.workspace, job.settings, job.connection, ["all"])


def _report(job: Job) -> dict[str, Any]:
    from adstool.evaluation.report import write_report

    return {"path": str(write_report(job.workspace, job.settings, job.connection, None))}


_MODELS = ("actions", "features", "training")
_VECTORS = ("embed", "semantic")
STAGES: tuple[Stage, ...] = (
    Stage("embed", "embed", ("pins", "ads", "campaigns"), ("content",), (), None, _embed),
    Stage("semantic", "train semantic", ("pins", "ads"), ("semantic_ids",), ("embed",), None, _semantic),
    Stage(
        "interests",
        "interests --refresh",
        EVERYTHING,
        ("interests", "actions"),
        _VECTORS,
        None,
        _interests,
    ),
    Stage(
        "retrieval",
        "train retrieval",
        EVERYTHING,
        (*_MODELS, "conversion"),
        _VECTORS,
        "retrieval",
        _train("retrieval"),
    ),
    Stage(
        "lightweight",
        "train lightweight",
        EVERYTHING,
        _MODELS,
        _VECTORS,
        "lightweight",
        _train("lightweight"),
    ),
    Stage(
        "engagement", "train engagement", EVERYTHING, _MODELS, _VECTORS, "engagement", _train("engagement")
    ),
    Stage(
        "conversion",
        "train conversion",
        EVERYTHING,
        (*_MODELS, "conversion"),
        _VECTORS,
        None,
        _conversion,
    ),
    Stage("calibrate", "calibrate engagement", (), (), ("engagement",), "engagement", _calibrate),
    Stage("quantize", "quantize engagement", (), ("quantization",), ("calibrate",), "engagement", _quantize),
    Stage(
        "index",
        "index",
        EVERYTHING,
        ("features", "actions", "interests"),
        ("interests", "retrieval", "lightweight", *_VECTORS),
        "index",
        _index,
    ),
    Stage(
        "evaluate",
        "evaluate",
        (),
        ("evaluation", "funnel", "auction", "actions"),
        ("index", "quantize", "conversion"),
        None,
        _evaluate,
    ),
    Stage("report", "report", (), (), ("evaluate",), None, _report),
)
BY_NAME = {stage.name: stage for stage in STAGES}


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


def record(job: Job, name: str, result: dict[str, Any], started: datetime) -> None:
    """Note that stage `name` was done with the inputs as they are now; does nothing for other verbs."""
    stage = BY_NAME.get(name)
    if stage is None:
        return
    parts = _inputs(job, stage, _recorded(job))
    run = job.workspace.current_run(stage.artefact) if stage.artefact else None
    job.connection.execute(
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


def select_stages(start: str | None, only: str | None) -> tuple[Stage, ...]:
    """The stages from `start` on, or `only` one; raises UsageError for a name that is no stage."""
    for name in (start, only):
        if name is not None and name not in BY_NAME:
            raise UsageError(f"There is no stage '{name}'.", choose(name, BY_NAME))
    if only is not None:
        return (BY_NAME[only],)
    names = [stage.name for stage in STAGES]
    return STAGES[names.index(start) :] if start is not None else STAGES


def run_stages(
    job: Job, stages: tuple[Stage, ...], *, force: bool = False, dry_run: bool = False
) -> Iterator[Done]:
    """Do the stale ones of `stages` in order (all of them with `force`), yielding each as it ends."""
    planned = {verdict.stage.name: verdict.reason for verdict in stale_stages(job)} if dry_run else {}
    for stage in stages:
        verdict = check_stage(job, stage)
        reason = planned.get(stage.name, verdict.reason) if not force else "asked for"
        if dry_run:
            stale = force or stage.name in planned
            yield Done(stage.name, stage.verb, "stale" if stale else "fresh", reason, 0.0, {})
            continue
        if not verdict.stale and not force:
            yield Done(stage.name, stage.verb, "fresh", reason, 0.0, {})
            continue
        log.info("%s: %s", stage.verb, reason)
        started, clock = datetime.now(UTC), time.perf_counter()
        result = stage.work(job)
        record(job, stage.name, result, started)
        yield Done(stage.name, stage.verb, "done", reason, round(time.perf_counter() - clock, 2), result)
