"""Rows and graphs in fewer bits, against brute force and against the graphs they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adstool.errors import AdstoolError
from adstool.serving.equalize import equalize
from adstool.serving.quantized_graph import Recipe, quantize_graph
from adstool.serving.rows import quantize_rows, quantize_rows_to_4_bits
from adstool.serving.scorer import GraphSession

numbers = st.floats(-60, 60, width=32)


@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=numbers))
@settings(max_examples=100, deadline=None)
def test_rows_come_back_within_half_a_step(table: np.ndarray) -> None:
    rows, scale = quantize_rows(table)
    assert rows.dtype == np.int8
    assert scale.dtype == np.float16
    back = rows.astype(np.float32) * scale.astype(np.float32)
    assert (np.abs(back - table) <= scale.astype(np.float32) * 0.5001).all()


def test_a_row_of_zeros_stays_zeros() -> None:
    rows, scale = quantize_rows(np.zeros((2, 3), np.float32))
    assert (rows.astype(np.float32) * scale.astype(np.float32) == 0).all()


@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.sampled_from([2, 4, 8])), elements=numbers))
@settings(max_examples=60, deadline=None)
def test_four_bits_are_at_least_as_near_as_the_whole_range_in_15_steps(table: np.ndarray) -> None:
    nibbles = quantize_rows_to_4_bits(table)
    assert nibbles.packed.shape == (len(table), table.shape[1] // 2)
    low, high = table.min(axis=1, keepdims=True), table.max(axis=1, keepdims=True)
    step = (high - low) / 15
    plain = low + np.rint((table - low) / np.where(step > 0, step, 1.0)) * step
    lost, plainly = (np.square(back - table).sum(axis=1) for back in (nibbles.unpack(), plain))
    # Its scale and offset are rounded to float16: 2^-11 of the largest number.
    rounding = table.shape[1] * np.square(2**-10 * np.abs(table).max(axis=1) + 1e-6)
    assert (lost <= plainly + 2 * np.sqrt(plainly * rounding) + rounding).all()


def test_a_range_shrinks_where_one_number_lies_far_out() -> None:
    """By hand: seven numbers between 0 and 1 and one at 1.4 lose least when the last one is cut off."""
    table = np.array([[0.0, 0.14, 0.29, 0.43, 0.57, 0.71, 0.86, 1.4]] * 2, np.float32)
    nibbles = quantize_rows_to_4_bits(table)
    lost = np.square(nibbles.unpack() - table).sum(axis=1)
    plain = np.square(np.rint(table / (1.4 / 15)) * (1.4 / 15) - table).sum(axis=1)
    assert (lost < plain).all()
    # No range on a grid of such steps is much better than what the greedy search found.
    every = [
        np.square(low + np.clip(np.rint((table[0] - low) / s), 0, 15) * s - table[0]).sum()
        for low in np.linspace(0, 0.35, 11)
        for s in (np.linspace(0.9, 1.4, 41) - low) / 15
    ]
    assert lost[0] < 1.5 * min(every) + 1e-4


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


RECIPES = {
    "stored": Recipe("int8", "stored"),
    "dynamic": Recipe("int8", "dynamic"),
    "equal": Recipe("int8", "dynamic", equal=True),
    "static": Recipe("int8", "static", equal=True),
    "int4": Recipe("int4", "dynamic"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_graph_shrinks_and_says_nearly_the_same(tmp_path: Path, name: str) -> None:
    graph(tmp_path / "m.onnx", width=512)
    rows = {"i": np.arange(600)}
    layers = quantize_graph(tmp_path / "m.onnx", tmp_path / "q.onnx", RECIPES[name], [rows])
    computed = name != "stored"
    assert layers.tables == ["table"]
    assert layers.dense == (["first"] if computed else [])
    assert layers.stored == (["last"] if computed else ["first", "last"])
    before, after = (GraphSession(tmp_path / file).run(rows) for file in ("m.onnx", "q.onnx"))
    assert before == pytest.approx(after, abs={"stored": 0.02, "int4": 0.2}.get(name, 0.05))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > {"stored": 0.9998, "int4": 0.985}.get(
        name, 0.999
    )
    # The table: 18 or 12 of 64 bytes a row; dense weights 1 of 4, and their scales.
    assert (tmp_path / "q.onnx").stat().st_size < 0.4 * (tmp_path / "m.onnx").stat().st_size
    stored = onnx.load(str(tmp_path / "q.onnx")).graph
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in stored.initializer}
    operators = {node.op_type for node in stored.node}
    assert ("MatMulInteger" in operators) == (computed and name != "static")
    assert ("QuantizeLinear" in operators) == (name == "static")
    assert ("BitShift" in operators) == (name == "int4")


def test_products_of_bytes_are_summed_exactly(tmp_path: Path) -> None:
    """The largest products there are: on a CPU without VNNI they do not fit what its fast kernels add in."""
    make, random = onnx.helper.make_node, np.random.default_rng(3)
    a = random.choice(np.array([0, 254, 255], np.uint8), (64, 96))
    w = random.choice(np.array([-127, 126, 127], np.int8), (96, 48))
    nodes = [
        make("Cast", ["x"], ["a"], to=onnx.TensorProto.UINT8),
        make("MatMulInteger", ["a", "w"], ["sums"]),
        make("Cast", ["sums"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, width])
        for name, width in (("x", 96), ("y", 48))
    )
    made = onnx.helper.make_graph(nodes, "sums", [x], [y], [onnx.numpy_helper.from_array(w, "w")])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(made, opset_imports=opset, ir_version=8), str(tmp_path / "m.onnx"))
    wanted = a.astype(np.int64) @ w.astype(np.int64)
    assert (GraphSession(tmp_path / "m.onnx").run({"x": a.astype(np.float32)}) == wanted).all()


def test_a_small_graph_is_left_as_it_is(tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx", rows=20, width=8)
    rows = {"i": np.arange(20)}
    layers = quantize_graph(tmp_path / "m.onnx", tmp_path / "q.onnx", RECIPES["equal"], [rows])
    assert (layers.tables, layers.dense, layers.stored) == ([], [], [])
    assert set(layers.skipped) == {"table", "first", "last"}
    assert (GraphSession(tmp_path / "m.onnx").run(rows) == GraphSession(tmp_path / "q.onnx").run(rows)).all()


def dense_graph(random: Any, sizes: np.ndarray) -> Any:
    """relu(x W) W2 + x V, so that one input is read twice; x's columns are of these sizes."""
    make = onnx.helper.make_node
    value, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    stored = {"w": (len(sizes), 64), "w2": (64, 4), "v": (len(sizes), 4)}
    nodes = [
        make("MatMul", ["x", "w"], ["h"], name="one"),
        make("Relu", ["h"], ["r"]),
        make("MatMul", ["r", "w2"], ["z"], name="two"),
        make("MatMul", ["x", "v"], ["y"], name="three"),
        make("Add", ["z", "y"], ["p"]),
    ]
    built = onnx.helper.make_graph(
        nodes,
        "test",
        [value("x", kinds.FLOAT, ["n", len(sizes)])],
        [value("p", kinds.FLOAT, ["n", 4])],
        [
            onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
            for name, shape in stored.items()
        ],
    )
    return onnx.helper.make_model(built, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def test_equalizing_changes_no_number_and_what_rounding_loses(tmp_path: Path) -> None:
    """Columns of .05 beside columns of 20: with one step for all, the small ones are rounded away."""
    random = np.random.default_rng(1)
    sizes = np.array([0.05] * 70 + [20.0] * 2, np.float32)
    x = random.normal(size=(256, len(sizes))).astype(np.float32) * sizes
    x[:, 5] = 0.0  # a column without any value has no size
    model = dense_graph(random, sizes)
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array((random.normal(size=(72, 64)) / sizes[:, None]).astype(np.float32), "w")
    )
    onnx.save(model, str(tmp_path / "m.onnx"))
    full = GraphSession(tmp_path / "m.onnx").run({"x": x})
    equal = onnx.ModelProto()
    equal.CopyFrom(model)
    equalize(equal, [node for node in equal.graph.node if node.op_type == "MatMul"], [{"x": x}])
    onnx.save(equal, str(tmp_path / "e.onnx"))
    # One for the input that is read twice, none for the even one.
    assert [node.op_type for node in equal.graph.node].count("Mul") == 1
    assert GraphSession(tmp_path / "e.onnx").run({"x": x}) == pytest.approx(full, rel=1e-3, abs=1e-3)
    lost = {}
    for label, recipe in (("plain", Recipe("int8", "dynamic")), ("equal", RECIPES["equal"])):
        quantize_graph(tmp_path / "m.onnx", tmp_path / f"{label}.onnx", recipe, [{"x": x}])
        lost[label] = float(np.abs(GraphSession(tmp_path / f"{label}.onnx").run({"x": x}) - full).mean())
    assert lost["equal"] < 0.3 * lost["plain"]


def test_behind_a_relu_the_layer_before_takes_the_factors(tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx")
    rows = {"i": np.arange(600)}
    model = onnx.load(str(tmp_path / "m.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name in ("table", "w1"):  # a few columns of each far larger than the rest
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[: 5 if tensor.name == "w1" else None, :2] *= 30.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(tmp_path / "m.onnx"))
    before = len(model.graph.node)
    equalize(model, [node for node in model.graph.node if node.name in ("first", "last")], [rows])
    assert [node.op_type for node in model.graph.node].count("Mul") == len(model.graph.node) - before == 1
    onnx.save(model, str(tmp_path / "e.onnx"))
    wanted, got = (GraphSession(tmp_path / name).run(rows) for name in ("m.onnx", "e.onnx"))
    assert got == pytest.approx(wanted, abs=1e-5)


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(AdstoolError, match=r"m\.onnx cannot be loaded"):
        quantize_graph(tmp_path / "m.onnx", tmp_path / "q.onnx", RECIPES["dynamic"])
