"""adstool run: every stale stage in order, each with the reason why it is stale."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, option
from adstool.commands._output import emit, next_verb, say
from adstool.config import Settings
from adstool.workspace import Workspace

if TYPE_CHECKING:
    from adstool.pipeline import Done


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        run,
        "adstool run --dry-run",
        "adstool run --only report",
    )


def run(
    context: typer.Context,
    start: Annotated[
        str | None,
        option(
            Group.RUNNING,
            "This stage and all after it, stale or not.",
            "--from",
            metavar="STAGE",
            default="every stale stage",
        ),
    ] = None,
    only: Annotated[str | None, _options.only("stage", "STAGE", "every stale stage")] = None,
    dry_run: _options.DryRun = False,
) -> None:
    """Do every stale stage in order, each with the reason.

    Stages: embed, semantic, interests, retrieval, lightweight, engagement, calibrate, quantize,
    conversion, index, evaluate, report. What data and settings have not changed is not done again; what
    was cut off goes on.
    """
    workspace, settings = open_workspace(context)
    payload = run_pipeline(context, workspace, settings, start=start, only=only, dry_run=dry_run)
    if emit(context, payload):
        return
    stale = any(stage["state"] != "fresh" for stage in payload["stages"])
    if not stale:
        say(context, "Everything is up to date; nothing was done.")
    next_verb(context, "adstool run" if dry_run and stale else "adstool rank --user USER --explain")


def run_pipeline(
    context: typer.Context,
    workspace: Workspace,
    settings: Settings,
    *,
    start: str | None = None,
    only: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run the stages, telling of each as it ends; returns the JSON of the verb."""
    from adstool.pipeline import plan_stages, run_stages
    from adstool.run_log import logged
    from adstool.stages import Job, select_stages
    from adstool.warehouse import open_warehouse

    clock = time.perf_counter()
    stages, force = select_stages(start, only), bool(start or only)
    if dry_run:
        with open_warehouse(workspace, settings, read_only=True) as connection:
            finished = list(plan_stages(Job(workspace, settings, connection), stages, force=force))
        for done in finished:
            _tell(context, done)
    else:
        finished = []
        verbs = [stage.verb for stage in stages]
        with workspace.lock(settings.warehouse.lock_wait_seconds), logged(workspace, verbs) as written:
            for done in run_stages(workspace, settings, stages, force=force):
                finished.append(done)
                written.stage(done.verb, done.state, done.reason, done.seconds)
                _tell(context, done)
    seconds = round(time.perf_counter() - clock, 2)
    return {"dry_run": dry_run, "stages": [done.to_json() for done in finished], "seconds": seconds}


def _tell(context: typer.Context, done: Done) -> None:
    say(context, f"  {done.verb:<22} {_line(done.to_json())}")


def _line(done: dict[str, Any]) -> str:
    if done["state"] != "done":
        return f"{done['state']}: {done['reason']}"
    text = _summary(done["name"], done["result"])
    return f"{text:<78} {done['seconds']:>7.1f} s"


def _summary(name: str, result: dict[str, Any]) -> str:
    """The one figure people look for in the result of a stage."""
    if name == "embed":
        return (
            f"{result['embedded']:,} items, {result['skipped']:,} unchanged, {result['failed']:,} failed, "
            f"{result['model']} ({result['dim']}-d)"
        )
    if name == "interests":
        used = "on-site and off-site" if result["offsite"] else "on-site only"
        return f"{result['interests']:,} interests of {result['users']:,} users, {used}"
    if name == "semantic":
        return _semantic_ids(result)
    if name in ("retrieval", "lightweight", "engagement"):
        return f"{result['run_id']}: " + ", ".join(
            f"{key} {value:.3f}" for key, value in _headline(result["metrics"].get("test", {})).items()
        )
    if name == "conversion":
        return _conversions(result)
    if name == "calibrate":
        head, before = next(iter(result["before"].items()))
        after = result["after"][head]
        change = f"ne {before['ne']:.4f} before, {after['ne']:.4f} after"
        return f"{head}: {result['curves'][head]} curve, {change}"
    if name == "quantize":
        verdict = "accepted" if result["accepted"] else "REFUSED"
        return (
            f"{verdict}: {result['size_ratio']:.0%} of the size, {result['speedup']:.1f} x as fast, "
            f"NE {result['delta_ne']:+.4f}"
        )
    if name == "index":
        return f"{result['rows']:,} items; sources {', '.join(result['sources'])}"
    if name == "evaluate":
        return _quality(result)
    return str(result["path"])


def _semantic_ids(result: dict[str, Any]) -> str:
    if "sizes" not in result:
        return "no item has a vector"
    first = result["metrics"]["train"]["1"]
    wanted = (("co-engaged", "purity"), ("by chance", "popularity_matched"))
    known = [f"{label} {first[key]:.3f}" for label, key in wanted if key in first]
    sizes = " x ".join(str(size) for size in result["sizes"])
    verb = "kept" if result["kept"] else result["method"]
    return ", ".join([f"{result['run_id']}: {verb} {sizes}", *known])


def _conversions(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return str(result["skipped"])
    found = result["metrics"]["test"]["all kinds"]
    return (
        f"{result['run_id']}: {found['positives']:,} conversions of {found['rows']:,} matured clicks, "
        f"predicted over observed {found['calibration'] or float('nan'):.3f}"
    )


def _quality(result: dict[str, Any]) -> str:
    """What each stage of the funnel is worth, as far as it could be judged."""
    heads = result.get("engagement", {}).get("heads", {})
    figures = [(f"{name} auc", head.get("auc")) for name, head in list(heads.items())[:1]]
    figures += [
        (label, result.get(section, {}).get(key))
        for label, section, key in (
            ("reachable", "retrieval", "reachable"),
            ("kept", "lightweight", "recall"),
            ("ndcg@10", "funnel", "ndcg@10"),
            ("as logged", "funnel", "ndcg@10_logged"),
        )
    ]
    known = [(label, value) for label, value in figures if isinstance(value, float) and value == value]
    return ", ".join(f"{label} {value:.3f}" for label, value in known)


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The first few plain figures of a metrics tree, by dotted name."""
    found: dict[str, float] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix} {key}".strip(), inner)
        elif isinstance(value, float) and len(found) < 4:
            found[prefix] = value

    walk("", metrics)
    return found
