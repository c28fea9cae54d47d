"""Item-item similarity without its matrix, against the matrix."""

from __future__ import annotations

import numpy as np
import pytest

from adstool.training.co_engagement import CoEngagement, recency_weighted

RANDOM = np.random.default_rng(0)
SEQUENCES = [RANDOM.integers(1, 12, RANDOM.integers(1, 9)) for _ in range(40)]
ITEMS = 13


def dense(shrinkage: float, damping: float) -> np.ndarray:
    """The kernel by its definition, pair by pair."""
    count = np.zeros(ITEMS)
    kernel = np.zeros((ITEMS, ITEMS))
    for one in SEQUENCES:
        for a in set(one):
            count[a] += 1
            for b in set(one) - {a}:
                kernel[a, b] += len(one) ** -damping
    for a in range(ITEMS):
        for b in range(ITEMS):
            kernel[a, b] /= max(np.sqrt((count[a] + shrinkage) * (count[b] + shrinkage)), 1e-12)
    return kernel


@pytest.mark.parametrize(("shrinkage", "damping"), [(0.0, 0.0), (20.0, 0.5)])
def test_scores_are_the_decayed_sum_of_similarities(shrinkage: float, damping: float) -> None:
    kernel = dense(shrinkage, damping)
    alike = CoEngagement(SEQUENCES, ITEMS, shrinkage, damping)
    histories = [np.array([3, 5, 5, 2]), np.array([1]), np.array([], dtype=np.int64)]
    wanted = np.zeros((3, ITEMS))
    for row, history in enumerate(histories):
        for age, code in enumerate(reversed(history.tolist())):
            wanted[row] += 0.7**age * kernel[code]
    np.testing.assert_allclose(alike.scores(histories, 0.7), wanted, atol=1e-12)


def test_the_embedding_is_the_best_of_its_width() -> None:
    values, vectors = np.linalg.eigh(dense(20.0, 0.5))
    first = np.argsort(-values)[:4]
    wanted = (vectors[:, first] * values[first]) @ vectors[:, first].T
    made = CoEngagement(SEQUENCES, ITEMS).embedding(4, seed=3).astype(np.float64)
    np.testing.assert_allclose(made @ made.T, wanted, atol=1e-5)
    # The same seed gives the same bits; wider than there are items, the rest is zero.
    np.testing.assert_array_equal(made, CoEngagement(SEQUENCES, ITEMS).embedding(4, seed=3))
    wide = CoEngagement(SEQUENCES, ITEMS).embedding(20)
    assert wide.shape == (ITEMS, 20)
    assert not wide[:, ITEMS:].any()


def test_without_any_pair_there_is_no_embedding() -> None:
    assert not CoEngagement([np.array([1]), np.array([2])], 3).embedding(2).any()
    assert not CoEngagement([], 3).embedding(2).any()


def test_repeats_in_a_history_add_up() -> None:
    past = recency_weighted([np.array([2, 1, 2])], 4, 0.5).toarray()
    np.testing.assert_allclose(past, [[0.0, 0.5, 1.25, 0.0]])
