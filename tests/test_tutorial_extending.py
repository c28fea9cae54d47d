"""An engagement type, a candidate source and an ad format, each added to the finished demo."""

from __future__ import annotations

from pathlib import Path

from tutorial import follow


def test_add_an_engagement_type(demo_named: Path) -> None:
    follow("ADD_ACTION.md", demo_named)


def test_add_a_candidate_source(demo_named: Path) -> None:
    follow("ADD_SOURCE.md", demo_named)


def test_add_an_ad_format(demo_named: Path) -> None:
    follow("ADD_FORMAT.md", demo_named)
