"""Figures of `bench`: what a workspace cannot have measured costs that figure alone."""

from __future__ import annotations

import pytest

from adstool.bench import figures
from adstool.bench.figure import Figure
from adstool.bench.workbench import Workbench
from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError

ONE = Figure("one", "ms", 2.0, 1.0, "nothing")


def missing(bench: Workbench) -> Figure:
    raise AdstoolError("There is no int8 form", "Make one: adstool quantize engagement")


def test_of_all_figures_those_that_can_be_are_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(figures, "FIGURES", {"int8": missing, "one": lambda bench: ONE})
    assert list(figures.measure(None, Settings())) == [ONE]
    assert "int8 is not measured. There is no int8 form. Make one: adstool quantize" in caplog.text


def test_a_figure_asked_for_by_name_is_measured_or_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", {"int8": missing, "one": lambda bench: ONE})
    assert list(figures.measure(None, Settings(), "one")) == [ONE]
    with pytest.raises(AdstoolError, match="no int8 form"):
        list(figures.measure(None, Settings(), "int8"))
    with pytest.raises(UsageError, match="no figure 'two'"):
        list(figures.measure(None, Settings(), "two"))
