"""Candidate search, merging with provenance, and the definition of value, against plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adstool.config import Action, Settings
from adstool.funnel import ann
from adstool.funnel.ann import AnnChoice, ExactIndex, best, build_ann, open_ann, search_any
from adstool.funnel.asked import Found
from adstool.funnel.candidates import FILLER, merge
from adstool.funnel.ivf import IvfIndex
from adstool.funnel.quota import Quota
from adstool.training.value import Value, bids_of, paid_head


def found(*positions: int) -> Found:
    """Positions with scores that fall from 1."""
    return Found(
        np.array(positions, dtype=np.int64), 1.0 / (1.0 + np.arange(len(positions), dtype=np.float32))
    )


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 35))
def test_best_is_a_stable_sort_cut_off(values: list[int], k: int) -> None:
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert best(np.array(values, dtype=np.float64), k).tolist() == wanted


@given(st.integers(1, 40), st.integers(0, 50), st.integers(0, 1000))
def test_exact_search_finds_the_largest_allowed_products(n: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors, query = random.normal(size=(n, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    allowed = random.random(n) < 0.5
    positions, scores = ExactIndex(vectors).search(query, k, allowed)
    products = [float(vector @ query) for vector in vectors]
    wanted = sorted((i for i in range(n) if allowed[i]), key=lambda i: -products[i])[:k]
    assert scores == pytest.approx([products[i] for i in wanted], abs=1e-5)
    assert set(positions.tolist()) <= set(np.flatnonzero(allowed).tolist())


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 50), st.integers(0, 1000))
def test_the_nearest_to_any_of_several_have_the_largest_product_with_one(
    n: int, m: int, k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors, queries = (random.normal(size=(rows, 4)).astype(np.float32) for rows in (n, m))
    allowed = random.random(n) < random.choice([0.2, 0.8])

    class OneByOne:
        search = ExactIndex(vectors).search

    largest = (vectors @ queries.T).max(axis=1)
    wanted = sorted((i for i in range(n) if allowed[i]), key=lambda i: -largest[i])[:k]
    for index in (ExactIndex(vectors), OneByOne()):
        positions, scores = search_any(index, queries, k, allowed)
        assert scores == pytest.approx(largest[wanted], abs=1e-5)
        assert len(set(positions.tolist())) == len(positions)
        assert scores == pytest.approx(largest[positions], abs=1e-5)


def test_a_large_corpus_is_searched_by_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(3000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000)
    choice = AnnChoice.usual(len(vectors))
    build_ann(vectors, tmp_path, "two_tower", choice)
    index = open_ann(choice, vectors, tmp_path, "two_tower")
    assert choice.kind == "ivf"
    assert isinstance(index, IvfIndex)
    allowed = random.random(3000) < 0.5
    for query in vectors[:5]:
        wanted, products = ExactIndex(vectors).search(query, 100, allowed)
        positions, scores = index.search(query, 100, allowed)
        assert allowed[positions].all()
        assert np.isin(wanted, positions).mean() >= 0.95
        assert scores[:5] == pytest.approx(products[:5], abs=1e-5)
    assert len(index.search(vectors[0], 10, np.zeros(3000, dtype=bool))[0]) == 0


def test_merge_names_the_source_with_the_best_rank() -> None:
    sources = {FILLER: found(7, 8, 9), "clip": found(9, 7), "popular": found(1, 2)}
    merged = merge(sources, Quota.equal(sources, 10))
    named = {
        int(p): (merged.names[s], int(r))
        for p, s, r in zip(merged.positions, merged.source, merged.rank, strict=True)
    }
    # 7 is first for the towers and second for clip; 9 is third for the towers and first for clip.
    assert named == {7: (FILLER, 1), 9: ("clip", 1), 1: ("popular", 1), 8: (FILLER, 2), 2: ("popular", 2)}
    assert merged.score[merged.positions.tolist().index(8)] == pytest.approx(0.5)


def test_merge_fills_up_from_the_towers() -> None:
    towers = found(*range(20))
    sources = {FILLER: towers, "clip": found(0, 1), "popular": found(0, 30), "fresh": found()}
    merged = merge(sources, Quota.equal(sources, 8))
    # Two of each are 0, 1 and 30; five more of the towers make eight.
    assert sorted(merged.positions.tolist()) == [0, 1, 2, 3, 4, 5, 6, 30]


positions = st.lists(st.integers(0, 25), unique=True, max_size=20)


@given(positions, positions, positions, st.integers(1, 30))
def test_merge_is_distinct_whole_and_as_long_as_it_can_be(
    a: list[int], b: list[int], c: list[int], total: int
) -> None:
    sources = {FILLER: found(*a), "clip": found(*b), "popular": found(*c)}
    share = max(total // 3, 1)
    merged = merge(sources, Quota.equal(sources, total))
    shown = merged.positions.tolist()
    assert len(set(shown)) == len(shown) <= total
    possible = set(a[:total]) | set(b[:share]) | set(c[:share])
    assert set(shown) <= possible | set(a)
    assert len(shown) >= min(total, len(set(a) | set(b[:share]) | set(c[:share])))
    for position, source, rank in zip(merged.positions, merged.source, merged.rank, strict=True):
        assert sources[merged.names[source]].positions[rank - 1] == position


def test_value_is_bid_times_click_and_weighted_actions() -> None:
    settings = Settings()  # click 1, long_click 2, save 4, hide -10; a unit of utility is worth .1
    value = Value.of(settings, ("save", "click", "hide", "unheard of"))
    p = np.array([[0.1, 0.2, 0.05, 0.9]])
    assert value.utility(p) == pytest.approx([0.4 + 0.2 - 0.5])
    assert value.score(p, None) == pytest.approx([0.1])
    assert value.score(p, np.array([2.0])) == pytest.approx([2.0 * 0.2 + 0.1 * 0.1])


def test_the_paid_head_is_click_or_the_first_wanted_one() -> None:
    actions = (Action("hide", positive=False), Action("buy"))
    assert paid_head(actions, ("buy", "click")) == 1
    assert paid_head(actions, ("hide", "buy")) == 1
    assert paid_head(actions, ("hide",)) == 0


def test_a_campaign_without_a_bid_bids_the_median() -> None:
    assert bids_of(np.array([1.0, np.nan, 3.0, 2.0]), 0.01).tolist() == [1.0, 2.0, 3.0, 2.0]
    assert bids_of(np.array([np.nan]), 0.01).tolist() == [0.01]
