"""Weights of the utility by what they would have brought: logged auctions held again under each of them.

Half of the users choose, the other half judge: of many settings the best one is in part the luckiest, and
that luck does not come again with other users.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adstool.config import Action, Settings
from adstool.evaluation.bootstrap import estimate
from adstool.evaluation.context import FIRST_POSITION, Absent, Evaluation
from adstool.evaluation.pools import Pools, logged_pools, sell
from adstool.training.value import Value

Array = NDArray[Any]
MONEY = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # auction.utility_weight
FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the weight of the wanted and of the unwanted action
MAX_LOSS = 0.01  # of revenue and of each action, for the setting that is chosen
DIGITS = 4  # of a weight that is written


class Weights(NamedTuple):
    """One setting of the utility: what is swept of adstool.toml."""

    utility_weight: float
    wanted: float
    unwanted: float


class Axes(NamedTuple):
    """The two user actions that stand against advertiser value."""

    wanted: Action
    unwanted: Action


def axes_of(settings: Settings, heads: tuple[str, ...]) -> Axes:
    """The wanted and the unwanted action of most weight, but the one that is paid for; the wanted one is
    `save` where there is one. Raises Absent without either."""
    paid = heads[Value.of(settings, heads).click]
    known = [action for action in settings.actions if action.name in heads and action.name != paid]
    wanted = [action for action in known if action.positive]
    unwanted = [action for action in known if not action.positive]
    if not wanted or not unwanted:
        raise Absent(
            "Utility is tuned against a wanted and an unwanted action; [[actions]] lacks one.",
            "Add one, such as save with weight = 4.0 or hide with weight = -10.0 and positive = false.",
        )
    best = max(wanted, key=lambda action: (action.name == "save", action.weight))
    return Axes(best, min(unwanted, key=lambda action: action.weight))


def evaluate_utility(evaluation: Evaluation) -> dict[str, Any]:
    """Every setting of a grid on the choosing half, the chosen one judged on the other.

    {actions, current, chosen, settings: [{utility_weight, wanted, unwanted, front, and each of NAMES}],
    judged: {name: {value, interval}} relative to the current setting, auctions, users, outcomes}. Chosen is
    the one of most advertiser value of those that lose at most MAX_LOSS of the wanted action and of revenue,
    and add no more of the unwanted one, against the setting in use: that one itself where no other does.
    """
    pools, settings = logged_pools(evaluation), evaluation.settings
    axes = axes_of(settings, pools.heads)
    rows = pools.rows + evaluation.test.start
    probability = evaluation.predict(rows, FIRST_POSITION)
    worth = evaluation.predict_worth(rows, FIRST_POSITION)
    choosing = _half(pools.users)
    now = Weights(settings.auction.utility_weight, axes.wanted.weight, axes.unwanted.weight)
    tried = list(dict.fromkeys([now, *_grid(now)]))
    outcomes = [_outcome(pools, settings, axes, one, probability, worth) for one in tried]
    totals = np.array([[column[choosing].sum() for column in one] for one in outcomes])
    picked = _choose(totals)
    front = _front(totals)
    return {
        "actions": {"wanted": axes.wanted.name, "unwanted": axes.unwanted.name},
        "run_id": evaluation.engagement_run.name,
        "current": now._asdict(),
        "chosen": tried[picked]._asdict(),
        "settings": [
            {**one._asdict(), **dict(zip(NAMES, line.tolist(), strict=True)), "front": bool(on)}
            for one, line, on in zip(tried, totals, front, strict=True)
        ],
        "judged": _judged(evaluation, pools, outcomes[0], outcomes[picked], ~choosing),
        "auctions": {"choosing": int(choosing.sum()), "judging": int((~choosing).sum())},
        "users": len(np.unique(pools.users)),
        "max_loss": MAX_LOSS,
        "outcomes": "true chances" if pools.true else "what happened",
    }


NAMES = ("value", "revenue", "wanted_actions", "unwanted_actions")


def _half(users: Array) -> Array:
    """Whether each pool's user is of the choosing half, bool [G]: by lot, always the same."""
    names, number = np.unique(users, return_inverse=True)
    chosen = np.random.default_rng(0).permutation(len(names)) < len(names) / 2
    return np.asarray(chosen[number])


def _grid(now: Weights) -> list[Weights]:
    return [
        Weights(money, round(now.wanted * a, DIGITS) + 0.0, round(now.unwanted * b, DIGITS) + 0.0)
        for money, a, b in itertools.product(MONEY, FACTORS, FACTORS)
        if money > 0 or (a == 1 and b == 1)  # without money for it, no weight counts
    ]


def with_weights(settings: Settings, axes: Axes, weights: Weights) -> Settings:
    """The settings with these weights in place of theirs."""
    changed = {axes.wanted.name: weights.wanted, axes.unwanted.name: weights.unwanted}
    actions = tuple(replace(one, weight=changed.get(one.name, one.weight)) for one in settings.actions)
    auction = replace(settings.auction, utility_weight=weights.utility_weight)
    return replace(settings, actions=actions, auction=auction)


def _outcome(
    pools: Pools, settings: Settings, axes: Axes, weights: Weights, probability: Array, worth: Array
) -> tuple[Array, ...]:
    """What NAMES say of every pool under these weights, [G] each."""
    value = Value.of(with_weights(settings, axes, weights), pools.heads)
    sold = sell(pools, settings, probability, worth, value)
    return (
        sold["value"],
        sold["revenue"],
        sold[f"actions.{axes.wanted.name}"],
        sold[f"actions.{axes.unwanted.name}"],
    )


def _choose(totals: Array) -> int:
    """The row of most value of those that lose next to nothing against row 0; totals [settings, NAMES]."""
    now = totals[0]
    least, most = 1 - MAX_LOSS, 1 + MAX_LOSS
    able = (totals[:, 1:3] >= least * now[1:3]).all(axis=1) & (totals[:, 3] <= most * now[3])
    return int(np.argmax(np.where(able, totals[:, 0], -np.inf)))


def _front(totals: Array) -> Array:
    """Whether no other row is at least as good in value, wanted and unwanted actions, and better in one."""
    signed = totals[:, [0, 2, 3]] * np.array([1.0, 1.0, -1.0])
    at_least = (signed[:, None, :] >= signed[None, :, :]).all(axis=2)
    better = (signed[:, None, :] > signed[None, :, :]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0))


def _judged(
    evaluation: Evaluation, pools: Pools, now: tuple[Array, ...], then: tuple[Array, ...], judging: Array
) -> dict[str, Any]:
    """The relative change of each of NAMES on the judging half, {value, interval}; paired draws of users."""
    users = evaluation.resampler(pools.users[judging])
    before = users.sums(*(column[judging] for column in now))
    after = users.sums(*(column[judging] for column in then))
    found = {}
    for name, a, b in zip(NAMES, before, after, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            change = estimate(b / a - 1)
        found[name] = {"value": change.value, "interval": change.interval}
    return found


def along_front(found: Mapping[str, Any], count: int = 12) -> list[tuple[str, dict[str, Any]]]:
    """About `count` settings of the front of a result, by falling value, with the one in use and the chosen
    one among them; each with what it is: "in use", "chosen", or nothing."""
    marked = {tuple(found["current"].values()): "in use"}
    marked[tuple(found["chosen"].values())] = "chosen"
    ordered = sorted(found["settings"], key=lambda one: -float(one["value"]))
    front = [one for one in ordered if one["front"]]
    some = front[:: max(1, len(front) // count)]
    named = [(marked.get(tuple(one[key] for key in Weights._fields), ""), one) for one in ordered]
    return [(name, one) for name, one in named if name or one in some]
