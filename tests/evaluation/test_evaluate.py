"""evaluate and report as commands, on the finished demo workspace and without models."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cli_json, run_cli

from adstool.evaluation import sections_quality
from adstool.evaluation.report import _headline
from adstool.evaluation.results import read_results
from adstool.evaluation.sections_conversion import conversion_section
from adstool.workspace import Workspace

HEADS = ("click", "long_click", "save", "hide")


@pytest.fixture(scope="module")
def results(demo: Path) -> dict[str, Any]:
    """What the demo's own evaluation left."""
    return read_results(Workspace(demo))


def test_every_stage_was_measured_and_says_what_it_rests_on(results: dict[str, Any]) -> None:
    assert not results["skipped"]
    assert results["synthetic"]
    engagement = results["engagement"]
    for name in HEADS:
        head = engagement["heads"][name]
        assert head["rows"] > head["positives"] > 0
        low, high = head["intervals"]["auc"]
        assert low < head["auc"] < high
        assert head["truth"]["rows"] == head["rows"]
        # Nobody is better than the truth, in expectation over the labels that could have been drawn.
        assert head["truth"]["excess_log_loss"] > 0
    click = engagement["heads"]["click"]
    assert click["auc"] > click["popularity"]["auc"]
    assert click["truth"]["ne"] < click["ne"] < 1
    assert "surface=home" in engagement["slices"]


def test_recall_grows_with_depth_and_sources_add_up(results: dict[str, Any]) -> None:
    retrieval = results["retrieval"]
    assert retrieval["wanted"] > 50
    for source in [*retrieval["sources"].values(), retrieval["merged"]]:
        found = [source[f"recall@{k}"] for k in retrieval["ks"]]
        assert found == sorted(found)
        assert 0 <= found[-1] <= retrieval["reachable"] + 1e-9
    assert retrieval["sources"]["fresh"]["cold_recall"] > retrieval["sources"]["popular"]["cold_recall"]


def test_the_lightweight_ranker_and_the_funnel(results: dict[str, Any]) -> None:
    light = results["lightweight"]
    assert 0 <= light["slate_regret"] <= 1
    assert 0 < light["utility_regret"] < 1
    assert light["kept"] < light["candidates"]
    assert light["kendall_tau"] > 0
    assert set(light["sources"]) >= {"two_tower", "popular", "fresh"}
    for part in (*light["sources"].values(), *light["slices"].values()):
        assert np.isnan(part["utility_regret"]) or 0 <= part["utility_regret"] <= 1
    surfaces = [part["requests"] for name, part in light["slices"].items() if name.startswith("surface=")]
    assert 0 < sum(surfaces) <= light["requests"]
    funnel = results["funnel"]
    assert funnel["ndcg@10_truth"] > funnel["ndcg@10_popularity"]
    sizes = [stage["candidates"] for stage in funnel["stages"]]
    assert sizes == sorted(sizes, reverse=True)
    assert math.isclose(sum(part["slate"] for part in funnel["sources"].values()), 1.0)
    assert set(funnel["latency_ms"]) == {"retrieval", "lightweight", "heavy", "auction", "total"}


def test_a_gate_decides_the_exit_code(demo_copy: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[lightweight]\nutility_regret = {max = 1.0}\nrecall = {min = 0.0}\n")
    words = ("--workspace", demo_copy, "evaluate", "lightweight", "--gate", gate)
    found = cli_json(*words)
    assert found["gate"] == {"passed": True, "limits": 2, "failed": []}
    assert isinstance(found["lightweight"]["utility_regret"], float)
    gate.write_text("[lightweight]\nutility_regret = {max = -0.5}\nrecall = {min = 0.0}\n")
    failed = run_cli("--json", *words)
    assert failed.returncode == 3
    assert "lightweight.utility_regret" in failed.stderr
    assert json.loads(failed.stdout)["gate"]["passed"] is False
    # The other stages' results are still there for the report.
    kept = json.loads((demo_copy / "reports" / "evaluation.json").read_text())
    assert {"retrieval", "lightweight", "engagement", "funnel"} <= set(kept)


def test_no_torch_is_imported(demo_copy: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "adstool",
            "--workspace",
            demo_copy,
            "evaluate",
            "engagement",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "ADSTOOL_EVALUATION_BOOTSTRAP": "5"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {
        line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")
    }
    assert "onnxruntime" in imported
    assert "torch" not in imported
    assert "click" in done.stdout


def test_the_report_shows_slates_with_pictures(demo: Path) -> None:
    pages = list((demo / "reports").glob("*.html"))
    assert len(pages) == 1
    document = pages[0].read_text(encoding="utf-8")
    for anchor in (
        "data",
        "models",
        "engagement",
        "retrieval",
        "lightweight",
        "funnel",
        "quantization",
        "slates",
    ):
        assert f'<section id="{anchor}">' in document
    assert document.count("data:image/webp;base64,") >= 10
    assert "This is a synthetic world" in document
    assert len(document) < 5_000_000


def _figures(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, float):
        yield path
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _figures(inner, (*path, key))


def _page(results: dict[str, Any]) -> str:
    html = sections_quality.engagement_section(results["engagement"])
    html += conversion_section(results["conversion"])
    html += sections_quality.retrieval_section(results["retrieval"])
    html += sections_quality.lightweight_section(results["lightweight"])
    html += sections_quality.funnel_section(results["funnel"], [])
    return html + str(_headline(results))


def test_any_figure_may_be_unknown(results: dict[str, Any]) -> None:
    names = ("engagement", "conversion", "retrieval", "lightweight", "funnel")
    stages = {name: results[name] for name in names}
    stages["engagement"]["slices"] = dict(list(stages["engagement"]["slices"].items())[:1])
    assert not re.search(r"\bnan\b", _page(stages))
    everything = copy.deepcopy(stages)
    for path in list(_figures(stages)):
        for tree in (copy.deepcopy(stages), everything):
            at: Any = tree
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = math.nan
            if tree is not everything:
                assert not re.search(r"[> ,(]nan\b", _page(tree)), path
    assert not re.search(r"[> ,(]nan\b", _page(everything))


def test_an_unknown_stage_is_wrong_usage(tmp_path: Path) -> None:
    done = run_cli("--workspace", tmp_path, "evaluate", "clicks")
    assert done.returncode == 2
    assert "interests, retrieval, lightweight, engagement, conversion, funnel, all" in done.stderr


def test_a_missing_model_names_its_verb(demo_copy: Path) -> None:
    (demo_copy / "models" / "engagement" / "current").unlink()
    done = run_cli("--workspace", demo_copy, "evaluate", "engagement")
    assert done.returncode == 1
    assert "adstool train engagement" in done.stderr
    found = cli_json("--workspace", demo_copy, "evaluate")
    assert set(found["skipped"]) == {"lightweight", "engagement", "funnel"}
    assert found["retrieval"]["wanted"] > 0


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    run_cli("init", tmp_path / "empty")
    done = run_cli("--workspace", tmp_path / "empty", "evaluate")
    assert done.returncode == 1
    assert "adstool ingest" in done.stderr
