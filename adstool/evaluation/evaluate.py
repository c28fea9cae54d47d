"""Offline evaluation by stage: interests, retrieval, lightweight, engagement, conversion, funnel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError, choose
from adstool.evaluation.context import Absent, Evaluation, NotReady
from adstool.evaluation.conversion import evaluate_conversion
from adstool.evaluation.engagement import evaluate_engagement
from adstool.evaluation.funnel import evaluate_funnel
from adstool.evaluation.interests import evaluate_interests
from adstool.evaluation.lightweight import evaluate_lightweight
from adstool.evaluation.results import FORMAT, write_results
from adstool.evaluation.retrieval import evaluate_retrieval
from adstool.evaluation.utility import evaluate_utility
from adstool.progress import log, track
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

STAGES: dict[str, Callable[[Evaluation], dict[str, Any]]] = {
    "interests": evaluate_interests,
    "retrieval": evaluate_retrieval,
    "lightweight": evaluate_lightweight,
    "engagement": evaluate_engagement,
    "conversion": evaluate_conversion,
    "funnel": evaluate_funnel,
}
# Only where asked for by name: they look for something to change, not for how good what there is.
ADVICE: dict[str, Callable[[Evaluation], dict[str, Any]]] = {"utility": evaluate_utility}


def select(stages: Sequence[str]) -> list[str]:
    """The stages asked for, "all" being every one; raises UsageError for an unknown name."""
    for name in stages:
        if name != "all" and name not in STAGES and name not in ADVICE:
            known = (*STAGES, "all", *ADVICE, "ope")
            raise UsageError(f"There is no stage '{name}' to evaluate.", choose(name, known))
    if not stages or "all" in stages:
        return list(STAGES)
    return [name for name in (*STAGES, *ADVICE) if name in stages]


def evaluate(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, stages: Sequence[str]
) -> dict[str, Any]:
    """The metrics of the stages asked for, a key a stage; also kept in reports/evaluation.json.

    With "all", a stage whose models are missing or were trained on other data is left out and named under
    `skipped`, and one of which the log has nothing is left out; asked for by name, it raises AdstoolError
    with the verb that makes what is missing.
    """
    chosen = select(stages)
    optional = not stages or "all" in stages
    evaluation = Evaluation(ws, settings, con)
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name in track(chosen, "evaluate"):
        try:
            found[name] = {"made_at": _now(), **(STAGES | ADVICE)[name](evaluation)}
        except NotReady as missing:
            if not optional:
                raise
            reason = f"{missing.message} {missing.hint}"
            if not isinstance(missing, Absent):
                skipped[name] = reason
            log.info("evaluate %s: left out. %s", name, reason)
    if not found:
        raise AdstoolError(
            f"There is nothing to evaluate in {ws.root}: {' '.join(dict.fromkeys(skipped.values()))}",
            "Do every stale stage: adstool run",
        )
    results = {
        **found,
        "synthetic": evaluation.truth_folder is not None,
        "skipped": skipped,
        "about": {
            "format": FORMAT,
            "made_at": _now(),
            "bootstrap": settings.evaluation.bootstrap,
            "seed": evaluation.seed,
        },
    }
    write_results(ws, results, chosen)
    return results


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
