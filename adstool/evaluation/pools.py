"""Logged ads as auctions that can be held again: what one user was shown on one day, outcomes known.

Whatever order another model or another utility gives these ads, what came of each is in the log: nothing has
to be guessed. In a synthetic world the outcome is the chance it was drawn with, so that less is due to luck.
What an ad would have earned that was not shown, a pool cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.evaluation.context import Absent, Evaluation
from adstool.marketplace.auction import Cap, exposure_of_ads, run_auctions
from adstool.training.value import Value, bids_of

Array = NDArray[Any]
DAY = 86_400_000_000  # microseconds
MOST = 64  # ads of a pool; further ones of that day are left out


@dataclass(frozen=True)
class Pools:
    """G pools of up to C of N logged ads."""

    rows: Array  # int64 [N], places in the test split
    member: Array  # int64 [G, C], places in `rows`, -1 where a pool has no further ad
    users: Array  # int64 [G]
    bids: Array  # float64 [N], money a click
    advertiser: Array  # int [N], negative where not known
    category: Array  # int [N], negative where not known
    outcome: Array  # float64 [N, A], the chance of each action, or whether it happened
    propensity: Array  # float64 [N], nan where not logged
    heads: tuple[str, ...]  # the A actions
    true: bool  # whether outcomes are chances

    def padded(self, values: Array, empty: float = 0.0) -> Array:
        """Values [N] as [G, C]."""
        return np.asarray(np.where(self.member >= 0, values[self.member], empty))


def logged_pools(evaluation: Evaluation) -> Pools:
    """The pools of the test split with at least two ads each; raises Absent where there are none."""
    dataset, test = evaluation.dataset, evaluation.test
    if dataset.encoder.spec.corpus != "ad":
        raise Absent(
            "The log has no impression of an ad: no auction can be held again.", "Ingest impressions of ads."
        )
    known = np.flatnonzero(~np.isnan(evaluation.labels).all(axis=1))
    item, user = np.asarray(dataset.item_row[test])[known], evaluation.users[known]
    day = np.asarray(dataset.ts[test])[known] // DAY
    # The same ad twice in a pool could win two slots: the first time counts.
    once = np.unique(np.stack([user, day, item], axis=1), axis=0, return_index=True)[1]
    rows = known[np.sort(once)]
    user, day = evaluation.users[rows], np.asarray(dataset.ts[test])[rows] // DAY
    groups, group = np.unique(np.stack([user, day], axis=1), axis=0, return_inverse=True)
    member = _members(group.reshape(-1), len(groups))
    enough = (member >= 0).sum(axis=1) > 1
    if not enough.any():
        raise Absent("The log shows nobody two ads on one day of its last part.", "Ingest a longer log.")
    shown = np.asarray(dataset.item_row[test])[rows]
    bid = dataset.items.numbers("bid")[shown]
    outcome, true = _outcome(evaluation, rows)
    return Pools(
        rows,
        member[enough],
        groups[enough, 0],
        bids_of(bid, evaluation.settings.auction.reserve),
        dataset.items.advertisers[0][shown],
        dataset.items.categories[0][shown],
        outcome,
        np.asarray(dataset.propensity[test], dtype=np.float64)[rows],
        evaluation.heads,
        true,
    )


def _members(group: Array, count: int) -> Array:
    """The members of each group in their order, int64 [count, C], -1 behind them."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    kept = place < MOST
    member = np.full((count, min(MOST, int(place.max()) + 1)), -1, dtype=np.int64)
    member[ordered[kept], place[kept]] = order[kept]
    return member


def _outcome(evaluation: Evaluation, rows: Array) -> tuple[Array, bool]:
    """(what came of each row by action [N, A], whether these are true chances)."""
    if all(head in evaluation.true for head in evaluation.heads):
        true = np.stack([evaluation.true[head][rows] for head in evaluation.heads], axis=1)
        if np.isfinite(true).all():
            return true, True
    return np.nan_to_num(evaluation.labels[rows].astype(np.float64)), False


def sell(
    pools: Pools, settings: Settings, probability: Array, worth: Array, value: Value | None = None
) -> Mapping[str, Array]:
    """The auctions of the settings over every pool, by predictions [N, A]: what came of them, [G] each.

    {revenue, value, actions.<name> ...}: money paid; the clicks at what their advertisers bid for them, which
    is the most they were worth paying for; the expected number of each action. A slot counts by its exposure.
    value: other weights than those of the settings.
    """
    value = Value.of(settings, pools.heads) if value is None else value
    form, auction = settings.formats[0], settings.auction
    exposure = exposure_of_ads(form, auction, form.slots)
    limits = ((pools.advertiser, auction.per_advertiser), (pools.category, auction.per_category))
    sold = run_auctions(
        pools.padded(pools.bids, -1.0),
        pools.padded(probability[:, value.click]),
        exposure,
        bonus=pools.padded(value.utility_weight * value.utility(worth)),
        rule=auction.rule,
        reserve=auction.reserve,
        allowed=pools.member >= 0,
        caps=[Cap(np.asarray(pools.padded(of, -1)), most) for of, most in limits if most],
    )
    won = np.take_along_axis(pools.member, np.maximum(sold.winners, 0), axis=1)
    seen = np.where(sold.winners >= 0, exposure[: sold.winners.shape[1]], 0.0)
    clicks = seen * pools.outcome[won, value.click]
    found = {
        "revenue": (clicks * sold.prices).sum(axis=1),
        "value": (clicks * pools.bids[won]).sum(axis=1),
    }
    for column, name in enumerate(pools.heads):
        found[f"actions.{name}"] = (seen * pools.outcome[won, column]).sum(axis=1)
    return found
