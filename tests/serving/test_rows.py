"""Rows of eight and four bits against the matrices they are made of, kept, read back and searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adstool.funnel.ann import AnnChoice, ExactIndex, build_ann, open_ann
from adstool.serving.rows import Int8Rows, load_rows, save_rows


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def test_what_is_read_of_int8_rows_is_near_the_matrix(matrix: np.ndarray, tmp_path: Path) -> None:
    save_rows(tmp_path / "v.npy", Int8Rows.of(matrix))
    rows = load_rows(tmp_path / "v.npy")
    assert isinstance(rows, Int8Rows)
    assert rows.shape == matrix.shape
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 0.3 * matrix.nbytes + 512
    half = np.abs(matrix).max(axis=1, keepdims=True) / 127 * 0.51
    some = np.array([7, 7, 2999, 0])
    for read, wanted, step in (
        (np.asarray(rows), matrix, half),
        (rows[some], matrix[some], half[some]),
        (rows[10:13], matrix[10:13], half[10:13]),
        (np.asarray(rows.take(some)), matrix[some], half[some]),
    ):
        assert read.dtype == np.float32
        assert (np.abs(read - wanted) <= step).all()
    for other in (matrix[0], matrix[:5].T):
        assert rows @ other == pytest.approx(np.asarray(rows) @ other, abs=1e-5)
    save_rows(tmp_path / "plain.npy", matrix)
    assert np.array_equal(np.asarray(load_rows(tmp_path / "plain.npy")), matrix)
    np.save(tmp_path / "v.scale.npy", np.ones((2, 1), np.float16))
    with pytest.raises(ValueError, match="3000 rows and scales of shape"):
        load_rows(tmp_path / "v.npy")


def test_clusters_of_int8_rows_find_what_their_products_say(matrix: np.ndarray, tmp_path: Path) -> None:
    rows = Int8Rows.of(matrix)
    choice = AnnChoice("ivf", 30, 30)
    build_ann(rows, tmp_path, "items", choice)
    index = open_ann(choice, rows, tmp_path, "items")
    allowed = np.random.default_rng(1).random(len(rows)) < 0.7
    kept = []
    for query in matrix[:20]:
        found, scores = index.search(query, 50, allowed)
        wanted, products = ExactIndex(rows).search(query, 50, allowed)
        assert found.tolist() == wanted.tolist()
        assert scores == pytest.approx(products, abs=1e-6)
        kept.append(len(set(found) & set(ExactIndex(matrix).search(query, 50, allowed)[0])) / 50)
    assert np.mean(kept) > 0.95
