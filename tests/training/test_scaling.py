"""The power law of loss against compute, and the section that shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adstool.evaluation.sections_scaling import NAME, scaling_section
from adstool.training.scaling import Point, Scaling, fit_power_law
from adstool.workspace import Workspace, write_json

COMPUTE = [1e9, 8e9, 6e10, 5e11, 4e12]


@pytest.mark.parametrize(
    ("floor", "scale", "exponent"), [(0.7, 0.2, 0.15), (0.3, 0.05, 0.6), (0.0, 1.0, 0.05)]
)
def test_a_law_is_found_again(floor: float, scale: float, exponent: float) -> None:
    loss = [floor + scale * (c / 1e9) ** -exponent for c in COMPUTE]
    law = fit_power_law(COMPUTE, loss)
    assert law.explained > 0.9999
    np.testing.assert_allclose([law.at(c) for c in COMPUTE], loss, atol=1e-3 * scale)
    assert law.exponent == pytest.approx(exponent, rel=0.02)
    assert law.floor == pytest.approx(floor, abs=0.02 * scale + 0.002)


def test_the_floor_is_not_below_zero_and_a_rising_loss_has_no_law() -> None:
    assert fit_power_law([1.0, 2.0, 4.0], [3.0, 1.0, 0.1]).floor == 0.0
    flat = fit_power_law([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    assert (flat.exponent, flat.at(8.0)) == (0.0, 2.0)


def test_the_report_shows_what_was_measured(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert scaling_section(ws) == ""
    points = tuple(Point(f"{n} tokens", 1000 * n, 50_000, 0.9 - 0.01 * n) for n in (4, 8, 16, 32))
    assert points[0].compute == 6 * 4000 * 50_000
    law = fit_power_law([p.compute for p in points], [p.loss for p in points])
    write_json(ws.reports / NAME, Scaling(points, law).to_json())
    html = scaling_section(ws)
    assert "16 tokens" in html
    assert "0.7400" in html  # .9 - .01 · 16
    assert html.count("<polyline") == 2
