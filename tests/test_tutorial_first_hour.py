"""The first hour: the demo, which the tests share, and everything that is asked of it."""

from __future__ import annotations

from pathlib import Path

from tutorial import follow


def test_the_first_hour(demo_named: Path, demo_made: tuple[Path, str]) -> None:
    follow("TUTORIAL.md", demo_named, {"adstool demo": demo_made[1]})
