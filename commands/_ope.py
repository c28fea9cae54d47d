"""adstool evaluate ope: the off-policy value of a target policy from a logged table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adstool.commands._context import globals_of, open_workspace
from adstool.commands._options import Group, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.config import Settings, load_settings
from adstool.errors import AdstoolError, GateNotPassed, UsageError

if TYPE_CHECKING:
    from adstool.evaluation.off_policy_table import OffPolicyRequest

NAMES = {
    "ips": "IPS",
    "snips": "SNIPS",
    "dr": "doubly robust",
    "switch_dr": "Switch-DR",
    "mips": "MIPS",
}
SLATES = {
    "standard": "product of all weights",
    "independent": "independent positions",
    "cascade": "cascade",
    "cascade_dr": "cascade, doubly robust",
}


# The options of `evaluate ope`; all but the log are names of its columns.
def _column(name: str, text: str, default: str = "none", metavar: str = "COLUMN") -> Any:
    return option(Group.COLUMNS, f"ope: {text}", name, metavar=metavar, default=default)


Log = Annotated[
    Path | None,
    option(
        Group.DATA,
        "ope, which needs it: the logged table, one row an action (csv, parquet or jsonl).",
        "--log",
        metavar="FILE",
        default="none",
    ),
]
Reward = Annotated[str | None, _column("--reward", "what the action earned; needed.")]
Propensity = Annotated[
    str | None,
    _column(
        "--propensity",
        "the chance with which the log's policy took the action it took; where it is empty it is fitted.",
        default="fitted from --action and --context",
    ),
]
Target = Annotated[
    str | None,
    _column("--target", "the target policy's chance of that same action; needed."),
]
QHat = Annotated[
    str | None,
    _column("--q-hat", "a model's reward of the action taken, for doubly robust.", default="the mean reward"),
]
QTarget = Annotated[
    str | None,
    _column(
        "--q-target",
        "the model's mean reward over the target's actions.",
        default="estimated from the log, or --q-hat where that is the same for all actions",
    ),
]
User = Annotated[str | None, _column("--user", "the user; users are drawn whole.", default="rows are drawn")]
Action = Annotated[str | None, _column("--action", "the action, to fit chances.")]
Given = Annotated[
    str | None,
    _column("--context", "what the policies looked at, for fits and MIPS.", metavar="A,B"),
]
Embedding = Annotated[
    str | None,
    _column("--embedding", "what the action is like, for MIPS: categories or a vector.", metavar="A,B"),
]
Slate = Annotated[str | None, _column("--request", "the slate of a row, for slate estimators.")]
Position = Annotated[str | None, _column("--position", "the row's position in its slate.")]
Switch = Annotated[
    float | None,
    option(
        Group.LIMITS,
        "ope: largest weight of Switch-DR.",
        "--switch",
        min=0,
        metavar="X",
        default="chosen by its error",
    ),
]


def names_of(listed: str | None) -> tuple[str, ...]:
    """The names in a comma-separated option."""
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())


def run_ope(context: typer.Context, log: Path | None, columns: dict[str, Any]) -> None:
    """Estimate, print, and raise GateNotPassed when the log cannot tell.

    columns: the fields of OffPolicyRequest but `log`.
    """
    needed = {"--log": log, "--reward": columns["reward"], "--target": columns["target"]}
    missing = [name for name, given in needed.items() if not given]
    if missing or log is None:
        raise UsageError(
            f"evaluate ope needs {', '.join(missing)}.",
            "adstool evaluate ope --log FILE --reward COLUMN --propensity COLUMN --target COLUMN",
        )
    from adstool.evaluation.off_policy_log import evaluate_off_policy
    from adstool.evaluation.off_policy_table import OffPolicyRequest

    request = OffPolicyRequest(log=log, **columns)
    result = evaluate_off_policy(request, _settings(context).evaluation)
    if not emit(context, result):
        _show(context, request, result)
    if result["refused"]:
        raise GateNotPassed(
            f"{log} cannot tell what the target is worth: {result['reason']}.",
            result,
            "Log more exploration, judge a target nearer to the log, or lower evaluation.min_ess.",
        )


def _settings(context: typer.Context) -> Settings:
    """Those of the workspace; a table needs none, so defaults where there is no workspace."""
    options = globals_of(context)
    try:
        settings: Settings = open_workspace(context)[1]
        return settings
    except AdstoolError:
        if options.workspace is not None or options.config is not None:
            raise
        return load_settings(None)


def _show(context: typer.Context, request: OffPolicyRequest, result: dict[str, Any]) -> None:
    intervals = result["intervals"]
    rows: list[tuple[Any, ...]] = [("the log itself", *_figures(result["logged"], intervals["logged"]))]
    rows += [
        (label, *_figures(result[name], intervals[name]))
        for name, label in NAMES.items()
        if result[name] is not None
    ]
    title = f"{result['rows']:,} rows of {result['users']:,} users, reward '{request.reward}' a row"
    table(context, ["value of the target", "estimate", "from", "to"], rows, title)
    if result["slate"]:
        slate = result["slate"]
        table(
            context,
            ["value of a slate", "estimate", "from", "to", "effective"],
            [
                ("the log itself", *_figures(slate["logged"]["value"], slate["logged"]["interval"]), None),
                *(
                    (label, *_figures(slate[name]["value"], slate[name]["interval"]), slate[name]["ess"])
                    for name, label in SLATES.items()
                    if name in slate
                ),
            ],
            f"{slate['slates']:,} slates of {slate['positions']:.3g} positions",
        )
    support = result["overlap"]
    words = f"Effective rows {result['ess']:,.1f} ({result['ess'] / result['rows']:.1%})"
    if not support["impossible_rows"]:
        words += (
            f", mean weight {support['mean_weight']:.3f} (1 where the log covers the target), largest "
            f"{support['max_weight']:.4g}, {support['top_1_percent_share']:.0%} of all weight in the "
            "heaviest hundredth of the rows"
        )
    say(context, f"{words}. Propensities {result['propensities']}; the model of dr is {result['model']}.")
    if not result["refused"]:
        next_verb(context, "adstool evaluate --compare RUN_A RUN_B, for what a change is worth in money")


def _figures(value: float, interval: list[float]) -> tuple[float, float, float]:
    return value, interval[0], interval[1]
