"""The file of results: stages are kept apart, and other forms are not misread."""

from __future__ import annotations

import json
import math
from pathlib import Path

from adstool.evaluation.results import FORMAT, read_results, results_path, write_results
from adstool.workspace import Workspace

ABOUT = {"format": FORMAT}


def test_a_stage_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert read_results(ws) == {}
    first = {"retrieval": {"a": 1.0}, "about": ABOUT, "skipped": {"funnel": "no index"}}
    write_results(ws, first, ["retrieval", "funnel"])
    write_results(ws, {"funnel": {"b": float("nan")}, "about": ABOUT, "skipped": {}}, ["funnel"])
    found = read_results(ws)
    assert found["retrieval"] == {"a": 1.0}
    assert math.isnan(found["funnel"]["b"])
    assert json.loads(results_path(ws).read_text())["funnel"] == {"b": None}
    assert found["skipped"] == {}  # the funnel is no longer missing
    write_results(ws, {"about": ABOUT, "skipped": {"retrieval": "gone"}}, ["retrieval"])
    assert "retrieval" not in read_results(ws)  # figures of a model that is gone do not stay


def test_results_in_another_form_are_left_alone(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    results_path(ws).parent.mkdir()
    results_path(ws).write_text(json.dumps({"retrieval": {}, "about": {"format": FORMAT + 1}}))
    assert read_results(ws) == {}
