"""How good predictions of conversions are, on examples of which all is known. No torch here.

A kind is scored given a click on clicks, and with the click on impressions (CTCVR): scored on impressions,
the first would be blamed for what the click model does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.training.metrics import EPSILON, calibration_ratio, head_metrics

Array = NDArray[Any]
CLICK = "click"
VALUE = "value:"  # before a kind: the output whose odds are the money of a conversion in its scale


def output_names(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """What a conversion model serves: a click, a conversion of each kind given a click, and their money."""
    return (CLICK, *kinds, *(f"{VALUE}{kind}" for kind in kinds))


@dataclass(frozen=True)
class Predicted:
    """What a conversion model says of n impressions."""

    click: Array  # [n]
    conversion: Array  # [n, K], given a click
    money: Array  # [n, K], given a conversion

    @property
    def value(self) -> Array:
        """Expected money given a click, [n]."""
        return np.asarray((self.conversion * self.money).sum(axis=1))


def split_outputs(probability: Array, scales: Array) -> Predicted:
    """The parts of served outputs [n, 1 + 2 K]; `scales` [K] is the money that odds of one stand for."""
    p = probability.astype(np.float64)
    kinds = len(scales)
    odds = np.clip(p[:, 1 + kinds :], EPSILON, 1 - EPSILON)
    return Predicted(p[:, 0], p[:, 1 : 1 + kinds], odds / (1 - odds) * scales)


@dataclass(frozen=True)
class Outcome:
    """What became of n impressions whose horizon has passed."""

    clicked: Array  # bool [n]
    converted: Array  # bool [n, K]
    value: Array  # [n, K], money of all conversions of the click


def conversion_metrics(found: Predicted, known: Outcome, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """By name: click and `<kind> & click` on impressions; every kind, all conversions, value on clicks.

    calibration is predicted over observed, of the numbers of conversions or of the money; rows and positives
    are what it rests on.
    """
    clicked = known.clicked.astype(bool)
    both = (known.converted & clicked[:, None]).astype(np.float64)
    given = known.converted[clicked].astype(np.float64)
    result = head_metrics(clicked[:, None].astype(np.float64), found.click[:, None], (CLICK,))
    result |= head_metrics(given, found.conversion[clicked], kinds)
    joint = tuple(f"{kind} & click" for kind in kinds)
    result |= head_metrics(both, found.click[:, None] * found.conversion, joint)
    facts = {"rows": int(clicked.sum()), "positives": int(given.sum())}
    predicted = found.conversion[clicked].sum(axis=1)
    result["all kinds"] = {"calibration": calibration_ratio(given.sum(axis=1), predicted), **facts}
    money = known.value[clicked].sum(axis=1)
    result["value"] = {
        "calibration": calibration_ratio(money, found.value[clicked]),
        "observed": float(money.sum()),
        **facts,
    }
    return result
