"""Data sets built once from random logs, shared by the tests that only read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pytest
from features.logs import (
    catalogue,
    insert,
    random_conversions,
    random_events,
    semantic_ids,
    vectors,
    warehouse,
)
from features.oracle import Oracle

from adstool.config import FeatureSettings, SemanticIdsSettings, Settings
from adstool.features.dataset import Dataset, build_dataset
from adstool.features.items import ItemTable, build_items
from adstool.workspace import Workspace

SMALL = Settings(
    features=FeatureSettings(history_length=6, min_count=3, unknown_buckets=3),
    semantic_ids=SemanticIdsSettings(features=9),  # every prefix
)


@dataclass
class Built:
    """A warehouse, what was built from it, and the oracle over the same log."""

    ws: Workspace
    con: duckdb.DuckDBPyConnection
    settings: Settings
    items: ItemTable
    dataset: Dataset
    oracle: Oracle


@pytest.fixture(scope="session")
def scratch(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Workspace, duckdb.DuckDBPyConnection]]:
    """A warehouse to be filled again and again: tests clear it first."""
    with warehouse(tmp_path_factory.mktemp("scratch") / "shop", SMALL) as opened:
        yield opened


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """A data set of about 130 examples of ads, with pins, orphans, ties and late conversions in the log."""
    with warehouse(tmp_path_factory.mktemp("features") / "shop", SMALL) as (ws, con):
        rng = np.random.default_rng(4)
        catalogue(con)
        insert(con, "events", random_events(rng, 400))
        insert(con, "conversions", random_conversions(rng, 40))
        items = build_items(con, vectors(con), semantic_ids(con))
        dataset = build_dataset(con, ws, SMALL, items)
        yield Built(ws, con, SMALL, items, dataset, Oracle.read(con, SMALL, "ad"))
