"""A workspace with nothing in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adstool.workspace import Workspace, write_text


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    write_text(tmp_path / "w" / "adstool.toml", "")
    return Workspace(tmp_path / "w")
