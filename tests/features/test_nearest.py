"""The nearest events of a long history against a loop over all of them, in training and in serving."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from features.conftest import SMALL, Built

from adstool.features import nearest
from adstool.features.dataset import Dataset
from adstool.features.engagements import NEAREST_INPUTS, Engagements, SequenceNeeds
from adstool.features.nearest import Likeness, nearest_of_examples, nearest_places
from adstool.features.state import ServingState

NEEDS = SequenceNeeds(content=2, nearest=3)


def items_of(content: np.ndarray, category: np.ndarray) -> Any:
    return SimpleNamespace(content=content.astype(np.float32), categories=(category.astype(np.int32), []))


def test_likeness_is_the_cosine_within_the_rounding_of_int8() -> None:
    rng = np.random.default_rng(0)
    content = rng.normal(size=(40, 24))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    content[5] = 0.0
    likeness = Likeness.of(items_of(content, np.r_[np.zeros(20), np.full(19, 1), -1]))
    assert likeness.vectors.dtype == np.int8
    assert np.abs(likeness.vectors * likeness.scale[:, None] - content).max() <= likeness.scale.max() * 0.501
    found = likeness.between(np.arange(40), np.arange(40))
    seen = np.delete(np.arange(40), 5)
    np.testing.assert_allclose(
        found[np.ix_(seen, seen)], (content @ content.T)[np.ix_(seen, seen)], atol=0.01
    )
    # Without a vector, items of one category are near; one of no category is near to nothing.
    np.testing.assert_array_equal(found[5], np.r_[np.full(20, 0.5), np.zeros(20)])


@pytest.mark.parametrize("window", [10_000, 7])
def test_the_nearest_before_the_request_are_found(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "WINDOW", window)
    monkeypatch.setattr(nearest, "_BLOCK", 60)  # a few candidates at once
    rng = np.random.default_rng(1)
    content = rng.integers(0, 2, size=(12, 3)) + np.eye(3)[2]  # few values: many are equally near
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    likeness = Likeness.of(items_of(content, np.zeros(12)))
    sizes = np.array([0, 25, 3, 14])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    item = rng.integers(0, 12, offsets[-1]).astype(np.int32)
    engagements = Engagements(offsets, np.arange(len(item)), item, np.ones(len(item), np.int8))
    user = rng.integers(-1, 4, 60)
    ends = np.where(user >= 0, offsets[user] + rng.integers(0, sizes[np.maximum(user, 0)] + 1), 0)
    candidates = rng.integers(0, 12, 60)
    got = nearest_of_examples(engagements, likeness, user, ends, candidates, 4)
    assert got.dtype == np.int32
    assert (got >= 0).any(axis=1).sum() > 30
    for row in range(60):
        first = max(offsets[user[row]], ends[row] - window) if user[row] >= 0 else 0
        places = list(range(first, ends[row])) if user[row] >= 0 else []
        alike = likeness.between(candidates[row : row + 1], item[places])[0] if places else []
        best = sorted(zip(np.round(np.asarray(alike) * 2**20), places, strict=True), reverse=True)[:4]
        wanted = sorted((place for _, place in best), reverse=True)
        assert got[row].tolist() == wanted + [-1] * (4 - len(wanted))


def test_each_candidate_gets_what_it_gets_alone() -> None:
    rng = np.random.default_rng(2)
    likeness = Likeness.of(items_of(rng.normal(size=(30, 8)), np.zeros(30)))
    item = rng.integers(0, 30, 50).astype(np.int32)
    engagements = Engagements(np.array([0, 50]), np.arange(50), item, np.ones(50, np.int8))
    candidates = np.arange(30)
    together = nearest_places(engagements, likeness, 0, np.full(30, 41), candidates, 5)
    for candidate in candidates:
        one = nearest_places(engagements, likeness, 0, np.array([41]), candidates[[candidate]], 5)
        assert one[0].tolist() == together[candidate].tolist()


def test_the_served_inputs_are_those_of_the_examples(built: Built) -> None:
    dataset = built.dataset
    rows = np.flatnonzero(dataset.history_end > dataset.history_start + 3)[-6:]
    wanted = dataset.batch(rows, NEEDS)
    assert wanted["nearest_content"].shape == (6, 3, dataset.content_dim)
    for place, row in enumerate(rows):
        ts = int(dataset.ts[row])
        moment = np.datetime64(ts, "us").item()
        state = ServingState.build(
            built.con, built.ws, SMALL, dataset.encoder.spec, built.items, moment.replace(tzinfo=None)
        )
        user = dataset.users.column("user_id")[int(dataset.user[row])].as_py()
        context = state.request(user, ts)
        candidates = np.asarray([dataset.item_row[row], 0, 1])
        found = state.inputs(dataset.encoder, context, candidates, NEEDS)
        for name in NEAREST_INPUTS:
            assert len(found[name]) == 3
            np.testing.assert_allclose(found[name][0], wanted[name][place], atol=1e-5, err_msg=name)


def test_offsets_into_the_log_are_stored_once_and_read_again(built: Built) -> None:
    dataset = built.dataset
    made = dataset.nearest(slice(0, len(dataset)), 3)
    path = dataset.directory / "nearest_3.npy"
    assert path.stat().st_size == pytest.approx(len(dataset) * 3 * 4, abs=256)
    assert (
        (made < dataset.history_end[:, None]) & ((made >= dataset.history_start[:, None]) | (made < 0))
    ).all()
    changed = np.load(path)
    changed[0] = -1
    np.save(path, changed)
    again = Dataset(Path(dataset.directory), dataset.items, dataset.actions)
    assert (again.nearest(np.array([0]), 3) == -1).all()
    np.save(path, made)
