"""Another CLIP under the finished demo."""

from __future__ import annotations

from pathlib import Path

from tutorial import follow


def test_bring_your_own_clip(demo_named: Path) -> None:
    follow("YOUR_CLIP.md", demo_named)
