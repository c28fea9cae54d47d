"""What a change is worth: two forms of the engagement model on the same held-out rows, metrics and money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import AdstoolError, UsageError, choose
from adstool.evaluation.bootstrap import Resampler, estimate
from adstool.evaluation.context import FIRST_POSITION, Evaluation, NotReady, scored
from adstool.evaluation.off_policy import effective_size
from adstool.evaluation.pools import Pools, logged_pools, sell
from adstool.serving.scorer import Scorer, graph_file
from adstool.training.metrics import EPSILON
from adstool.training.value import Value
from adstool.workspace import read_json

Array = NDArray[Any]
MODEL = "engagement"
FORMS = ("fp32", "int8", "int4", "uncalibrated")
NOTHING = 1e-9  # a change of less is rounding
METRICS = ("auc", "ne", "log_loss", "calibration")


@dataclass(frozen=True)
class Side:
    """One of the two, predicted: all over the test split, [n, A]."""

    name: str
    logged: Array  # calibrated probabilities at the logged positions
    probability: Array  # the same in the first slot, as serving scores
    worth: Array  # what the utility weighs there


def compare(evaluation: Evaluation, first: str, second: str) -> dict[str, Any]:
    """{runs, rows, users, metrics, off_policy, money, sentence}: `second` against `first`, intervals paired.

    Each is model@run with forms behind colons, such as engagement@r1:fp32 or engagement:uncalibrated; without
    a run it is the one in use, without a form as it serves. Raises UsageError for other words, NotReady for a
    run of other data.
    """
    sides = [_side(evaluation, name) for name in (first, second)]
    users = evaluation.resampler(evaluation.users)
    result: dict[str, Any] = {
        "runs": [side.name for side in sides],
        "rows": len(evaluation.users),
        "users": len(users.names),
        "metrics": _metrics(evaluation, sides),
        "synthetic": evaluation.truth_folder is not None,
    }
    pools = logged_pools(evaluation)
    result["off_policy"] = _off_policy(evaluation, pools, sides)
    result["money"] = _money(evaluation, pools, sides)
    result["sentence"] = sentence(result)
    return result


def _side(evaluation: Evaluation, name: str) -> Side:
    scorer = open_form(evaluation, name)
    rows = np.arange(evaluation.test.start, evaluation.test.stop)
    dataset = evaluation.dataset
    logged = scored(dataset, scorer, rows, scorer.predict)
    both = scored(
        dataset,
        scorer,
        rows,
        lambda inputs: np.concatenate(scorer.predict_worth(inputs), axis=1),
        FIRST_POSITION,
    )
    heads = len(scorer.outputs)
    return Side(name, logged, both[:, :heads], both[:, heads:])


def open_form(evaluation: Evaluation, name: str) -> Scorer:
    """The scorer that a name such as engagement@r1:fp32:uncalibrated stands for."""
    run_name, *forms = name.split(":")
    model, _, run_id = run_name.partition("@")
    example = f"{MODEL}@r1, {MODEL}@r1:fp32, {MODEL}@r1:uncalibrated"
    if model != MODEL:
        raise UsageError(f"'{name}' is no {MODEL} run.", f"Name two of them: {example}.")
    unknown = [form for form in forms if form not in FORMS]
    if unknown:
        raise UsageError(f"'{name}' asks for '{unknown[0]}'.", choose(unknown[0], FORMS))
    run = next((one for one in evaluation.ws.runs(MODEL) if one.name == run_id), None)
    if not run_id:
        run = evaluation.require_run(MODEL, f"train {MODEL}")
    if run is None:
        known = ", ".join(one.name for one in evaluation.ws.runs(MODEL)) or "none"
        raise UsageError(f"There is no run '{run_id}' of {MODEL}.", f"Runs: {known}.")
    if read_json(run / "run.json").get("data") != evaluation.dataset.fingerprint:
        raise NotReady(
            f"{MODEL}@{run.name} was trained on other data or settings than those of now: its codes "
            "mean other things.",
            "Train it again, or compare runs of the same data.",
        )
    graphs = [form for form in forms if form != "uncalibrated"]
    if len(graphs) > 1:
        raise UsageError(f"'{name}' asks for two forms at once.", f"Name one of {', '.join(FORMS[:3])}.")
    variant = {"fp32": "", "int8": ".int8", "int4": ".int4"}[graphs[0]] if graphs else None
    if variant is not None and not (run / graph_file("model.onnx", variant)).is_file():
        raise AdstoolError(
            f"{MODEL}@{run.name} has no {graphs[0]} form.", f"Make one: adstool quantize {MODEL}"
        )
    scorer = Scorer(run, threads=evaluation.settings.funnel.threads, variant=variant)
    if "uncalibrated" in forms:
        scorer.calibration = None
    return scorer


def _metrics(evaluation: Evaluation, sides: list[Side]) -> dict[str, Any]:
    """By head and metric: {a, b, difference: {value, interval}, relative: {value, interval}}."""
    found: dict[str, Any] = {}
    for column, head in enumerate(evaluation.heads):
        known = ~np.isnan(evaluation.labels[:, column])
        y = evaluation.labels[known, column].astype(np.float64)
        users = evaluation.resampler(evaluation.users[known])
        drawn = [_draws(users, y, side.logged[known, column]) for side in sides]
        found[head] = {name: _paired(drawn[0][name], drawn[1][name]) for name in METRICS}
        found[head] |= {"rows": len(y), "positives": int(y.sum())}
    return found


def _draws(users: Resampler, labels: Array, predicted: Array) -> dict[str, Array]:
    """The metrics of one column of probabilities in every draw of users, [1 + R] each."""
    p = np.clip(predicted.astype(np.float64), EPSILON, 1 - EPSILON)
    loss = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    total, positives, expected, rows = users.sums(loss, labels, p, np.ones(len(p)))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = positives / rows
        base = -rows * (rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return {
            "auc": users.auc(labels, p),
            "ne": total / base,
            "log_loss": total / rows,
            "calibration": expected / positives,
        }


def _paired(first: Array, second: Array) -> dict[str, Any]:
    """Two figures in every draw [1 + R], their difference and its share of the first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        difference, relative = estimate(second - first), estimate(second / first - 1)
    return {
        "a": float(first[0]),
        "b": float(second[0]),
        "difference": {"value": difference.value, "interval": difference.interval},
        "relative": {"value": relative.value, "interval": relative.interval},
    }


def _money(evaluation: Evaluation, pools: Pools, sides: list[Side]) -> dict[str, Any]:
    """The auctions of the log held again with each side's predictions."""
    users = evaluation.resampler(pools.users)
    sold = [sell(pools, evaluation.settings, s.probability[pools.rows], s.worth[pools.rows]) for s in sides]
    sums = [dict(zip(one, users.sums(*one.values()), strict=True)) for one in sold]
    for one in sums:
        with np.errstate(divide="ignore", invalid="ignore"):
            one["roas"] = one["value"] / one["revenue"]
    return {
        **{name: _paired(sums[0][name], sums[1][name]) for name in sums[0]},
        "auctions": len(pools.users),
        "ads": len(pools.rows),
        "outcomes": "true chances" if pools.true else "what happened",
    }


def _off_policy(evaluation: Evaluation, pools: Pools, sides: list[Side]) -> dict[str, Any]:
    """The worth of a slot filled by lot, an ad's chance rising with its score (softmax), by SNIPS of the log.

    Within a pool w = exp(score / spread) / propensity, normalised: the log's choices as they would have been.
    Worth is in money: bid where clicked, and the utility of what the user did. {value, ess, refused, reason}.
    """
    if not np.isfinite(pools.propensity).all():
        return {
            "value": None,
            "ess": None,
            "refused": True,
            "reason": "not every choice has its propensity logged",
        }
    value = Value.of(evaluation.settings, pools.heads)
    earned = pools.bids * pools.outcome[:, value.click]
    earned = earned + value.utility_weight * (pools.outcome @ value.weights)
    scores = [value.score(s.probability[pools.rows], pools.bids, s.worth[pools.rows]) for s in sides]
    users = evaluation.resampler(pools.users)
    drawn, sizes = [], []
    for score in scores:
        spread = float(score.std()) or 1.0  # each side's own: a policy is no better for larger scores
        logit = pools.padded(score / spread - np.log(pools.propensity), -np.inf)
        weight = np.exp(logit - logit.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        sizes.append(effective_size(weight.ravel()))
        total, count = users.sums((weight * pools.padded(earned)).sum(axis=1), np.ones(len(weight)))
        drawn.append(total / count)
    least = evaluation.settings.evaluation.min_ess
    reason = (
        None if min(sizes) >= least else f"an effective {min(sizes):.1f} choices; min_ess asks for {least:g}"
    )
    return {
        "value": None if reason else _paired(*drawn),
        "ess": min(sizes),
        "refused": reason is not None,
        "reason": reason,
    }


def sentence(result: Mapping[str, Any]) -> str:
    """The comparison in one sentence: what changed, in percent with intervals, and another of what to do."""
    first, second = result["runs"]
    money = result["money"]
    head = next(iter(result["metrics"]))
    told = [
        f"{head} NE {percent(result['metrics'][head]['ne']['relative'])}",
        f"revenue {percent(money['revenue']['relative'])}",
        f"advertiser value {percent(money['value']['relative'])}",
        f"RoAS {percent(money['roas']['relative'])}",
    ]
    if "actions.hide" in money:
        told.append(f"hides {percent(money['actions.hide']['relative'])}")
    return f"{second} against {first}: {', '.join(told)}. {_advice(result, head)}"


def percent(change: Mapping[str, Any]) -> str:
    """A relative change with its interval, +1.9 % (+0.7, +3.0); under a hundredth of a percent: unchanged."""
    value, (low, high) = change["value"], change["interval"]
    if not all(map(math.isfinite, (value, low, high))):
        return "unknown"
    if max(abs(low), abs(high)) < 1e-4:
        return "unchanged"
    digits = 1 if abs(value) >= 0.001 else 2
    return f"{100 * value:+.{digits}f} % ({100 * low:+.{digits}f}, {100 * high:+.{digits}f})"


def _sign(change: Mapping[str, Any]) -> int:
    """1 or -1 where a change is beyond chance (its interval leaves out 0), else 0."""
    low, high = change["interval"]
    return 1 if low > NOTHING else -1 if high < -NOTHING else 0


def _advice(result: Mapping[str, Any], head: str) -> str:
    money = result["money"]
    better = -_sign(result["metrics"][head]["ne"]["difference"])
    revenue, value = (_sign(money[name]["relative"]) for name in ("revenue", "value"))
    hides = _sign(money["actions.hide"]["relative"]) if "actions.hide" in money else 0
    harmed = [
        word for word, bad in (("advertisers get less", value < 0), ("users hide more", hides > 0)) if bad
    ]
    gained = [
        word for word, good in (("advertisers get more", value > 0), ("users hide less", hides < 0)) if good
    ]
    if harmed:
        lead = "It earns more, but" if revenue > 0 else "With it"
        return f"{lead} {' and '.join(harmed)}: {'weigh that first' if revenue > 0 else 'do not ship it'}."
    if revenue < 0:
        why = f"though {' and '.join(gained)}" if gained else "and nobody gains"
        return f"It earns less, {why}: {'weigh that first' if gained else 'do not ship it'}."
    if revenue > 0 and not gained and _sign(money["roas"]["relative"]) < 0:
        return "Advertisers pay more for as much: ship it if RoAS may fall so far."
    if revenue > 0 or gained or better > 0:
        return "Nobody loses beyond chance: ship it."
    if better < 0:
        return "It predicts worse, though money does not show it: do not ship it for its quality."
    return "No difference beyond chance: ship whichever costs less."
