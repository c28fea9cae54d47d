"""Semantic ids as columns of items: by brute force, missing without a vector, tied to their codebooks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from features.conftest import SMALL, Built
from features.logs import semantic_ids, vectors

from adstool.config import SemanticIdsSettings, Settings
from adstool.content.codebooks import SemanticIds
from adstool.errors import AdstoolError
from adstool.features.dataset import build_dataset
from adstool.features.items import ItemTable, build_items
from adstool.features.spec import FeatureSpec, default_spec, prefix_column, prefix_depth
from adstool.features.state import ServingState


def brute_force(built: Built) -> dict[tuple[str, str], str]:
    """'first-second' of every item with a vector, from distances one by one."""
    levels = [level.astype(np.float64) for level in semantic_ids(built.con).codebooks.levels]
    found = {}
    for kind, (ids, array) in vectors(built.con).items():
        for item, vector in zip(ids, array.astype(np.float64), strict=True):
            left, codes = vector, []
            for level in levels:
                distances = [float(((left - centre) ** 2).sum()) for centre in level]
                codes.append(str(distances.index(min(distances))))
                left = left - level[int(codes[-1])]
            found[kind, item] = "-".join(codes)
    return found


def test_every_example_has_the_prefixes_of_its_item(built: Built) -> None:
    wanted, dataset = brute_force(built), built.dataset
    names = [column.name for column in dataset.encoder.categorical_columns]
    sides = {column.name: column.side for column in dataset.encoder.categorical_columns}
    assert (sides["sid_1"], sides["sid_2"]) == ("item", "item")
    missing = 0
    for number, row in enumerate(np.asarray(dataset.item_row)):
        known = wanted.get((dataset.items.types[row], dataset.items.ids[row]))
        missing += known is None
        for depth in (1, 2):
            value = None if known is None else "-".join(known.split("-")[:depth])
            code = dataset.encoder.vocabularies[prefix_column(depth)].code(value)
            assert dataset.categorical[number, names.index(prefix_column(depth))] == code
    assert 0 < missing < len(dataset)
    assert len(set(wanted.values())) > 3
    assert dataset.encoder.spec.semantic == "r1"


def test_columns_of_prefixes_are_told_from_others() -> None:
    assert [prefix_depth(name) for name in ("sid_1", "sid_12", "sid_", "sid_x", "item_id")] == [
        1,
        12,
        0,
        0,
        0,
    ]
    spec = default_spec(Settings(), "pin", "r3", 4)
    assert [c.name for c in spec.categoricals if prefix_depth(c.name)] == [f"sid_{n}" for n in range(1, 5)]
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_a_spec_written_before_there_were_semantic_ids_is_read() -> None:
    spec = default_spec(Settings())
    document = spec.to_json()
    del document["semantic"]
    assert FeatureSpec.from_json(document) == spec
    assert spec.semantic == ""


def test_without_the_setting_or_the_codebooks_there_are_no_columns(built: Built) -> None:
    off = Settings(features=SMALL.features, semantic_ids=SemanticIdsSettings(features=0))
    plain = build_items(built.con, vectors(built.con))
    assert plain.semantic == ""
    assert plain.codes.shape == (len(plain), 0)
    assert plain.prefixes(1).null_count == len(plain)
    for settings, items in ((off, built.items), (SMALL, plain)):
        dataset = build_dataset(built.con, built.ws, settings, items)
        assert not [c for c in dataset.encoder.categorical_columns if prefix_depth(c.name)]
        assert dataset.encoder.spec.semantic == ""
    one = Settings(features=SMALL.features, semantic_ids=SemanticIdsSettings(features=1))
    dataset = build_dataset(built.con, built.ws, one, built.items)
    assert [c.name for c in dataset.encoder.categorical_columns if prefix_depth(c.name)] == ["sid_1"]
    build_dataset(built.con, built.ws, SMALL, built.items)  # what the other tests read


def test_ids_are_kept_with_the_items(built: Built, tmp_path: Path) -> None:
    built.items.save(tmp_path)
    loaded = ItemTable.load(tmp_path)
    assert loaded.semantic == "r1"
    np.testing.assert_array_equal(loaded.codes, built.items.codes)
    assert loaded.prefixes(2).equals(built.items.prefixes(2))
    assert (built.items.codes[~built.items.content.any(axis=1)] == -1).all()


def test_ids_of_other_codebooks_are_refused(built: Built) -> None:
    ids = SemanticIds("r2", semantic_ids(built.con).codebooks)
    others = build_items(built.con, vectors(built.con), ids)
    assert others.fingerprint() != built.items.fingerprint()
    with pytest.raises(AdstoolError, match=r"r1, and the items have those of r2"):
        ServingState.build(built.con, built.ws, SMALL, built.dataset.encoder.spec, others)
