"""The report's section on semantic ids."""

from __future__ import annotations

from pathlib import Path

from adstool.evaluation.sections_semantic import semantic_section
from adstool.workspace import Workspace, write_json


def test_every_level_has_its_figures_and_none_without_codebooks(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert semantic_section(ws) == ""
    level = {"size": 64, "perplexity": 59.07, "dead": 2, "prefixes": 64, "collisions": 1.0, "cosine": 0.86}
    metrics = {
        "items": 1200,
        "pairs": 65599,
        "held_out": 102,
        "train": {
            "1": {**level, "relative_mse": 0.2641, "purity": 0.0585, "popularity_matched": 0.0197},
            "2": {**level, "relative_mse": 0.1004, "prefixes": 522},
        },
        "test": {"1": {"relative_mse": 0.3047}},
    }
    with ws.new_run("semantic") as run:
        write_json(run / "config.json", {"method": "<kmeans>"})
        write_json(run / "metrics.json", metrics)
    html = semantic_section(ws)
    for shown in ("59.1", "26.4%", "30.47%", "5.85%", "1.97%", "522", "65,599", "&lt;kmeans&gt;", "first 2"):
        assert shown in html, shown
    assert "<kmeans>" not in html
