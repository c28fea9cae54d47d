"""The finished workspace of shop.py, shared and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from funnel.shop import made, settings_of

from adstool.config import Settings
from adstool.workspace import Workspace


@pytest.fixture(scope="session")
def shop() -> Workspace:
    """A workspace with models and index; do not change it."""
    return Workspace(made())


@pytest.fixture
def shop_copy(shop: Workspace, tmp_path: Path) -> Workspace:
    """One of one's own."""
    return Workspace(Path(shutil.copytree(shop.root, tmp_path / "shop")))


@pytest.fixture(scope="session")
def settings(shop: Workspace) -> Settings:
    """Its settings."""
    return settings_of(shop)
