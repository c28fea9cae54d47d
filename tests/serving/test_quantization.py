"""int8 tables and dense layers, and the gate that decides about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import run_cli

from adstool.config import QuantizationSettings, Settings
from adstool.errors import AdstoolError, GateNotPassed, UsageError
from adstool.serving.gate import Limits, _broken, candidate_groups, top_half_overlap
from adstool.serving.quantization import quantize_graph, quantize_rows, quantize_run
from adstool.serving.scorer import GraphSession, Scorer, uses_int8
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, write_json

numbers = st.floats(-60, 60, width=32)


@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=numbers))
@settings(max_examples=150)
def test_rows_come_back_within_half_a_step(table: np.ndarray) -> None:
    rows, scale = quantize_rows(table)
    assert rows.dtype == np.int8
    assert scale.dtype == np.float16
    back = rows.astype(np.float32) * scale.astype(np.float32)
    assert (np.abs(back - table) <= scale.astype(np.float32) * 0.5001).all()


def test_a_row_of_zeros_stays_zeros() -> None:
    rows, scale = quantize_rows(np.zeros((2, 3), np.float32))
    assert (rows.astype(np.float32) * scale.astype(np.float32) == 0).all()


def graph(path: Path, rows: int = 600, dim: int = 16, width: int = 96) -> None:
    """prob = sigmoid(relu(table[i] W1 + b) W2): one table, one large and one small dense layer."""
    random = np.random.default_rng(0)
    make, numpy_helper = onnx.helper.make_node, onnx.numpy_helper
    stored = {
        "table": random.normal(size=(rows, dim)),
        "w1": random.normal(size=(width, dim)) / 4,
        "b1": random.normal(size=width),
        "w2": random.normal(size=(width, 3)) / 10,
    }
    nodes = [
        make("Gather", ["table", "i"], ["x"]),
        make("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        make("Relu", ["h"], ["r"]),
        make("MatMul", ["r", "w2"], ["z"], name="last"),
        make("Sigmoid", ["z"], ["p"]),
    ]
    value = onnx.helper.make_tensor_value_info
    built = onnx.helper.make_graph(
        nodes,
        "test",
        [value("i", onnx.TensorProto.INT64, ["n"])],
        [value("p", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(built, opset_imports=[opset], ir_version=9), str(path))


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_graph_shrinks_and_says_nearly_the_same(tmp_path: Path, dynamic: bool) -> None:
    graph(tmp_path / "m.onnx", width=512)
    layers = quantize_graph(tmp_path / "m.onnx", tmp_path / "q.onnx", dynamic=dynamic)
    assert layers.tables == ["table"]
    assert layers.dense == (["first"] if dynamic else [])
    assert layers.stored == (["last"] if dynamic else ["first", "last"])
    rows = {"i": np.arange(600)}
    before, after = (GraphSession(tmp_path / name).run(rows) for name in ("m.onnx", "q.onnx"))
    assert before == pytest.approx(after, abs=0.05 if dynamic else 0.02)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > (0.999 if dynamic else 0.9998)
    # The table: 18 of 64 bytes a row; dense weights 1 of 4, and their scales.
    assert (tmp_path / "q.onnx").stat().st_size < 0.36 * (tmp_path / "m.onnx").stat().st_size
    kinds = {tensor.data_type for tensor in onnx.load(str(tmp_path / "q.onnx")).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    operators = {node.op_type for node in onnx.load(str(tmp_path / "q.onnx")).graph.node}
    assert ("MatMulInteger" in operators) == dynamic
    assert "Gemm" not in operators or not dynamic


def test_a_small_graph_is_left_as_it_is(tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx", rows=20, width=8)
    layers = quantize_graph(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert (layers.tables, layers.dense, layers.stored) == ([], [], [])
    assert set(layers.skipped) == {"table", "first", "last"}
    rows = {"i": np.arange(20)}
    assert (GraphSession(tmp_path / "m.onnx").run(rows) == GraphSession(tmp_path / "q.onnx").run(rows)).all()


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(AdstoolError, match=r"m\.onnx cannot be read"):
        quantize_graph(tmp_path / "m.onnx", tmp_path / "q.onnx")


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
    assert _broken(good, limits, judged_ne=True) == []
    assert _broken({**good, "delta_ne": -0.01}, limits, judged_ne=True) == []
    for key, value in (
        ("delta_ne", 0.001),
        ("delta_calibration", 0.02),
        ("topk_overlap", 0.9),
        ("delta_ne", None),
    ):
        assert len(_broken({**good, key: value}, limits, judged_ne=True)) == 1, key
    for key in good:  # what could not be measured is not taken for good
        assert len(_broken({**good, key: float("nan")}, limits, judged_ne=True)) == 1, key
    assert Limits.of(QuantizationSettings(), 0.01).max_ne_loss == 0.01


LOOSE = ["--max-ne-loss", "0.5"]
KEYS = {"accepted", "size_ratio", "speedup", "delta_ne", "delta_calibration", "topk_overlap"}


def test_accepted_int8_is_what_serves_and_refused_int8_is_not(shop_copy: Workspace) -> None:
    run = shop_copy.require_run("engagement", "")
    arguments = ("--json", "--workspace", shop_copy.root, "quantize", "engagement")
    done = run_cli(*arguments, *LOOSE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= KEYS
    assert result["accepted"]
    assert result["size_ratio"] <= 0.35
    assert (run / "model.int8.onnx").is_file()
    assert uses_int8(run)
    assert Scorer(run).variant == ".int8"
    refused = run_cli(*arguments, "--max-ne-loss", "-0.5")
    assert refused.returncode == 3
    result = json.loads(refused.stdout)
    assert result.keys() >= KEYS
    assert not result["accepted"]
    assert "NE rises" in refused.stderr
    assert (run / "model.int8.refused.onnx").is_file()
    assert not (run / "model.int8.onnx").exists()
    assert not uses_int8(run)
    assert Scorer(run).variant == ""


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
        for name, scheme in (("engagement", "int4"), ("clip", "int8")):
            with pytest.raises(UsageError):
                quantize_run(shop, settings, con, name, scheme)
    done = run_cli("--workspace", shop.root, "quantize", "engagement", "--scheme", "int4")
    assert done.returncode == 2
    assert "int8" in done.stderr


def test_the_gate_raises_with_its_figures(shop_copy: Workspace, settings: Settings) -> None:
    with open_warehouse(shop_copy, settings) as con, pytest.raises(GateNotPassed) as refused:
        quantize_run(shop_copy, settings, con, "lightweight", max_ne_loss=-1.0)
    assert refused.value.result["reasons"]
    kept = json.loads((shop_copy.require_run("lightweight", "") / "quantization.json").read_text())
    assert kept["in_use"] is False
