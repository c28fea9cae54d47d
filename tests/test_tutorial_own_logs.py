"""Logs of a shop that names its columns otherwise, with dirty rows, from the files to a slate."""

from __future__ import annotations

from pathlib import Path

from tutorial import follow


def test_bring_your_own_logs(tmp_path: Path) -> None:
    follow("YOUR_LOGS.md", tmp_path)
