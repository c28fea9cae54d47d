"""Semantic ids against brute force, scikit-learn and figures worked by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from adstool.config import SemanticIdsSettings, Settings
from adstool.content import codebooks
from adstool.content.codebooks import NO_CODE, Codebooks, pack
from adstool.content.kmeans import kmeans, means, nearest, residual_kmeans
from adstool.content.semantic_ids import chosen_settings, fit_codebooks, sizes_for
from adstool.content.semantic_quality import level_metrics, purity, reconstruction, usage
from adstool.errors import AdstoolError, UsageError


def blobs(n: int, clusters: int = 8, dim: int = 12, seed: int = 0) -> np.ndarray:
    """Unit vectors around random directions, float32 [n, dim]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dim))
    points = centres[rng.integers(clusters, size=n)] + 0.3 * rng.normal(size=(n, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=30)
def test_nearest_is_the_first_of_the_smallest_distances(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, centres = rng.integers(-3, 4, (n, 3)).astype(float), rng.integers(-3, 4, (k, 3)).astype(float)
    codes, distances = nearest(points, centres)
    wanted = [[float(((p - c) ** 2).sum()) for c in centres] for p in points]
    assert codes.tolist() == [row.index(min(row)) for row in wanted]
    assert distances == pytest.approx([min(row) for row in wanted])


def test_an_id_is_the_nearest_code_of_what_is_left_level_by_level() -> None:
    points = blobs(60)
    books = Codebooks(tuple(residual_kmeans(points, [5] * 3, 0)))
    codes = books.encode(points)
    for point, found in zip(points.astype(np.float64), codes, strict=True):
        left = point
        for level, code in zip(books.levels, found, strict=True):
            distances = [float(((left - centre) ** 2).sum()) for centre in level.astype(np.float64)]
            assert code == distances.index(min(distances))
            left = left - level[code]
    total = sum(level[codes[:, place]] for place, level in enumerate(books.levels))
    np.testing.assert_allclose(books.decode(codes.astype(int)), total, atol=1e-6)


def test_k_means_is_as_good_as_that_of_scikit_learn() -> None:
    points = blobs(600, clusters=10)
    error = nearest(points, kmeans(points, 10, np.random.default_rng(0)))[1].sum()
    reference = min(KMeans(10, n_init=1, random_state=seed).fit(points).inertia_ for seed in range(3))
    assert error <= 1.1 * reference


def test_a_centre_without_points_is_given_some() -> None:
    # Two far groups and a start in which k-means++ has drawn one point thrice: all centres end in use.
    points = np.repeat(np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 1.0], [0.0, 1.0]], dtype=np.float32), 5, 0)
    for seed in range(5):
        centres = kmeans(points, 4, np.random.default_rng(seed))
        assert len(np.unique(nearest(points, centres)[0])) == 4
        assert nearest(points, centres)[1].max() == pytest.approx(0.0, abs=1e-6)


def test_means_by_code() -> None:
    points = np.array([[0.0, 2.0], [2.0, 0.0], [5.0, 5.0]])
    start = np.array([[9.0, 9.0], [7.0, 7.0], [8.0, 8.0]])
    assert means(points, np.array([2, 2, 0]), start).tolist() == [[5.0, 5.0], [7.0, 7.0], [1.0, 1.0]]


def test_every_level_leaves_less() -> None:
    points = blobs(500, clusters=40)
    books = Codebooks(tuple(residual_kmeans(points[:400], [16] * 4, 0)))
    for vectors in (points[:400], points[400:]):
        errors = [level["relative_mse"] for level in reconstruction(books, vectors, books.encode(vectors))]
        assert errors == sorted(errors, reverse=True)
        assert len(set(errors)) == 4
        assert errors[0] < 1.0


def test_the_same_seed_gives_the_same_ids_and_another_does_not() -> None:
    points = blobs(300)
    chosen = SemanticIdsSettings(size=16)
    first, again = (fit_codebooks(points, chosen)[0].encode(points) for _ in range(2))
    other = fit_codebooks(points, SemanticIdsSettings(size=16, seed=1))[0].encode(points)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_item_gets_the_same_id_alone_and_among_others_before_and_after_saving(tmp_path: Path) -> None:
    points = blobs(200)
    books = Codebooks(tuple(residual_kmeans(points[:150], [8] * 3, 0)))
    together = books.encode(points)
    books.save(tmp_path)
    loaded = Codebooks.load(tmp_path)
    alone = np.concatenate([loaded.encode(points[n : n + 1]) for n in range(len(points))])
    np.testing.assert_array_equal(alone, together)
    assert not list(tmp_path.glob(".*"))


def test_an_item_without_a_vector_has_no_id_and_other_widths_are_refused(tmp_path: Path) -> None:
    points = blobs(40)
    points[7] = 0.0
    books = Codebooks(tuple(residual_kmeans(points, [4] * 2, 0)))
    codes = books.encode(points)
    assert codes[7].tolist() == [NO_CODE, NO_CODE]
    assert (np.delete(codes, 7, axis=0) >= 0).all()
    with pytest.raises(AdstoolError, match="of vectors of 12"):
        books.encode(np.ones((2, 5), dtype=np.float32))
    (tmp_path / "codebooks.npz").write_bytes(b"PK no")
    with pytest.raises(AdstoolError, match="cannot be used"):
        Codebooks.load(tmp_path)


def test_packed_ids_are_ordered_as_ids_are() -> None:
    codes = np.array([[0, 255, 3], [0, 1, 9], [255, 0, 0], [NO_CODE, NO_CODE, NO_CODE]], dtype=np.int16)
    assert pack(codes).tolist() == [255 * 256 + 3, 256 + 9, 255 * 65536, -1]
    ordered = codes[np.argsort(pack(codes))].tolist()
    assert ordered == sorted(codes.tolist())


def test_usage_by_hand() -> None:
    # Level 1: codes 0 0 0 1 of 4: entropy of (3/4, 1/4). Level 2: 0 1 1 1. Prefixes: 00 01 01 11.
    found = usage(np.array([[0, 0], [0, 1], [0, 1], [1, 1]]), (4, 2))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found[0] == {
        "size": 4,
        "perplexity": pytest.approx(math.exp(entropy)),
        "dead": 2,
        "prefixes": 2,
        "collisions": 0.75,
    }
    assert (found[1]["dead"], found[1]["prefixes"], found[1]["collisions"]) == (0, 3, 0.5)


def test_purity_by_hand_and_chance_by_enumeration() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 0], [1, 0], [1, 0]])
    pairs = np.array([[0, 1, 3], [0, 2, 1], [1, 3, 2], [3, 4, 2]])
    first, second = purity(codes, pairs)
    assert first["purity"] == pytest.approx((3 + 1 + 2) / 8)
    assert second["purity"] == pytest.approx((1 + 2) / 8)
    often = np.array([4, 5, 1, 4, 2]) / 16  # how often each item is in a pair
    distinct = [(a, b) for a, b in itertools.product(range(5), repeat=2) if a != b]
    for depth, level in ((1, first), (2, second)):
        same = [(a, b) for a, b in distinct if codes[a, :depth].tolist() == codes[b, :depth].tolist()]
        total = sum(often[a] * often[b] for a, b in distinct)
        assert level["popularity_matched"] == pytest.approx(sum(often[a] * often[b] for a, b in same) / total)
        assert level["random"] == pytest.approx(len(same) / len(distinct))


def test_metrics_have_a_row_a_level_and_no_purity_without_pairs() -> None:
    points = blobs(50)
    books = Codebooks(tuple(residual_kmeans(points, [4] * 2, 0)))
    codes = books.encode(points).astype(np.int64)
    assert list(level_metrics(books, points, codes)) == ["1", "2"]
    assert "purity" not in level_metrics(books, points, codes, np.zeros((0, 3), dtype=np.int64))["1"]
    assert level_metrics(books, points[:0], codes[:0]) == {}


@given(st.integers(2, 10**7), st.integers(1, 6), st.integers(0, 256).filter(lambda size: size != 1))
def test_sizes_stay_within_what_the_catalogue_fills(items: int, levels: int, asked: int) -> None:
    sizes = sizes_for(items, levels, asked)
    assert len(sizes) == levels
    for size in sizes:
        assert 2 <= size <= 256
        assert size == 2 or items / size >= 4
        assert not asked or size <= asked
    assert not asked or len(set(sizes)) == 1


def test_sizes_by_hand() -> None:
    assert sizes_for(1200, 3, 0) == [16, 64, 64]  # 1200 / 20 = 60, nearest to 64
    assert sizes_for(7000, 3, 0) == [64, 256, 256]
    assert sizes_for(50, 2, 0) == [2, 2]
    assert sizes_for(1000, 2, 300) == [250, 250]


def test_what_cannot_be_made_is_wrong_usage() -> None:
    assert chosen_settings(Settings(), {"levels": "4", "method": "rqvae"}).levels == 4
    for wrong in ({"levels": "7"}, {"levels": "0"}, {"size": "257"}, {"size": "1"}, {"method": "lsh"}):
        with pytest.raises(UsageError):
            chosen_settings(Settings(), wrong)
    for wrong in ({"size": "many"}, {"depth": "3"}):
        with pytest.raises(UsageError, match=r"semantic ids|whole number"):
            chosen_settings(Settings(), wrong)


def test_many_items_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(100)
    points[::9] = 0.0
    books = Codebooks(tuple(residual_kmeans(points, [5] * 2, 0)))
    whole = books.encode(points)
    monkeypatch.setattr(codebooks, "CHUNK", 7)
    np.testing.assert_array_equal(books.encode(points), whole)
