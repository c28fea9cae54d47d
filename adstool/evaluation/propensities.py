"""Propensities of a log that has none, fitted: the chance of each action in its context."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.errors import DataError

Array = NDArray[Any]
MOST_ACTIONS = 1000  # a model of more has no chance on so few rows
LEAST_REGULAR = 1.0  # C of the logistic regression: the prior is worth about one row a parameter


def fitted_propensities(action: Array, context: Array | None) -> Array:
    """The fitted chance of the action of each row, float64 [n].

    action: [n] of any type. context: float [n, d] or None. Without a context it is the action's share of the
    log; with one, multinomial logistic regression. What the policy looked at and `context` leaves out biases
    every estimate made with these. Raises DataError for one action or more than MOST_ACTIONS.
    """
    _, code, counts = np.unique(action, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise DataError(
            "The column of --action holds one action only: nothing can be learnt of others.",
            "Name the column of the action that was taken: --action COLUMN",
        )
    if context is None or not context.shape[1]:
        return np.asarray(counts[code] / len(code))
    if len(counts) > MOST_ACTIONS:
        raise DataError(
            f"Propensities of {len(counts):,} actions are too many to fit by context; {MOST_ACTIONS:,} go.",
            "Group the actions, or log the propensities.",
        )
    from sklearn.linear_model import LogisticRegression

    scale = context.std(axis=0)
    scaled = (context - context.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    model = LogisticRegression(C=LEAST_REGULAR, max_iter=500).fit(scaled, code)
    return np.asarray(model.predict_proba(scaled)[np.arange(len(code)), code], dtype=np.float64)


def indicators(values: Array, most: int = 100) -> Array:
    """A column of categories as 0 and 1, float64 [n, v]: its `most` most frequent values."""
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:most]
    return np.asarray((code[:, None] == kept[None, :]).astype(np.float64))
