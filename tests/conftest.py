"""Fixtures shared by the tests: the finished demo and the small shop, each made once a session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import run_cli

from adstool.config import Settings, load_settings
from adstool.workspace import Workspace


@pytest.fixture(scope="session")
def demo_made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The demo's workspace and what `adstool --json demo` said; do not change it, copy it."""
    root = tmp_path_factory.mktemp("demo") / "shop"
    done = run_cli("--json", "demo", root)
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


@pytest.fixture(scope="session")
def demo(demo_made: tuple[Path, dict[str, Any]]) -> Path:
    """The finished demo workspace; do not change it, copy it."""
    return demo_made[0]


@pytest.fixture
def demo_copy(demo: Path, tmp_path: Path) -> Path:
    """A finished demo workspace of one's own."""
    return Path(shutil.copytree(demo, tmp_path / "shop"))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small workspace with models and index; do not change it, copy it."""
    from shop import make_shop  # loads torch, which most tests do without

    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def shop_copy(shop: Workspace, tmp_path: Path) -> Workspace:
    """A small workspace of one's own."""
    return Workspace(Path(shutil.copytree(shop.root, tmp_path / "shop")))


@pytest.fixture(scope="session")
def settings(shop: Workspace) -> Settings:
    """The settings of the small workspace."""
    return load_settings(shop.config, environment={})
