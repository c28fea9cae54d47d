"""Two models of the finished demo, compared in money."""

from __future__ import annotations

from pathlib import Path

from tutorial import follow


def test_compare_two_models(demo_named: Path) -> None:
    follow("COMPARE_MODELS.md", demo_named)
