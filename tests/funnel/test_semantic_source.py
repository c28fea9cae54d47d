"""The source `semantic` against plain loops over ids, and the index that outlives its codebooks or not."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adstool.config import Settings
from adstool.content.semantic_ids import train_semantic
from adstool.content.vectors import ItemVectors, VectorTable, load_vectors
from adstool.errors import AdstoolError
from adstool.funnel.index import build_index
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.semantic import DECAY, DEEPER, SemanticIndex
from adstool.funnel.sources import PREFIXES_OF, SOURCES
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

ids = st.lists(st.integers(0, 2), min_size=3, max_size=3)
some = st.lists(st.one_of(ids, st.just([-1, -1, -1])), min_size=1, max_size=25)


def agreement(one: list[int], other: list[int]) -> float:
    """The share of an id that another agrees with from its start, deeper codes weighing more."""
    if -1 in (one[0], other[0]):
        return 0.0
    shared = 0
    while shared < len(one) and one[shared] == other[shared]:
        shared += 1
    return sum(DEEPER**level for level in range(shared)) / sum(DEEPER**level for level in range(len(one)))


@given(some, some)
def test_scores_are_those_of_comparing_all_pairs(corpus: list[list[int]], engaged: list[list[int]]) -> None:
    index = SemanticIndex(np.array(corpus, dtype=np.int16))
    scores = index.score(np.array(engaged, dtype=np.int16))
    wanted = [sum(DECAY**i * agreement(item, one) for i, one in enumerate(engaged)) for item in corpus]
    assert scores == pytest.approx(wanted, abs=1e-5)
    assert len(index) == sum(item[0] >= 0 for item in corpus)


def test_nothing_has_an_id() -> None:
    index = SemanticIndex(np.zeros((4, 0), dtype=np.int16))
    assert len(index) == 0
    assert index.score(np.zeros((2, 0), dtype=np.int16)).tolist() == [0.0] * 4


@pytest.fixture(scope="module")
def ranker(shop: Workspace, settings: Settings) -> Ranker:
    return Ranker(shop, settings)


def test_the_source_brings_what_agrees_best_with_the_last_engagements(ranker: Ranker) -> None:
    state = ranker.index.state
    counts = np.diff(state.engagements.offsets)
    assert state.items.semantic == "r1"
    brought = 0
    for user in np.argsort(-counts)[:8]:
        request = Request.parse({"user_id": state.users.column("user_id")[int(user)].as_py()}, 5)
        asked = ranker.ask(request)
        few = asked.eligible.copy()
        few[::3] = False
        asked = dataclasses.replace(asked, eligible=few)
        found = SOURCES["semantic"](asked, 12)
        last = state.items.codes[state.last_engaged(asked.ctx, PREFIXES_OF)].tolist()
        scores = {
            p: sum(
                DECAY**i * agreement(state.items.codes[p + asked.first_row].tolist(), one)
                for i, one in enumerate(last)
            )
            for p in np.flatnonzero(few).tolist()
        }
        # Scores that differ by rounding alone are equal: then popularity decides.
        wanted = sorted(
            (p for p in scores if scores[p] > 0),
            key=lambda p: (-round(scores[p], 4), -asked.popularity[p], p),
        )
        assert found.scores == pytest.approx([scores[p] for p in found.positions.tolist()], abs=1e-4)
        assert found.scores == pytest.approx([scores[p] for p in wanted[:12]], abs=1e-4)
        assert (np.diff(found.scores) <= 0).all()
        brought += len(found.positions)
    assert brought > 40
    assert len(SOURCES["semantic"](ranker.ask(Request.parse({"user_id": "nobody"}, 5)), 9).positions) == 0


def test_an_index_keeps_to_the_codebooks_of_its_towers(shop_copy: Workspace, settings: Settings) -> None:
    ids, array = load_vectors(shop_copy, "ad")
    twin = array[ids.index("a1")]
    with open_warehouse(shop_copy, settings) as con:
        assert train_semantic(shop_copy, settings, con, {"seed": "5"}).run_id == "r2"
        con.execute("insert into ads by name select * replace ('new' as ad_id) from ads where ad_id = 'a1'")
        table = VectorTable.open(shop_copy, "ad", "by-category")
        assert table is not None
        table.write([ItemVectors("new", "new", "new", None, None, None, twin, twin)], replacing=False)
        with shop_copy.new_run("index") as run:
            assert build_index(shop_copy, settings, con, run)["semantic"] == "r1"
        items = Ranker(shop_copy, settings).index.state.items
        new, old = items.rows(["new", "a1"], "ad")
        assert items.codes[new].tolist() == items.codes[old].tolist()
        assert items.codes[new, 0] >= 0
        shutil.rmtree(shop_copy.models / "semantic" / "r1")
        with (
            pytest.raises(AdstoolError, match="semantic r1, which is gone") as gone,
            shop_copy.new_run("index") as run,
        ):
            build_index(shop_copy, settings, con, run)
        assert "adstool run" in gone.value.hint
