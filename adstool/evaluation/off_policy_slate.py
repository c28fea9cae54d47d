"""Off-policy value of whole slates: rows are positions of slates, and the value is the reward of a slate.

With w_k the weight of position k and W_k = w_1 ... w_k, a slate of K positions is worth

- standard: W_K Σ r_k, whatever the user's behaviour, with a variance that grows with K.
- independent: Σ w_k r_k (Li et al. 2018), where a position's reward depends on its own item alone.
- cascade: Σ W_k r_k (McInerney et al. 2020), where it may depend on what stands above, which is also right
  for propensities that are conditional on the slots above.
- cascade_dr: Σ W_k (r_k - q_k) + W_{k-1} q_t,k (Kiyohara et al. 2022), the same with a model of the reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import DataError
from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.off_policy import LoggedActions, effective_size

Array = NDArray[Any]


@dataclass(frozen=True)
class Slates:
    """The rows of a log by slate, positions rising: order [n], first [n] bool, last [n] bool, above [n]."""

    order: Array  # rows of the log
    first: Array  # whether a row, in that order, begins a slate
    last: Array  # whether it ends one
    running: Array  # W_k of each row, in that order
    above: Array  # W_{k-1}


def slates_of(log: LoggedActions, slate: Array, position: Array) -> Slates:
    """The slates of a log; slate int [n], position number [n].

    Raises DataError when a slate has two rows of one position.
    """
    order = np.lexsort((position, slate))
    groups, places = slate[order], position[order]
    first = np.r_[True, groups[1:] != groups[:-1]]
    twice = ~first[1:] & (places[1:] == places[:-1])
    if twice.any():
        row = int(order[1:][twice][0]) + 1
        raise DataError(
            f"Two rows of one slate have the same position (row {row} is one of them).",
            "Give every slate an id of its own in the column of --request.",
        )
    above = np.empty(len(order))
    running = log.weight[order]
    # Position by position over all slates at once: a slate is short, the log is not.
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(int(rank.max()) + 2))
    above[first] = 1.0
    for k in range(1, len(bounds) - 1):
        rows = by_rank[bounds[k] : bounds[k + 1]]
        above[rows] = running[rows - 1]
        running[rows] *= above[rows]
    return Slates(order, first, np.r_[first[1:], True], running, above)


def slate_values(log: LoggedActions, users: Resampler, slate: Array, position: Array) -> dict[str, Any]:
    """Every estimator of the value of a slate: {name: {value, interval, ess}}, with slates, positions and
    the logged value. users: the users behind the rows, and a slate is one user's. cascade_dr is left out
    where the log has no q_target."""
    slates = slates_of(log, slate, position)
    order, count = slates.order, int(slates.first.sum())
    reward, weight = log.reward[order], log.weight[order]
    number = np.cumsum(slates.first) - 1
    earned = np.bincount(number, weights=reward)[number]
    terms = {
        "standard": np.where(slates.last, slates.running * earned, 0.0),
        "independent": weight * reward,
        "cascade": slates.running * reward,
    }
    if log.q_target is not None:
        q, direct = (column[order] for column in log.model)
        terms["cascade_dr"] = slates.running * (reward - q) + slates.above * direct
    sizes = {
        "standard": effective_size(slates.running[slates.last]),
        "independent": effective_size(weight),
        "cascade": effective_size(slates.running[slates.last]),
    }
    sizes["cascade_dr"] = sizes["cascade"]
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    slate_of_row = slates.first[back].astype(np.float64)  # one a slate
    found: dict[str, Any] = {"slates": count, "positions": len(order) / count}
    logged = users.ratio(log.reward, slate_of_row)
    found["logged"] = {"value": logged.value, "interval": logged.interval}
    for name, term in terms.items():
        value = users.ratio(term[back], slate_of_row)
        found[name] = {"value": value.value, "interval": value.interval, "ess": sizes[name]}
    return found
