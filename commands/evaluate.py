"""adstool evaluate: offline metrics by stage, with intervals, beside baselines and the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from adstool.commands import _compare, _ope, _options, _utility
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import show_plan
from adstool.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        evaluate,
        "adstool evaluate engagement",
        "adstool evaluate ope --log log.csv --reward reward --propensity p --target q",
        refused="a limit of --gate broken, or a log that cannot tell",
    )


def evaluate(
    context: typer.Context,
    stage: Annotated[
        str,
        argument(
            "interests, retrieval, lightweight, engagement, conversion, funnel or all; utility; ope.", "STAGE"
        ),
    ] = "all",
    log: _ope.Log = None,
    reward: _ope.Reward = None,
    propensity: _ope.Propensity = None,
    target: _ope.Target = None,
    q_hat: _ope.QHat = None,
    q_target: _ope.QTarget = None,
    user: _ope.User = None,
    action: _ope.Action = None,
    given: _ope.Given = None,
    embedding: _ope.Embedding = None,
    slate: _ope.Slate = None,
    position: _ope.Position = None,
    compare: Annotated[
        tuple[str, str] | None,
        option(
            Group.MODEL,
            "Two runs instead of a stage: what the second is worth, in metrics and money. A run is "
            "engagement@r1, perhaps in a form: engagement@r1:fp32, :int8, :int4 or :uncalibrated.",
            "--compare",
            metavar="RUN_A RUN_B",
            default="none",
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        option(
            Group.LIMITS,
            "A toml file of limits: [stage] metric = { min = 0.7, max = 0.9 }.",
            "--gate",
            metavar="FILE",
            default="none",
        ),
    ] = None,
    switch: _ope.Switch = None,
    write: _utility.Write = False,
    dry_run: _options.DryRun = False,
) -> None:
    """Measure each stage offline, with intervals, beside baselines.

    On the last part of the log, with 95 % intervals from resampling users, by slices, and in a synthetic
    world beside the truth.

    evaluate utility holds logged auctions again under other weights of [[actions]] and
    auction.utility_weight; --write puts the chosen ones with their evidence into adstool.toml.

    evaluate ope needs no workspace: it says what another policy would have earned, from a logged table
    (IPS, SNIPS, doubly robust, Switch-DR, MIPS, slates).
    """
    if dry_run and (stage == "ope" or compare is not None):
        raise UsageError("ope and --compare write nothing anyway.", "Leave out --dry-run.")
    if stage == "ope":
        columns = {
            "reward": reward,
            "propensity": propensity,
            "target": target,
            "q_hat": q_hat,
            "q_target": q_target,
            "user": user,
            "action": action,
            "context": _ope.names_of(given),
            "embedding": _ope.names_of(embedding),
            "slate": slate,
            "position": position,
            "threshold": switch,
        }
        _ope.run_ope(context, log, columns)
        return
    if compare is not None:
        if stage != "all" or gate is not None:
            raise UsageError("--compare goes with no stage and no --gate.", "adstool evaluate --compare A B")
        _compare.run_compare(context, *compare)
        return
    if log is not None:
        raise UsageError(f"--log goes with ope, not with '{stage}'.", "adstool evaluate ope --log FILE ...")
    if write and stage != "utility":
        raise UsageError(
            f"--write goes with utility, not with '{stage}'.", "adstool evaluate utility --write"
        )
    _stages(context, stage, gate, write, dry_run)


def _stages(context: typer.Context, stage: str, gate: Path | None, write: bool, dry_run: bool) -> None:
    """The stages of the workspace."""
    from adstool.errors import GateNotPassed
    from adstool.evaluation.evaluate import evaluate as run_evaluation
    from adstool.evaluation.evaluate import select
    from adstool.evaluation.gate import check_gate, read_gate
    from adstool.pipeline import record
    from adstool.warehouse import open_warehouse

    select([stage])
    limits = read_gate(gate) if gate is not None else []
    workspace, settings = open_workspace(context)
    _require_warehouse(workspace)
    if dry_run:
        from adstool.planned import plan_evaluate

        show_plan(context, plan_evaluate(workspace, stage, write))
        return
    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        with open_warehouse(workspace, settings, read_only=True) as connection:
            results = run_evaluation(workspace, settings, connection, [stage])
        if stage == "all" and not results["skipped"]:
            record(workspace, settings, "evaluate", results, started)
    if write:
        _utility.write_chosen(workspace, settings, results["utility"])
    failed = [check.sentence() for check in check_gate(limits, results) if not check.passed]
    if limits:
        results["gate"] = {"passed": not failed, "limits": len(limits), "failed": failed}
    if not emit(context, results):
        _show(context, results)
    if failed:
        raise GateNotPassed(
            f"{len(failed)} of {len(limits)} limits of {gate} failed: {'; '.join(failed)}.",
            results,
            "Train with other data or settings, or change the limit.",
        )


def _require_warehouse(workspace: Any) -> None:
    if not workspace.warehouse.is_file():
        from adstool.errors import AdstoolError

        raise AdstoolError(
            f"{workspace.root} holds no data to evaluate on.", "Load some: adstool ingest FILES"
        )


def _show(context: typer.Context, results: dict[str, Any]) -> None:
    for name, show in (
        ("interests", _interests),
        ("retrieval", _retrieval),
        ("lightweight", _lightweight),
        ("engagement", _engagement),
        ("conversion", _conversion),
        ("funnel", _funnel),
        ("utility", _utility.show_utility),
    ):
        if name in results:
            show(context, results[name])
    if results["synthetic"]:
        say(context, "A synthetic world: nothing here was measured on real people.")
    for name, reason in results["skipped"].items():
        say(context, f"{name} was left out: {reason}")
    if results.get("gate", {}).get("passed"):
        say(context, f"All {results['gate']['limits']} limits of the gate are kept.")
    next_verb(context, "adstool report")


def _range(value: float | None, interval: Sequence[float | None] | None, digits: int = 3) -> str:
    """A figure with its 95 % interval, .412 (.406, .418)."""
    if value is None or not math.isfinite(value):
        return "-"
    shown = f"{value:.{digits}f}"
    if not interval or any(edge is None or not math.isfinite(edge) for edge in interval):
        return shown
    low, high = interval
    return f"{shown} ({low:.{digits}f}, {high:.{digits}f})"


def _of(figures: dict[str, Any], metric: str, digits: int = 3) -> str:
    return _range(figures.get(metric), (figures.get("intervals") or {}).get(metric), digits)


def _interests(context: typer.Context, stage: dict[str, Any]) -> None:
    judged = {
        "later": "later engagements",
        "truth": "true interests",
        "truth_newcomers": "true, newcomers",
    }
    shown = {key: label for key, label in judged.items() if (stage.get(key) or {}).get("users")}
    names = list(next((stage[key]["ndcg@10"] for key in shown), ()))
    rows = [
        (
            name.replace("_", " "),
            *(_range(stage[key]["ndcg@10"][name], stage[key]["intervals"][name]) for key in shown),
        )
        for name in names
    ]
    table(
        context,
        ["order of categories", *shown.values()],
        rows,
        f"Interests: NDCG@10 of {stage['categories']:,} categories for {stage['users']:,} users",
    )


def _retrieval(context: typer.Context, stage: dict[str, Any]) -> None:
    ks = stage["ks"]
    rows = [
        (
            name,
            *(_of(source, f"recall@{k}") for k in ks),
            _of(source, "unique"),
            _of(source, "cold_recall"),
            (source.get("ms") or {}).get("p50"),
        )
        for name, source in [*stage["sources"].items(), ("all together", stage["merged"])]
    ]
    table(
        context,
        ["source", *(f"recall@{k}" for k in ks), "only here", "new items", "ms"],
        rows,
        f"Retrieval: {stage['wanted']:,} items that {stage['requests']:,} users engaged with later, "
        f"{stage['cold_wanted']:,} of them new, {stage['reachable']:.1%} of them among the "
        f"{stage['corpus']:,.0f} that could be shown",
    )


def _lightweight(context: typer.Context, stage: dict[str, Any]) -> None:
    names = {
        "recall": "recall of the heavy top 10",
        "utility_regret": "utility regret",
        "slate_regret": "slate regret",
        "kendall_tau": "Kendall tau",
    }
    table(
        context,
        ["lightweight ranker", "value (95 %)"],
        [(name, _of(stage, key, 4)) for key, name in names.items()],
        f"{stage['requests']:,} requests, {stage['candidates']:,.0f} candidates cut to {stage['kept']:,.0f}",
    )
    parts = {**stage.get("sources", {}), **stage.get("slices", {})}
    rows = [
        (name, part.get("candidates"), part.get("requests"), *(_of(part, key, 3) for key in list(names)[:2]))
        for name, part in parts.items()
    ]
    table(context, ["kept of", "candidates", "requests", names["recall"], "regret (95 %)"], rows)


def _engagement(context: typer.Context, stage: dict[str, Any]) -> None:
    rows: list[tuple[Any, ...]] = []
    for name, head in stage["heads"].items():
        truth = head.get("truth") or {}
        rows.append(
            (
                name,
                _of(head, "auc"),
                head["popularity"].get("auc"),
                truth.get("auc"),
                _of(head, "ne"),
                truth.get("ne"),
                _of(head, "calibration"),
                head.get("ece"),
                head["rows"],
                head["positives"],
            )
        )
    known = any(row[3] is not None for row in rows)
    columns = ["head", "AUC", "popular", "true", "NE", "true", "calibration", "ECE", "rows", "positives"]
    if not known:
        rows = [(*row[:3], *row[4:5], *row[6:]) for row in rows]
        columns = [*columns[:3], "NE", *columns[6:]]
    table(context, columns, rows, f"Engagement {stage['run_id']} on the test split")


def _conversion(context: typer.Context, stage: dict[str, Any]) -> None:
    heads = [*stage["heads"].items(), ("any kind", stage["any"])]
    rows = [
        (
            name,
            _of(head, "auc"),
            head["popularity"].get("auc"),
            _of(head, "ne"),
            head["popularity"].get("ne"),
            _of(head, "calibration"),
            head["positives"],
        )
        for name, head in heads
    ]
    table(
        context,
        ["given a click", "AUC", "advertiser", "NE", "advertiser", "calibration", "positives"],
        rows,
        f"Conversions within {stage['horizon_days']:.1f} days of {stage['clicks']:,} clicks that have "
        f"matured, by {stage['run_id']} as of {stage['cut']}",
    )
    money = stage["value"]
    say(
        context,
        f"Predicted over observed: conversions {_of(stage, 'calibration')}, money "
        f"{_of(money, 'calibration')}; the tenth of clicks expected to bring most brought "
        f"{_of(money, 'top_tenth')} of the money.",
    )


def _funnel(context: typer.Context, stage: dict[str, Any]) -> None:
    orders = {
        "ndcg@10": "final utility",
        "ndcg@10_logged": "as it was shown",
        "ndcg@10_popularity": "popularity",
        "ndcg@10_truth": "true utility",
    }
    table(
        context,
        ["order of logged slates", "NDCG@10"],
        [(name, _of(stage, key)) for key, name in orders.items() if stage.get(key) is not None],
        f"{stage['slates']:,} logged slates whose order matters",
    )
    flow = " -> ".join(f"{entry['candidates']:,.0f} {entry['stage']}" for entry in stage.get("stages") or [])
    say(context, f"{stage['requests']:,} requests: {flow}")
    table(
        context,
        ["stage", "p50 ms", "p99 ms"],
        [(name, at["p50"], at["p99"]) for name, at in (stage.get("latency_ms") or {}).items()],
    )
