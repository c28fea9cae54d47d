"""What another policy would have earned, from a log of what one policy did: one row an action.

A row has the reward r, the chance p with which the log's policy took the action it took (its propensity), and
the chance t with which the target policy takes the same action there; w = t / p is its importance weight.

- ips: mean w r (Horvitz and Thompson 1952). Unbiased where p is right and positive wherever t is.
- snips: Σ w r / Σ w (Swaminathan and Joachims 2015). Less variance for a bias that fades with rows.
- dr: mean of q_t + w (r - q), q a model of the action's reward and q_t its mean over the target's actions
  (Dudík, Langford and Li 2011). Unbiased when p is right or q is.
- switch_dr: dr in which rows with w over a threshold count by the model alone (Wang, Agarwal and Dudík 2017).
- mips: ips with the mean weight of all rows that look alike, by what the action is rather than which one it
  is (Saito and Joachims 2022). Right when the reward depends on nothing else of the action.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import DataError
from adstool.evaluation.bootstrap import Estimate, Resampler, estimate

Array = NDArray[Any]
THRESHOLDS = 20  # candidates of the threshold of Switch-DR
CONFIDENCE = 0.05  # that the bias of Switch-DR is larger than what its threshold is chosen by
TOP = 0.01  # the share of rows whose part of all weight is told


@dataclass(frozen=True)
class LoggedActions:
    """A log and a target policy, one row an action; all float64 [n].

    q_hat is a model's reward of the action taken, q_target the mean of that model over the target's actions.
    Without q_target it is q_hat where that is the same for every action, else estimated from the log; without
    both, the model is the mean reward.
    Raises DataError for chances outside [0, 1], rewards that are not finite, or no row.
    """

    reward: Array
    propensity: Array
    target: Array
    q_hat: Array | None = None
    q_target: Array | None = None

    def __post_init__(self) -> None:
        """Check every column."""
        if not len(self.reward):
            raise DataError("The log has no row.", "Give a file with at least one row below its names.")
        for name in ("reward", "propensity", "target", "q_hat", "q_target"):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) != len(self.reward):
                raise DataError(
                    f"Column {name} has {len(values)} rows, reward {len(self.reward)}.",
                    f"Give {name} as many rows.",
                )
            chance = name in ("propensity", "target")
            wrong = ~np.isfinite(values) | ((values < 0) | (values > 1) if chance else False)
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise DataError(
                    f"{name} is {values[row]} in row {row + 1}: {int(wrong.sum()):,} rows have "
                    f"{'no probability' if chance else 'no number'} there.",
                    "Leave those rows out, or mend them.",
                )

    @cached_property
    def weight(self) -> Array:
        """t / p; 0 where both are 0, infinite where the log cannot have done what the target would do."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(self.target > 0, self.target / self.propensity, 0.0))

    @cached_property
    def model(self) -> tuple[Array, Array]:
        """(q of the action taken, q over the target's actions), each [n]."""
        if self.q_hat is None:
            constant = np.full(len(self.reward), self.reward.mean())
            return constant, constant
        return self.q_hat, self.q_hat if self.q_target is None else self.q_target


def effective_size(weight: Array) -> float:
    """How many rows of equal weight say as much: (Σ w)² / Σ w² (Kish 1965); 0 without any weight."""
    squares = float(np.dot(weight, weight))
    return float(weight.sum() ** 2 / squares) if squares > 0 else 0.0


def top_share(weight: Array) -> float:
    """The share of all weight that the heaviest hundredth of the rows holds (at least one row)."""
    total = float(weight.sum())
    count = max(1, int(np.ceil(TOP * len(weight))))
    heaviest = np.partition(weight, len(weight) - count)[len(weight) - count :]
    return float(heaviest.sum() / total) if total > 0 else float("nan")


def overlap(log: LoggedActions, users: Resampler) -> dict[str, Any]:
    """How well the log covers what the target does.

    mean_weight is 1 in expectation where it does; below, the target does things that the log never shows.
    """
    weight = log.weight
    if not np.isfinite(weight).all():
        return {"impossible_rows": int(np.isinf(weight).sum())}
    mean = users.ratio(weight, np.ones(len(weight)))
    return {
        "impossible_rows": 0,
        "max_weight": float(weight.max()),
        "top_1_percent_share": top_share(weight),
        "mean_weight": mean.value,
        "mean_weight_interval": mean.interval,
        "unused_rows": int((weight == 0).sum()),
    }


def ips(log: LoggedActions, users: Resampler) -> Estimate:
    """Inverse propensity scoring."""
    return users.ratio(log.weight * log.reward, np.ones(len(log.reward)))


def snips(log: LoggedActions, users: Resampler) -> Estimate:
    """Self-normalised inverse propensity scoring."""
    return users.ratio(log.weight * log.reward, log.weight)


def dr(log: LoggedActions, users: Resampler) -> Estimate:
    """Doubly robust."""
    return _modelled(log, users, log.weight * (log.reward - log.model[0]))


def switch_dr(log: LoggedActions, users: Resampler, threshold: float | None = None) -> tuple[Estimate, float]:
    """Switch-DR and the threshold it used: the given one, else the one of `switch_threshold`."""
    at = switch_threshold(log) if threshold is None else threshold
    correction = np.where(log.weight <= at, log.weight * (log.reward - log.model[0]), 0.0)
    return _modelled(log, users, correction), at


def model_differs(log: LoggedActions, users: Resampler) -> bool:
    """Whether q_hat, which nothing says the mean over the target's actions of, differs between actions: a
    model that does not has the same mean with the weights and without."""
    if log.q_hat is None or log.q_target is not None:
        return False
    shift = users.ratio((log.weight - 1) * log.q_hat, np.ones(len(log.q_hat)))
    return bool(shift.low > 0 or shift.high < 0)


def _modelled(log: LoggedActions, users: Resampler, correction: Array) -> Estimate:
    """The mean of the model over the target's actions plus the mean correction [n]."""
    q, direct = log.model
    rows = np.ones(len(q))
    if not model_differs(log, users):
        return users.ratio(direct + correction, rows)
    # The log itself tells the model's mean over the target's actions: SNIPS of q, consistent for any model.
    return users.of_sums(lambda c, n, wq, w: c / n + wq / w, correction, rows, log.weight * q, log.weight)


def switch_threshold(log: LoggedActions) -> float:
    """The threshold of the least bound on the squared error: sample variance, and the square of a bias of
    which what was left out is the estimate and Bernstein's inequality the margin."""
    q, direct = log.model
    rows = len(q)
    correction = log.weight * (log.reward - q)
    positive = log.weight[log.weight > 0]
    if not len(positive):
        return 0.0
    best, chosen = np.inf, 0.0
    for at in np.unique(np.quantile(positive, np.linspace(0, 1, THRESHOLDS + 1), method="higher")):
        inside = log.weight <= at
        left_out = np.where(inside, 0.0, correction)
        margin = np.sqrt(2 * left_out.var() * np.log(2 / CONFIDENCE) / rows)
        error = (direct + np.where(inside, correction, 0.0)).var() / rows
        error += (abs(left_out.mean()) + margin) ** 2
        if error <= best:
            best, chosen = error, float(at)
    return chosen


def mips(log: LoggedActions, users: Resampler, cells: Array) -> tuple[Estimate, float]:
    """Marginalised IPS and the effective size of its weights.

    cells: int [n], the cell of each row: what its action looks like, and the context as far as the policies
    depend on it. The weight of a cell is the mean of its rows' weights, estimated anew in every draw.
    """
    _, cell = np.unique(cells, return_inverse=True)
    size = int(cell.max()) + 1
    drawn = np.empty(len(users.counts))
    for draw, counts in enumerate(users.counts):
        times = counts[users.user].astype(np.float64)
        rows = np.bincount(cell, weights=times, minlength=size)
        weight = np.bincount(cell, weights=times * log.weight, minlength=size)
        reward = np.bincount(cell, weights=times * log.reward, minlength=size)
        mean = np.divide(weight, rows, out=np.zeros(size), where=rows > 0)
        drawn[draw] = float(mean @ reward) / times.sum()
    marginal = np.bincount(cell, weights=log.weight) / np.bincount(cell)
    return estimate(drawn), effective_size(marginal[cell])


def cells_of(*columns: Array) -> Array:
    """One number for each combination of the columns' values, int64 [n]; columns of any type, each [n]."""
    number = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        _, number = np.unique(number * len(values) + codes, return_inverse=True)
    return number


def cells_of_vectors(vectors: Array, cells: int | None = None, seed: int = 0) -> Array:
    """Clusters of content vectors [n, d] by k-means, int64 [n]: what `mips` takes for an action's looks.

    cells: how many; None takes the square root of the number of different vectors.
    """
    from adstool.content.kmeans import kmeans, nearest

    different, place = np.unique(np.asarray(vectors, dtype=np.float32), axis=0, return_inverse=True)
    count = max(1, min(len(different), cells or int(np.sqrt(len(different)))))
    centres = kmeans(different, count, np.random.default_rng(seed))
    return np.asarray(nearest(different, centres)[0][place.reshape(-1)])
