"""A workspace of its own for every test, and a short way to ingest into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adstool.config import Settings, load_settings
from adstool.ingestion.ingest import IngestOptions, IngestResult, ingest
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


class Shop:
    """A workspace under test."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        (root / "adstool.toml").write_text("")
        self.ws = Workspace(root)
        self.settings: Settings = load_settings(None, environment={})

    def ingest(self, *paths: Path | str, **options: Any) -> IngestResult:
        with open_warehouse(self.ws, self.settings) as con:
            return ingest(con, self.ws, [str(path) for path in paths], IngestOptions(**options))

    def counts(self, *paths: Path | str, **options: Any) -> dict[str, tuple[int, int, int, int]]:
        """By table: read, inserted, duplicate, rejected."""
        result = self.ingest(*paths, **options)
        return {name: (c.read, c.inserted, c.duplicate, c.rejected) for name, c in result.tables.items()}

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with open_warehouse(self.ws, self.settings, read_only=True) as con:
            return con.execute(sql).fetchall()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


@pytest.fixture
def make_shop(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Shop]:
    """For tests that need a fresh workspace for every example."""
    return lambda: Shop(tmp_path_factory.mktemp("shops") / "shop")
