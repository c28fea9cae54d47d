"""Dice that depend on what they are thrown for, not on when: common random numbers for two arms.

The die of a request, an ad and a purpose is a hash of the three and a seed, so that two arms, whatever order
they go in and whatever else they show, see the same user click on the same ad at the same chance.
"""

from __future__ import annotations

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
CLICK, NOISE, ARM = 1, 2, 3  # purposes


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return np.asarray(x ^ (x >> np.uint64(31)))


def dice(seed: int, purpose: int, *keys: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64 of the shape that the keys (ints of 0 and up) broadcast to."""
    with np.errstate(over="ignore"):
        state = _mix(np.asarray([seed], dtype=np.uint64) * _STEP + np.uint64(purpose))
        for key in keys:
            state = _mix(state ^ (np.asarray(key).astype(np.uint64) * _STEP + _STEP))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
