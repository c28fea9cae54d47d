"""Charts: well-formed SVG, escaped text, marks in the right places."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adstool.evaluation import charts

NASTY = '<script>alert("x")</script> & more'


def _parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def _circles(svg: str) -> list[tuple[float, float]]:
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in _parse(svg).iter("circle")]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    found = charts.ticks(low, low + span)
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)
    assert 1 <= len(found) <= 6
    steps = {round((b - a) / span, 4) for a, b in pairwise(found)}
    assert len(steps) <= 2  # one step, up to rounding


def test_numbers_as_people_read_them() -> None:
    assert charts.number(1234567.0) == "1,234,567"
    assert charts.number(0.012345, 3) == "0.0123"
    assert charts.number(10.0, 3) == "10"
    assert charts.number(float("nan")) == "–"


def test_every_chart_escapes_what_it_is_given() -> None:
    bins = [{"predicted": 0.1, "observed": 0.12, "low": 0.05, "high": 0.2}]
    drawn = [
        charts.line_chart(NASTY, [charts.Series(NASTY, [(1, 1.0), (2, 0.5)])], NASTY, NASTY, [(1, NASTY)]),
        charts.reliability_chart(NASTY, bins),
        charts.interval_chart(NASTY, [charts.Bar(NASTY, 0.5, 0.4, 0.6, NASTY)]),
        charts.column_chart(NASTY, [(NASTY, 3.0)], NASTY),
        charts.flow_chart(NASTY, [(NASTY, 10.0, NASTY)]),
        charts.share_bar(NASTY, [(NASTY, 1.0)]),
    ]
    for svg in drawn:
        assert "<script" not in svg
        assert NASTY in "".join(_parse(svg).itertext())


def test_a_line_rises_where_its_values_do() -> None:
    svg = charts.line_chart("t", [charts.Series("s", [(1, 1.0), (2, 3.0), (3, 2.0)])], "x", "y")
    (x1, y1), (x2, y2), (x3, y3) = _circles(svg)
    assert x1 < x2 < x3
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 < y3 < y1  # up the page is a smaller y


def test_a_missing_value_is_left_out_not_drawn_as_zero() -> None:
    points = [(1, 1.0), (2, math.nan), (3, 2.0)]
    assert len(_circles(charts.line_chart("t", [charts.Series("s", points)], "x", "y"))) == 2
    bars = [charts.Bar("a", math.nan, math.nan, math.nan, ""), charts.Bar("b", 1.0, 0.5, 1.5, "1")]
    assert len(_circles(charts.interval_chart("t", bars))) == 1


def test_a_calibrated_bin_lies_on_the_diagonal() -> None:
    svg = charts.reliability_chart("t", [{"predicted": 0.2, "observed": 0.2, "low": 0.1, "high": 0.3}])
    ideal = next(line for line in _parse(svg).iter("line") if line.attrib["class"] == "ideal")
    x1, y1, x2, y2 = (float(ideal.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
    ((x, y),) = _circles(svg)
    assert (y - y1) / (y2 - y1) == pytest.approx((x - x1) / (x2 - x1), abs=0.01)


def test_nothing_to_draw_gives_nothing() -> None:
    assert charts.line_chart("t", [], "x", "y") == ""
    assert charts.reliability_chart("t", []) == ""
    assert charts.interval_chart("t", []) == ""
    assert charts.column_chart("t", [], "y") == ""
    assert charts.flow_chart("t", []) == ""
    assert charts.share_bar("t", [("a", 0.0)]) == ""
