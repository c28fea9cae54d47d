"""The off-policy value of a table of anyone's log: every estimator, and when the log cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import EvaluationSettings
from adstool.errors import DataError
from adstool.evaluation import off_policy
from adstool.evaluation.bootstrap import Estimate, Resampler
from adstool.evaluation.off_policy import LoggedActions
from adstool.evaluation.off_policy_slate import slate_values
from adstool.evaluation.off_policy_table import OffPolicyRequest, is_vectors, read_log, stacked
from adstool.evaluation.propensities import fitted_propensities, indicators
from adstool.progress import log as notes

Array = NDArray[Any]
MOST_UNCOVERED = 0.5  # a target that spends more of its choices where the log has none is not judged
ESTIMATORS = ("ips", "snips", "dr", "switch_dr", "mips")


def evaluate_off_policy(
    request: OffPolicyRequest, settings: EvaluationSettings, seed: int = 0
) -> dict[str, Any]:
    """Every estimator of the target's value, with intervals, effective sizes and overlap.

    {ips, snips, dr, switch_dr, mips, slate, logged, intervals, ess, overlap, rows, users, propensities,
    warnings, refused, reason}. refused: the log cannot tell, `reason` says why, and the estimates are None.
    Raises UsageError and DataError for a request or a file that cannot be read.
    """
    request.check()
    columns = read_log(request)
    warnings: list[str] = []
    fitted = request.propensity is None or not np.isfinite(columns["propensity"]).any()
    propensity = _fitted(request, columns, warnings) if fitted else columns["propensity"]
    try:
        log = LoggedActions(
            columns["reward"], propensity, columns["target"], columns.get("q_hat"), columns.get("q_target")
        )
    except DataError as error:
        raise DataError(f"{request.log}: {error.message}", error.hint) from None
    behind = columns[request.user] if request.user else columns[request.slate] if request.slate else None
    rows = np.arange(len(log.reward))
    users = Resampler(rows if behind is None else behind, settings.bootstrap, seed)
    logged = users.mean(log.reward)
    support = off_policy.overlap(log, users)
    finite = np.isfinite(log.weight).all()
    result: dict[str, Any] = {
        **dict.fromkeys((*ESTIMATORS, "slate", "switch_threshold")),
        "logged": logged.value,
        "intervals": {"logged": logged.interval},
        "ess": off_policy.effective_size(log.weight) if finite else 0.0,
        "overlap": support,
        "rows": len(rows),
        "users": len(users.names),
        "propensities": "fitted" if fitted else "logged",
        "model": _model_of(request),
        "warnings": warnings,
    }
    reason = _refusal(result, settings.min_ess)
    result |= {"refused": reason is not None, "reason": reason}
    if reason is None:
        _estimate(result, request, log, users, columns)
        warnings += _doubts(log, users, support, request)
    for one in warnings:
        notes.warning("%s", one)
    return result


def _model_of(request: OffPolicyRequest) -> str:
    if request.q_hat is None:
        return "the mean reward of the log"
    return "q-hat" if request.q_target is None else "q-hat and q-target"


def _estimate(
    result: dict[str, Any],
    request: OffPolicyRequest,
    log: LoggedActions,
    users: Resampler,
    columns: dict[str, Array],
) -> None:
    """Put every estimate and its interval into `result`."""
    switched, threshold = off_policy.switch_dr(log, users, request.threshold)
    found: dict[str, Estimate] = {
        "ips": off_policy.ips(log, users),
        "snips": off_policy.snips(log, users),
        "dr": off_policy.dr(log, users),
        "switch_dr": switched,
    }
    result["switch_threshold"] = threshold
    if request.embedding:
        looks = [_cells(columns[name]) for name in request.embedding]
        context = [columns[name] for name in request.context]
        cells = off_policy.cells_of(*looks, *context)
        found["mips"], result["mips_ess"] = off_policy.mips(log, users, cells)
        result["mips_cells"] = len(np.unique(cells))
    for name, one in found.items():
        result[name], result["intervals"][name] = one.value, one.interval
    if request.slate:
        slate = np.unique(columns[request.slate], return_inverse=True)[1]
        result["slate"] = slate_values(log, users, slate, columns["position"])


def _refusal(result: dict[str, Any], least: float) -> str | None:
    """Why the log cannot tell what the target is worth; None when it can."""
    support = result["overlap"]
    if support["impossible_rows"]:
        return (
            f"{support['impossible_rows']:,} rows have propensity 0 and a target that acts so: the log "
            "cannot have done that, so its propensities are wrong"
        )
    if result["ess"] < least:
        return (
            f"the weights leave an effective {result['ess']:.1f} of {result['rows']:,} rows, and "
            f"evaluation.min_ess asks for {least:g}"
        )
    high = support["mean_weight_interval"][1]
    if np.isfinite(high) and high < 1 - MOST_UNCOVERED:
        return (
            f"the weights average {support['mean_weight']:.2f} and should 1: the target spends most of its "
            "choices where the log has none"
        )
    return None


def _doubts(
    log: LoggedActions, users: Resampler, support: dict[str, Any], request: OffPolicyRequest
) -> list[str]:
    """What a reader must know of estimates that are not refused."""
    found = []
    low, high = support["mean_weight_interval"]
    if low > 1 or high < 1:
        found.append(
            f"The weights average {support['mean_weight']:.3f} ({low:.3f} to {high:.3f}) and should 1: "
            "propensities or target are not those of this log, or the log lacks what the target does."
        )
    if support["top_1_percent_share"] > 0.5:
        found.append(
            f"The heaviest hundredth of the rows has {support['top_1_percent_share']:.0%} of all weight: "
            "intervals are too narrow then."
        )
    if off_policy.model_differs(log, users):
        found.append(
            "q-hat differs between actions, and what the model says of the target's actions was estimated "
            "from the log: name it with --q-target for a dr of less variance."
        )
    if users.names.size == len(log.reward) and request.user is None:
        found.append("Rows were resampled one by one: name the users with --user for honest intervals.")
    return found


def _fitted(request: OffPolicyRequest, columns: dict[str, Array], warnings: list[str]) -> Array:
    if request.action is None:
        raise DataError(
            f"Column '{request.propensity}' has no propensity at all.",
            "Name the action with --action (and what the policy looked at with --context) to fit them.",
        )
    context = [_features(columns[name]) for name in request.context]
    by = f"by {', '.join(request.context)}" if context else "as each action's share of the log"
    warnings.append(
        f"No propensities are logged; they were fitted {by}. "
        "What the policy looked at besides biases every figure."
    )
    return fitted_propensities(columns[request.action], np.concatenate(context, axis=1) if context else None)


def _features(column: Array) -> Array:
    """A column as features: vectors and numbers as they are, anything else as indicators."""
    if is_vectors(column):
        return stacked(column)
    return column[:, None].astype(np.float64) if column.dtype.kind == "f" else indicators(column)


def _cells(column: Array) -> Array:
    """A column of what actions look like as cells: vectors by cluster, anything else by value."""
    if is_vectors(column):
        return off_policy.cells_of_vectors(stacked(column))
    return column
