"""A small world made once for the tests of the generator, and the committed one."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import adstool.sample_data
from adstool.world.config import WorldConfig
from adstool.world.generate import generate

CONFIG = WorldConfig(users=300, ads=240, pins=160, days=6, seed=3, requests_per_user_day=1.2, picture_size=32)


@dataclass
class Made:
    """A world on disk with its log and truth read back."""

    folder: Path
    config: WorldConfig
    events: list[dict[str, Any]]
    truth: list[dict[str, Any]]

    def conversions(self) -> list[dict[str, Any]]:
        """truth/conversions.parquet as rows."""
        rows: list[dict[str, Any]] = pq.read_table(self.folder / "truth/conversions.parquet").to_pylist()
        return rows


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def load(folder: Path, config: WorldConfig) -> Made:
    """A world read back from its files."""
    events = [row for path in sorted(folder.glob("events-*.jsonl.gz")) for row in read_lines(path)]
    truth = pq.read_table(folder / "truth/impressions.parquet").to_pylist()
    return Made(folder, config, events, truth)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A world of 300 users and about 2,000 requests; read only."""
    folder = tmp_path_factory.mktemp("world") / "made"
    generate(CONFIG, folder)
    return load(folder, CONFIG)


@pytest.fixture(scope="session")
def committed() -> Made:
    """The world in sample_data."""
    folder = Path(next(iter(adstool.sample_data.__path__))) / "world"
    return load(folder, WorldConfig())
