"""The source `sequence`: what the trained model says, of what the user had engaged with at the request."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.evaluation.context import Evaluation
from adstool.evaluation.retrieval import evaluate_retrieval
from adstool.features.item_codes import ItemCodes, code_sequence
from adstool.funnel.ann import ExactIndex
from adstool.funnel.candidates import retrieve
from adstool.funnel.index import build_index, load_index
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sequence import SequenceIndex
from adstool.funnel.sources import SOURCES, sources_of
from adstool.models.registry import load_model
from adstool.models.user_sequence import UserSequence
from adstool.pipeline import check_stage, record
from adstool.serving.export import export_run
from adstool.stages import BY_NAME, Job
from adstool.training.train import TrainOptions, train_model
from adstool.training.user_sequence import scores_of
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, read_json, write_json


@pytest.fixture(scope="module")
def with_users(shop: Workspace, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The small workspace with users' vectors and an index that has them."""
    ws = Workspace(Path(shutil.copytree(shop.root, tmp_path_factory.mktemp("users") / "shop")))
    with open_warehouse(ws, settings) as con:
        job = Job(ws, settings, con)
        record(ws, settings, "index", {}, datetime.now(UTC))
        assert "vectors" not in check_stage(job, BY_NAME["index"]).reason
        options = TrainOptions("", {"dim": "16", "layers": "1", "repeats": "true"}, 2, 64, 0, None)
        train_model(ws, settings, con, "users", options, export=export_run)
        assert "the users' vectors changed" in check_stage(job, BY_NAME["index"]).reason
        with ws.new_run("index") as run:
            built = build_index(ws, settings, con, run)
    assert 0 < built["sources"]["sequence"]["rows"] <= built["rows"]
    return ws


@pytest.fixture(scope="module")
def ranker(with_users: Workspace, settings: Settings) -> Ranker:
    return Ranker(with_users, settings)


def test_it_finds_what_the_trained_model_scores_highest(ranker: Ranker, with_users: Workspace) -> None:
    state, run = ranker.index.state, with_users.require_run("users", "train users")
    model = load_model(run)
    assert isinstance(model, UserSequence)
    code_of = ItemCodes.load(run).of_rows(state.items)
    busiest = np.argsort(-np.diff(state.engagements.offsets))[:6]
    for user in busiest.tolist():
        asked = ranker.ask(Request.parse({"user_id": state.users.column("user_id")[user].as_py()}, 5))
        few = asked.eligible.copy()
        few[::3] = False
        asked = dataclasses.replace(asked, eligible=few)
        history = code_sequence(state.engagements, code_of, asked.ctx.start, asked.ctx.end)
        code = code_of[asked.first_row : asked.first_row + len(few)]
        scores = scores_of(model, [history])[0][code]
        able = np.flatnonzero(few & (code > 0))
        wanted = able[np.argsort(-scores[able], kind="stable")][:12]
        found = SOURCES["sequence"](asked, 12)
        np.testing.assert_allclose(found.scores, scores[wanted], atol=1e-4)
        assert set(found.positions.tolist()) <= set(able.tolist())
        np.testing.assert_allclose(scores[found.positions], found.scores, atol=1e-4)


def test_it_reads_nothing_after_the_request(ranker: Ranker) -> None:
    state = ranker.index.state
    user = int(np.argmax(np.diff(state.engagements.offsets)))
    times = state.engagements.ts[state.engagements.offsets[user] : state.engagements.offsets[user + 1]]
    name = state.users.column("user_id")[user].as_py()
    middle, first = int(times[len(times) // 2]), int(times[0])
    sequence = ranker.index.sequence
    assert sequence is not None
    before, after = (
        sequence.history(state, state.request(name, moment)) for moment in (middle, int(times[-1]) + 1)
    )
    assert 0 < len(before) < len(after)
    np.testing.assert_array_equal(after[: len(before) - 1], before[:-1])
    assert np.abs(sequence.user(before) - sequence.user(after)).max() > 1e-4
    nothing = state.request(name, first)
    assert len(sequence.history(state, nothing)) == 0
    assert len(sequence.search(state, nothing, 9, np.ones(60, dtype=bool))[0]) == 0


def test_who_engaged_with_nothing_is_left_to_the_other_sources(ranker: Ranker) -> None:
    asked = ranker.ask(Request.parse({"user_id": "nobody"}, 5))
    assert len(SOURCES["sequence"](asked, 9).positions) == 0
    assert len(retrieve(asked, 20)) == 20


def test_where_nothing_repeats_what_was_engaged_with_is_left_out(ranker: Ranker, tmp_path: Path) -> None:
    index = ranker.index
    folder = Path(shutil.copytree(index.directory / "sequence", tmp_path / "sequence"))
    config = read_json(folder / "config.json")
    assert config["repeats"] is True
    write_json(folder / "config.json", {**config, "repeats": False})
    first, vectors = index.corpus.first_row, SequenceIndex.load_vectors(folder)
    once = SequenceIndex(folder, index.state.items, first, vectors, ExactIndex(vectors))
    user = int(np.argmax(np.diff(index.state.engagements.offsets)))
    ctx = index.state.request(index.state.users.column("user_id")[user].as_py())
    engaged = set(index.state.last_engaged(ctx, 1000).tolist())
    everything = np.ones(len(vectors), dtype=bool)
    assert index.sequence is not None
    again = set((index.sequence.search(index.state, ctx, 60, everything)[0] + first).tolist())
    new = set((once.search(index.state, ctx, 60, everything)[0] + first).tolist())
    assert again & engaged
    assert new == again - engaged


def test_without_the_model_it_takes_no_share(shop: Workspace, settings: Settings, ranker: Ranker) -> None:
    plain = Ranker(shop, settings)
    asked = plain.ask(Request.parse({"user_id": "u1"}, 5))
    assert asked.sequence is None
    assert len(SOURCES["sequence"](asked, 9).positions) == 0
    assert "sequence" not in retrieve(asked, 20).names
    assert list(sources_of(asked)) == [name for name in SOURCES if name != "sequence"]
    asked = ranker.ask(Request.parse({"user_id": "u1"}, 5))
    assert retrieve(asked, 20).names == tuple(SOURCES)


def test_it_is_evaluated_and_ranked_as_any_source(
    with_users: Workspace, settings: Settings, ranker: Ranker
) -> None:
    with open_warehouse(with_users, settings, read_only=True) as con:
        figures = evaluate_retrieval(Evaluation(with_users, settings, con))["sources"]["sequence"]
    assert 0 <= figures["recall@10"] <= 1
    assert figures["candidates"] > 0
    line = ranker.rank({"user_id": "u1", "k": 5})
    assert len(line["ads"]) == 5


def test_a_damaged_index_is_said(with_users: Workspace, tmp_path: Path) -> None:
    run = with_users.require_run("index", "index")
    broken = Path(shutil.copytree(run, tmp_path / "index"))
    (broken / "sequence" / "vectors.npy").write_bytes(b"")
    with pytest.raises(AdstoolError, match="no whole index"):
        load_index(broken)
