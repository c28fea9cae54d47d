"""The stages from a filled warehouse to a report: what each reads, what it leaves and how it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.errors import GateNotPassed, UsageError, choose
from adstool.progress import log
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
    writes: bool = False  # into the warehouse; the others only read it, and let others read meanwhile


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
        writes=True,
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


def select_stages(start: str | None, only: str | None) -> tuple[Stage, ...]:
    """The stages from `start` on, or `only` one; raises UsageError for a name that is no stage."""
    for name in (start, only):
        if name is not None and name not in BY_NAME:
            raise UsageError(f"There is no stage '{name}'.", choose(name, BY_NAME))
    if only is not None:
        return (BY_NAME[only],)
    names = [stage.name for stage in STAGES]
    return STAGES[names.index(start) :] if start is not None else STAGES
