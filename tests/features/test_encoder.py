"""Vocabularies, unknown buckets and the saved form of an encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from features.conftest import SMALL, Built
from hypothesis import given
from hypothesis import strategies as st

from adstool.config import Action, FeatureSettings, Settings
from adstool.errors import AdstoolError
from adstool.features.encoder import FeatureEncoder, Vocabulary, unknown_bucket
from adstool.features.spec import FeatureSpec, default_spec


@given(
    counts=st.dictionaries(st.text(min_size=1, max_size=6), st.integers(1, 20), max_size=20),
    asked=st.lists(st.none() | st.text(max_size=6), max_size=40),
    buckets=st.integers(1, 5),
)
def test_a_column_is_encoded_as_its_values_one_by_one(
    counts: dict[str, int], asked: list[str | None], buckets: int
) -> None:
    vocabulary = Vocabulary.of(counts, 5, buckets)
    codes = vocabulary.encode(asked)
    assert codes.dtype == np.int32
    assert codes.tolist() == [vocabulary.code(value) for value in asked]
    kept = {value for value, count in counts.items() if count >= 5}
    for value, code in zip(asked, codes.tolist(), strict=True):
        if not value:
            assert code == 0
        elif value in kept:
            assert buckets < code < vocabulary.cardinality
        else:
            assert 1 <= code <= buckets
    known = [vocabulary.code(value) for value in kept]
    assert sorted(known) == list(range(1 + buckets, 1 + buckets + len(kept)))


def test_unknown_values_keep_their_bucket_on_every_machine() -> None:
    assert [unknown_bucket(value, 16) for value in ("u1", "Überwurf", "pin:p7")] == [3, 7, 9]
    spread = np.bincount([unknown_bucket(f"u{n}", 16) for n in range(16_000)], minlength=17)
    assert spread[0] == 0
    assert 850 < spread[1:].min() <= spread.max() < 1150


def test_frequent_values_come_first_and_chunks_do_not_matter() -> None:
    vocabulary = Vocabulary.of({"b": 9, "a": 9, "rare": 1, "c": 30}, 2, 4)
    assert vocabulary.values.to_pylist() == ["c", "a", "b"]
    chunks = pa.chunked_array([pa.array(["a", None]), pa.array(["new", "c"])])
    assert vocabulary.encode(chunks).tolist() == [6, 0, unknown_bucket("new", 4), 5]


def test_a_saved_encoder_is_the_same(built: Built, tmp_path: Path) -> None:
    encoder = built.dataset.encoder
    encoder.save(tmp_path)
    loaded = FeatureEncoder.load(tmp_path)
    assert loaded.spec == encoder.spec
    assert loaded.cardinalities == encoder.cardinalities
    assert loaded.priors == encoder.priors
    assert loaded.content_dim == encoder.content_dim == 8
    np.testing.assert_array_equal(loaded.mean, encoder.mean)
    np.testing.assert_array_equal(loaded.std, encoder.std)
    np.testing.assert_array_equal(loaded.item_codes(built.items), encoder.item_codes(built.items))
    assert len(list((tmp_path / "vocabularies").iterdir())) == len(encoder.categorical_columns)
    (tmp_path / "vocabularies" / "country.parquet").write_bytes(b"broken")
    with pytest.raises(AdstoolError, match="cannot be used"):
        FeatureEncoder.load(tmp_path)
    shutil.rmtree(tmp_path / "vocabularies")
    with pytest.raises(AdstoolError, match="cannot be used"):
        FeatureEncoder.load(tmp_path)


def test_vocabularies_know_only_the_training_period(built: Built) -> None:
    dataset, oracle = built.dataset, built.oracle
    examples = oracle.examples()[: dataset.splits["train"].stop]
    until = examples[-1]["ts"]
    counts: dict[str, int] = {}
    for row in examples + [e for e in oracle.events if e["ts"] <= until and e["known"] and oracle.engaged(e)]:
        key = f"{row['item_type']}:{row['item_id']}"
        counts[key] = counts.get(key, 0) + 1
    kept = {key for key, count in counts.items() if count >= SMALL.features.min_count}
    assert set(dataset.encoder.vocabularies["item_id"].values.to_pylist()) == kept
    users = [example["user_id"] for example in examples]
    frequent = {user for user in users if users.count(user) >= SMALL.features.min_count}
    assert set(dataset.encoder.vocabularies["user_id"].values.to_pylist()) == frequent


def test_columns_of_sides_cover_every_column_once(built: Built) -> None:
    encoder = built.dataset.encoder
    sides = ("user", "item", "context", "cross")
    places = np.concatenate([encoder.categorical_indices([side]) for side in sides])
    assert sorted(places.tolist()) == list(range(len(encoder.categorical_columns)))
    shape = built.dataset.categorical.shape[1], built.dataset.numeric.shape[1]
    assert shape == (len(encoder.categorical_columns), len(encoder.numeric_columns))


def test_standardised_numbers_have_mean_zero_and_deviation_one_in_training(built: Built) -> None:
    encoder, train = built.dataset.encoder, built.dataset.splits["train"]
    values = np.asarray(built.dataset.numeric[train])
    whole = (np.abs(values) < 5).all(axis=0) & (values != 0).all(axis=0)  # neither clipped nor missing
    assert whole.sum() > 5
    np.testing.assert_allclose(values[:, whole].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values[:, whole].std(axis=0), 1, atol=1e-3)
    assert np.abs(values).max() <= 5
    assert encoder.std.min() > 0


@pytest.mark.parametrize("corpus", ["ad", "pin"])
def test_a_spec_survives_json_whatever_the_actions_are_called(corpus: str) -> None:
    chosen = Settings(
        actions=(
            Action("engaged"),
            Action("disliked", positive=False),
            Action("view", kind="duration"),
        ),
        features=FeatureSettings(half_life_days=(0.5, 3.0, 30.0)),
    )
    spec = default_spec(chosen, corpus)
    assert FeatureSpec.from_json(spec.to_json()) == spec
    names = [column.name for column in spec.numeric_columns]
    assert len(set(names)) == len(names)
    assert {column.side for column in spec.numeric_columns} == {"user", "item", "cross", "context"}
