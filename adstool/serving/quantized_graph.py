"""Graphs in fewer bits: tables of embeddings row by row, dense layers by output.

A table becomes int8 rows with a float16 scale a row (18 bytes instead of 64 for 16 numbers), or rows of four
bits with a scale and an offset (12 bytes). A dense layer may store its weights in int8 and compute in
float32, or compute in int8 through ONNX Runtime: with its input quantized as it comes (dynamic), or by ranges
seen on sample rows (static). One scale an output instead of one a matrix costs no time and less normalized
entropy. Where int8 gains nothing, in small layers, weights are only stored so.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from adstool.errors import AdstoolError
from adstool.serving.equalize import equalize
from adstool.serving.graph_check import check_graph
from adstool.serving.rows import LEVELS, quantize_rows, quantize_rows_to_4_bits
from adstool.workspace import whole_file

MIN_TABLE = 4096  # numbers in a table below which int8 saves nothing worth an extra lookup
MIN_DENSE = 4096  # weights of a layer below which quantizing its input costs more time than it gains
MIN_STORED = 512  # weights of a layer below which int8 saves nothing worth an extra node

Feeds = Iterable[Mapping[str, np.ndarray]]  # inputs of a graph by name, some rows at a time


@dataclass(frozen=True)
class Recipe:
    """What is done to a graph."""

    tables: str = "int8"  # float32 | int8 | int4
    dense: str = "dynamic"  # float32 | stored | dynamic | static
    equal: bool = False  # whether inputs of layers that compute in int8 are first made alike in size


@dataclass(frozen=True)
class Layers:
    """What became of a graph's weights."""

    tables: list[str]  # rows in fewer bits
    dense: list[str]  # computed in int8
    stored: list[str]  # stored in int8, computed in float32
    skipped: dict[str, str]  # layer -> why it stays in float32


def quantize_graph(source: Path, target: Path, recipe: Recipe, samples: Feeds = ()) -> Layers:
    """Write the graph at `source`, quantized by `recipe`, to `target`.

    samples: what ranges of static layers, and of layers made alike, are taken from.
    Raises AdstoolError when `source` is no graph.
    """
    check_graph(source)
    try:
        model = onnx.load(str(source), load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base but Exception
        raise AdstoolError(f"{source} cannot be read: {error}", "Train the model again.") from None
    tables, skipped = ([], {}) if recipe.tables == "float32" else _quantize_tables(model, recipe.tables)
    _name_nodes(model)
    large = _dense(model, MIN_DENSE) if recipe.dense in ("dynamic", "static") else {}
    samples = list(samples)
    if large and recipe.equal:
        equalize(model, large.values(), samples)
        _name_nodes(model)
    if large:
        model = _compute_in_int8(model, large, target.parent, samples if recipe.dense == "static" else None)
    stored: list[str] = []
    if recipe.dense != "float32":
        stored, small = _store_in_int8(model)
        skipped |= small
    _shorten(model)
    with whole_file(target) as temporary:
        onnx.save(model, str(temporary))
    return Layers(tables, list(large), stored, skipped)


def _quantize_tables(model: Any, bits: str) -> tuple[list[str], dict[str, str]]:
    """Large tables that are only looked up become rows in fewer bits, looked up and brought back."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, set()).add(
                "table" if node.op_type == "Gather" and place == 0 else "other"
            )
    skipped: dict[str, str] = {}
    chosen: list[str] = []
    for name, tensor in stored.items():
        if "table" not in readers.get(name, ()) or len(tensor.dims) != 2:
            continue
        if readers[name] != {"table"}:
            skipped[name] = "it is not only looked up"
        elif np.prod(tensor.dims) < MIN_TABLE:
            skipped[name] = f"fewer than {MIN_TABLE} numbers"
        elif bits == "int4" and tensor.dims[1] % 2:
            skipped[name] = "its rows have an odd number of numbers"
        else:
            chosen.append(name)
    lookup = _lookup if bits == "int8" else _lookup_4_bits
    nodes = []
    for node in graph.node:
        nodes += lookup(node) if node.op_type == "Gather" and node.input[0] in chosen else [node]
    kept = [tensor for tensor in graph.initializer if tensor.name not in chosen]
    for name in chosen:
        kept += _stored(name, numpy_helper.to_array(stored[name]), bits)
    if chosen and bits == "int4":
        kept += [
            numpy_helper.from_array(np.array([value], np.uint8), name) for name, value in _HALVES.items()
        ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return chosen, skipped


_HALVES = {"/low_half": LEVELS, "/shift": 4}  # what takes a byte of two numbers apart


def _stored(name: str, table: np.ndarray, bits: str) -> list[Any]:
    if bits == "int8":
        rows, scale = quantize_rows(table)
    else:
        nibbles = quantize_rows_to_4_bits(table)
        rows, scale = nibbles.packed, nibbles.line
    return [numpy_helper.from_array(rows, f"{name}_{bits}"), numpy_helper.from_array(scale, f"{name}_scale")]


def _lookup(node: Any) -> list[Any]:
    """float32 rows of an int8 table: gather rows and scales, cast, multiply."""
    table, index, out = node.input[0], node.input[1], node.output[0]
    nodes, found = [], []
    for part in ("int8", "scale"):
        # The slash keeps these names apart from <tensor>_scale, which the dense quantizer adds.
        rows, floats = f"{out}/row_{part}", f"{out}/row_{part}_float"
        nodes.append(helper.make_node("Gather", [f"{table}_{part}", index], [rows], axis=0))
        nodes.append(helper.make_node("Cast", [rows], [floats], to=onnx.TensorProto.FLOAT))
        found.append(floats)
    nodes.append(helper.make_node("Mul", found, [out]))
    return nodes


def _lookup_4_bits(node: Any) -> list[Any]:
    """float32 rows of a table of nibbles: gather bytes and lines, take the halves apart, scale and shift.

    ONNX Runtime 1.32 has no Gather on 4-bit tensors; its own GatherBlockQuantized takes 2.4 times as long.
    """
    table, index, out = node.input[0], node.input[1], node.output[0]
    make = helper.make_node
    name = f"{out}/row".__add__
    return [
        make("Gather", [f"{table}_int4", index], [name("_bytes")], axis=0),
        make("BitwiseAnd", [name("_bytes"), "/low_half"], [name("_low")]),
        make("BitShift", [name("_bytes"), "/shift"], [name("_high")], direction="RIGHT"),
        make("Concat", [name("_low"), name("_high")], [name("_codes")], axis=-1),
        make("Cast", [name("_codes")], [name("_codes_float")], to=onnx.TensorProto.FLOAT),
        make("Gather", [f"{table}_scale", index], [name("_line")], axis=0),
        make("Cast", [name("_line")], [name("_line_float")], to=onnx.TensorProto.FLOAT),
        make("Split", [name("_line_float")], [name("_scale"), name("_offset")], axis=-1, num_outputs=2),
        make("Mul", [name("_codes_float"), name("_scale")], [name("_scaled")]),
        make("Add", [name("_scaled"), name("_offset")], [out]),
    ]


def _name_nodes(model: Any) -> None:
    """A name for every node, since the quantizer is told by name what to leave alone."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"


def _dense(model: Any, least: int) -> dict[str, Any]:
    """Dense nodes by name, whose weights are a stored float matrix of at least this many numbers."""
    weights = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    found = {}
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weight is not None and len(weight.dims) == 2 and np.prod(weight.dims) >= least:
            found[node.name] = node
    return found


def _compute_in_int8(model: Any, chosen: dict[str, Any], folder: Path, samples: Feeds | None) -> Any:
    """The graph with these nodes as int8 products, by ONNX Runtime; samples: for static ranges."""
    excluded = []
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.name not in chosen:
            # The dynamic quantizer first turns Gemm into MatMul under this second name.
            excluded += [node.name, f"{node.name}_MatMul"]
    owner = f".{os.getpid()}.tmp"  # by which the next writer knows it, should this one be killed
    with tempfile.TemporaryDirectory(owner, ".quantize-", folder) as scratch, _quiet():
        before, after = Path(scratch) / "before.onnx", Path(scratch) / "after.onnx"
        onnx.save(model, str(before))
        common: dict[str, Any] = {
            "weight_type": QuantType.QInt8,
            "per_channel": True,
            "nodes_to_exclude": excluded,
        }
        if samples is None:
            quantize_dynamic(before, after, op_types_to_quantize=["MatMul"], **common)
        else:
            quantize_static(
                before,
                after,
                _Samples(samples),
                quant_format=QuantFormat.QDQ,
                # Unsigned: signed inputs take ONNX Runtime off its fast kernels, to 2.4 times the time.
                activation_type=QuantType.QUInt8,
                op_types_to_quantize=["MatMul", "Gemm"],
                **common,
            )
        return onnx.load(str(after))


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    """Sample rows in the form that ONNX Runtime's quantizer asks for."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Any:
        """The next feed, None at the end."""
        return next(self._feeds, None)


def _store_in_int8(model: Any) -> tuple[list[str], dict[str, str]]:
    """Weights of the dense nodes that still compute in float32, as int8 with a scale an output."""
    graph = model.graph
    chosen = _dense(model, MIN_STORED)
    skipped = {name: f"fewer than {MIN_STORED} weights" for name in _dense(model, 1) if name not in chosen}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs: dict[str, int] = {}  # weight -> the axis of its outputs
    for node in chosen.values():
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        outputs[node.input[1]] = 0 if node.op_type == "Gemm" and transposed else 1
    nodes = []
    for weight, axis in outputs.items():
        table = numpy_helper.to_array(stored[weight])
        rows, scale = quantize_rows(table if axis == 0 else table.T)
        graph.initializer.remove(stored[weight])
        graph.initializer.append(
            numpy_helper.from_array(rows if axis == 0 else rows.T.copy(), f"{weight}/int8")
        )
        factors = (scale if axis == 0 else scale.T).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(factors, f"{weight}/scale"))
        # Not DequantizeLinear: these two ONNX Runtime works out once, when it loads the graph.
        floats = f"{weight}/floats"
        nodes.append(helper.make_node("Cast", [f"{weight}/int8"], [floats], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [floats, f"{weight}/scale"], [weight]))
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    return list(chosen), skipped


def _shorten(model: Any) -> None:
    """Short names inside the graph: in a small model the exporter's long ones are a tenth of the file."""
    graph = model.graph
    public = {value.name for value in (*graph.input, *graph.output)}
    short: dict[str, str] = {}

    def rename(name: str) -> str:
        return name if not name or name in public else short.setdefault(name, f"_{len(short)}")

    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
        tensor.doc_string = ""
    for node in graph.node:
        node.name = node.doc_string = ""
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = rename(name)
    del graph.value_info[:]


class _quiet:
    """Keeps the quantizer's advice, which is for image models, off the user's screen."""

    def __enter__(self) -> None:
        self._before = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._before)
