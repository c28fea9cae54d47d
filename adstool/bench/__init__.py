"""This machine's figures, each beside a floor measured in the same process run.

A floor is the least that the work could cost: the bare library call without what adstool adds. `measure`
yields the figures: those of FIGURES, which take about a minute, or one by name, also of LONG.
"""

from __future__ import annotations

from adstool.bench.figures import FIGURES, LONG, measure

__all__ = ["FIGURES", "LONG", "measure"]
