"""The index of clusters against a brute-force search."""

from pathlib import Path

import numpy as np
import pytest

from adstool.errors import AdstoolError
from adstool.funnel.ann import AnnChoice, ExactIndex, build_ann, open_ann

ROWS, DIM, CLUSTERS = 3000, 8, 40


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    drawn[ROWS // 2 :] = drawn[: ROWS - ROWS // 2]  # every vector twice: equal products go by position
    return drawn


@pytest.fixture(scope="module")
def folder(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ivf")
    build_ann(vectors, made, "items", AnnChoice("ivf", CLUSTERS))
    return made


def search(folder: Path, vectors: np.ndarray, probes: int, k: int, allowed: np.ndarray) -> list[list[int]]:
    index = open_ann(AnnChoice("ivf", CLUSTERS, probes), vectors, folder, "items")
    queries = np.random.default_rng(1).standard_normal((20, DIM)).astype(np.float32)
    return [index.search(query, k, allowed)[0].tolist() for query in queries]


@pytest.mark.parametrize("k", [1, 10, 500, ROWS, 2 * ROWS])
def test_all_clusters_looked_into_find_what_brute_force_finds(
    folder: Path, vectors: np.ndarray, k: int
) -> None:
    allowed = np.random.default_rng(2).random(ROWS) < 0.7
    index = open_ann(AnnChoice("ivf", CLUSTERS, CLUSTERS), vectors, folder, "items")
    for query in np.random.default_rng(1).standard_normal((5, DIM)).astype(np.float32):
        positions, scores = index.search(query, k, allowed)
        wanted, products = ExactIndex(vectors).search(query, k, allowed)
        np.testing.assert_allclose(scores, products, rtol=1e-5, atol=1e-6)
        # Products of slices round differently, so that only those further apart have one order.
        assert set(positions[scores > scores[-1] + 1e-5]) <= set(wanted)
        assert len(set(positions)) == len(positions) == len(wanted)


def test_few_clusters_find_most(folder: Path, vectors: np.ndarray) -> None:
    everything = np.ones(ROWS, dtype=bool)
    few = search(folder, vectors, CLUSTERS // 2, 20, everything)
    all_ = search(folder, vectors, CLUSTERS, 20, everything)
    assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(few, all_, strict=True)]) > 0.9


@pytest.mark.parametrize("share", [0.02, 0.001, 0.0])
def test_what_is_not_allowed_is_passed_over_until_enough_is_found(
    folder: Path, vectors: np.ndarray, share: float
) -> None:
    allowed = np.random.default_rng(3).random(ROWS) < share
    for found in search(folder, vectors, 1, 10, allowed):
        assert len(found) == min(10, allowed.sum())
        assert allowed[found].all()


def test_the_same_vectors_give_the_same_files(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    build_ann(vectors, tmp_path, "items", AnnChoice("ivf", CLUSTERS))
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_a_damaged_index_is_named(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(AdstoolError, match="holds no index 'items'"):
        open_ann(AnnChoice("ivf", CLUSTERS, 1), vectors, tmp_path, "items")
