"""Quantized graphs of a run, and the gate that decides about them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import run_cli

from adstool.config import Action, QuantizationSettings, Settings, load_settings
from adstool.errors import AdstoolError, GateNotPassed, UsageError
from adstool.serving.gate import Limits, candidate_groups, judge, top_half_overlap
from adstool.serving.quantization import TECHNIQUES, quantize_run
from adstool.serving.scorer import Scorer, quantized_variant
from adstool.serving.trials import TRIALS, ConversionTrial
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, read_json, write_json


def test_overlap_of_the_better_halves() -> None:
    groups = np.array([5, 5, 5, 5, 9, 9, 9, 9, 9, 2, 2])
    full = np.array([4, 3, 2, 1, 5, 4, 3, 2, 1, 1, 2.0])
    small = np.array([4, 1, 2, 3, 5, 4, 3, 2, 1, 2, 1.0])
    # First group keeps one of two, the second both of two, the third is too small to count.
    assert top_half_overlap(full, small, groups) == pytest.approx(0.75)
    assert top_half_overlap(full[-2:], small[-2:], groups[-2:]) == 1.0


def test_users_stand_in_for_requests_of_single_rows() -> None:
    request, user = np.arange(100), np.arange(100) // 10
    assert (candidate_groups(request, user) == user).all()
    assert (candidate_groups(np.arange(100) // 5, user) == np.arange(100) // 5).all()


def test_every_limit_can_refuse() -> None:
    limits = Limits.of(QuantizationSettings(), None)
    good = {"delta_ne": 0.0, "delta_calibration": 0.0, "topk_overlap": 1.0}
    good |= {"size_ratio": 0.3, "p50_ratio": 1.0, "p99_ratio": 1.0}
    assert limits.broken(good, True) == []
    assert limits.broken({**good, "delta_ne": -0.01}, True) == []
    for key, value in (
        ("delta_ne", 0.001),
        ("delta_calibration", 0.02),
        ("topk_overlap", 0.9),
        ("delta_ne", None),
        ("size_ratio", 0.9),
        ("p50_ratio", 1.6),
        ("p99_ratio", 3.5),
    ):
        assert len(limits.broken({**good, key: value}, True)) == 1, key
    for key in good:  # what could not be measured is not taken for good
        assert len(limits.broken({**good, key: float("nan")}, True)) == 1, key
    assert limits.broken({**good, "delta_ne": None, "delta_calibration": None}, False) == []
    assert Limits.of(QuantizationSettings(), 0.01).max_ne_loss == 0.01


LOOSE = ["--max-ne-loss", "0.5"]
KEYS = {"accepted", "size_ratio", "speedup", "delta_ne", "delta_calibration", "topk_overlap"}


# Rows of one bit a number, in place of int8.
BAD = """
import sys, numpy as np, adstool.commands, adstool.serving.quantized_graph as graphs
mean = lambda table: np.abs(table).mean(axis=1, keepdims=True).astype("float16")
graphs.quantize_rows = lambda table: (np.sign(table).astype("int8"), mean(table))
sys.exit(adstool.commands._run(sys.argv[1:]))
"""


def test_accepted_int8_serves_and_a_bad_quantization_is_refused(shop_copy: Workspace) -> None:
    run = shop_copy.require_run("engagement", "")
    arguments = ["--json", "--workspace", str(shop_copy.root), "quantize", "engagement"]
    done = run_cli(*arguments, *LOOSE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= KEYS
    assert result["accepted"]
    assert result["size_ratio"] <= 0.35
    assert [row["technique"] for row in result["table"]] == ["fp32", *TECHNIQUES]
    for row in result["table"]:
        assert row.keys() >= {"size_ratio", "p50_ms", "p99_ms", "speedup", "delta_ne", "topk_overlap"}
        assert row["p50_ms"] <= row["p99_ms"]
    assert read_json(run / "quantization.json")["table"] == result["table"]
    assert {path.name for path in run.glob("*.onnx")} == {"model.onnx", "model.int8.onnx"}
    assert Scorer(run).variant == ".int8"
    refused = subprocess.run(
        [sys.executable, "-c", BAD, *arguments, "--no-compare"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 3, refused.stderr
    result = json.loads(refused.stdout)
    assert result.keys() >= KEYS
    assert not result["accepted"]
    assert result["reasons"]
    assert "is refused" in refused.stderr
    assert {path.name for path in run.glob("*.onnx")} == {"model.onnx", "model.int8.refused.onnx"}
    assert quantized_variant(run) == ""
    assert Scorer(run).variant == ""


def test_conversions_are_judged_on_matured_clicks(demo_copy: Path) -> None:
    """Full precision has the figures of training, which were made without the gate; int8 then serves."""
    ws = Workspace(demo_copy)
    settings = load_settings(ws.config, environment={})
    run = ws.require_run("conversion", "")
    with open_warehouse(ws, settings) as con:
        trial = ConversionTrial(ws, settings, con, run)
        found = judge(trial, [])[""]
        trained = read_json(run / "metrics.json")["test"]
        assert set(found["heads"]) == {"click", *trial.heads[1:]}
        assert len(found["heads"]) > 2
        for name, head in found["heads"].items():
            assert head["positives"] == trained[name]["positives"]
            assert head["ne"] == pytest.approx(trained[name]["ne"], rel=1e-3)
        assert found["topk_overlap"] == 1.0
        # Money is exp of a logit, so that few conversions leave it the least certain: 1.4 % here.
        limits = dataclasses.replace(settings.quantization, max_calibration_shift=0.05)
        result = quantize_run(
            ws, dataclasses.replace(settings, quantization=limits), con, "conversion", "int4"
        )
    assert result["accepted"]
    assert set(result["amounts"]) == {f"value of {kind}" for kind in trial.heads[1:]}
    assert Scorer(run).variant == ".int4"
    assert (run / "model.int4.onnx").stat().st_size < 0.3 * (run / "model.onnx").stat().st_size


def test_the_order_is_that_of_the_funnel(shop: Workspace, settings: Settings) -> None:
    """Bids and weights, and expected amounts of actions that are timed: see Scorer.predict_worth."""
    actions = (*settings.actions[:-1], Action("hide", kind="duration", weight=-1.0, positive=False))
    changed = dataclasses.replace(settings, actions=actions)
    with open_warehouse(shop, settings) as con:
        trial = TRIALS["engagement"](shop, settings, con, shop.require_run("engagement", ""))
    trial.settings = changed
    rows = trial.rows[:50]
    scorer = trial.scorer("")
    timed = SimpleNamespace(
        outputs=scorer.outputs,
        amounts=("hide",),
        predict_worth=lambda inputs: (scorer.predict(inputs), scorer.predict(inputs) * [1, 1, 1, 7.0]),
    )
    said = trial.say(timed, trial.inputs(rows), rows)
    assert said.amounts == pytest.approx(said.probability[:, 3:] * 7.0)
    bids = trial.dataset.items.numbers("bid")[trial.dataset.item_row[rows]]
    assert np.isfinite(bids).all()
    utility = said.probability @ [a.weight * (7.0 if a.name == "hide" else 1.0) for a in actions]
    wanted = bids * said.probability[:, 0] + settings.auction.utility_weight * utility
    assert said.worth == pytest.approx(wanted)


def test_a_damaged_quantized_graph_leaves_full_precision(
    shop_copy: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with open_warehouse(shop_copy, settings) as con:
        quantize_run(shop_copy, settings, con, "engagement", max_ne_loss=0.5)
    run = shop_copy.require_run("engagement", "")
    inputs = {"categorical": np.zeros((3, 1))}
    (run / "model.int8.onnx").write_bytes(b"")
    scorer = Scorer(run)
    for _ in range(2):  # said once
        assert scorer.session("model.onnx").input_names == Scorer(run, quantized=False)._session.input_names
    assert caplog.text.count("Full precision serves instead") == 1
    with pytest.raises(AdstoolError):
        Scorer(run, variant=".int8").raw(inputs)


def test_towers_are_judged_too(shop_copy: Workspace, settings: Settings) -> None:
    with open_warehouse(shop_copy, settings) as con:
        light = quantize_run(shop_copy, settings, con, "lightweight", max_ne_loss=0.5)
        assert light["accepted"]
        assert set(light["latency_ms"]) == {"user", "item"}
        assert {path.name for path in shop_copy.require_run("lightweight", "").glob("*.int8.onnx")} == {
            "user.int8.onnx",
            "item.int8.onnx",
        }
        towers = quantize_run(shop_copy, settings, con, "retrieval")
        assert towers["delta_ne"] is None
        assert towers["topk_overlap"] >= 0.95


def test_a_model_of_other_data_is_not_judged(shop_copy: Workspace, settings: Settings) -> None:
    run = shop_copy.require_run("engagement", "")
    write_json(run / "run.json", {"data": "something else"})
    with open_warehouse(shop_copy, settings) as con, pytest.raises(AdstoolError, match="changed since"):
        quantize_run(shop_copy, settings, con, "engagement")
    assert not (run / "quantization.json").exists()


def test_unknown_schemes_and_models_are_usage_errors(shop: Workspace, settings: Settings) -> None:
    with open_warehouse(shop, settings) as con:
        for name, scheme in (("engagement", "int2"), ("clip", "int8")):
            with pytest.raises(UsageError):
                quantize_run(shop, settings, con, name, scheme)


def test_the_gate_raises_with_its_figures(shop_copy: Workspace, settings: Settings) -> None:
    with open_warehouse(shop_copy, settings) as con, pytest.raises(GateNotPassed) as refused:
        quantize_run(shop_copy, settings, con, "lightweight", max_ne_loss=-1.0)
    assert refused.value.result["reasons"]
    kept = json.loads((shop_copy.require_run("lightweight", "") / "quantization.json").read_text())
    assert kept["in_use"] is False
