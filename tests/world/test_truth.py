"""The table of signals: each matters, and the numbers agree with an independent fit."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize
from world.conftest import Made

import adstool
from adstool.errors import AdstoolError
from adstool.world.behaviour import SIGNALS
from adstool.world.truth import signal_table


def test_every_signal_costs_half_a_percent_of_normalized_entropy(committed: Made) -> None:
    table = signal_table(committed.folder / "truth")
    assert {row.signal for row in table.rows} == set(SIGNALS)
    assert 0.72 < table.floor < 0.88
    assert 40_000 <= table.impressions <= 60_000
    for row in table.rows:
        assert row.cost >= 0.005, row


def test_the_tutorial_tells_what_each_signal_of_the_committed_world_costs(
    committed: Made,
) -> None:
    tutorial = (Path(adstool.__file__).parents[1] / "sample_data/TUTORIAL.md").read_text()
    told = dict(re.findall(r"^\| (\w+)[^|]* \| (\.\d{4}) \|", tutorial, flags=re.MULTILINE))
    table = signal_table(committed.folder / "truth")
    truth = {"nothing": table.floor} | {row.signal: row.ne for row in table.rows}
    assert told == {name: f"{ne:.4f}".lstrip("0") for name, ne in truth.items()}


def test_the_table_agrees_with_a_general_optimiser(made: Made) -> None:
    found = signal_table(made.folder / "truth")
    table = pq.read_table(made.folder / "truth/impressions.parquet")
    ads = np.array(table["item_type"].to_pylist()) == "ad"
    true = table["p_click"].to_numpy()[ads]
    total = sum(table[f"signal_{name}"].to_numpy()[ads].astype(float) for name in SIGNALS)

    def entropy(p: np.ndarray) -> float:
        return float(-(true * np.log(p) + (1 - true) * np.log(1 - p)).mean())

    base = entropy(np.full_like(true, true.mean()))
    assert found.floor == pytest.approx(entropy(true) / base, rel=1e-9)
    for row in found.rows:
        rest = total - table[f"signal_{row.signal}"].to_numpy()[ads]
        best = minimize(
            lambda w, rest=rest: entropy(1 / (1 + np.exp(-(w[0] + w[1] * rest)))), [-2.0, 1.0], tol=1e-12
        )
        assert row.ne == pytest.approx(best.fun / base, rel=1e-6)
        assert row.cost == pytest.approx(row.ne / found.floor - 1)


def test_position_signal_falls_strictly(made: Made) -> None:
    by_slot: dict[int, set[float]] = {}
    for row in made.truth:
        by_slot.setdefault(row["position"], set()).add(row["signal_position"])
    assert sorted(by_slot) == list(range(made.config.slate))
    assert all(len(values) == 1 for values in by_slot.values())
    logits = [by_slot[slot].pop() for slot in sorted(by_slot)]
    assert all(above > below for above, below in pairwise(logits))


def test_a_folder_without_truth_and_an_action_without_logit_are_named(made: Made, tmp_path: Path) -> None:
    with pytest.raises(AdstoolError, match=r"holds no impressions\.parquet"):
        signal_table(tmp_path)
    with pytest.raises(AdstoolError, match="'long_click' has no logit of its own"):
        signal_table(made.folder / "truth", "long_click")


def test_only_the_world_and_evaluation_may_read_the_truth() -> None:
    """No other module of the library imports the world, and none but `sample` of the commands its parts."""
    library = Path(next(iter(adstool.__path__)))
    allowed = {"world", "evaluation"}
    files = [p for p in library.rglob("*.py") if p.relative_to(library).parts[0] not in allowed]
    assert len(files) > 10
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("adstool.world") for name in names), path
