"""Post-training int8: embedding tables row by row, dense layers by output, behind a gate.

A table becomes int8 rows with a float16 scale a row (18 bytes instead of 64 for 16 numbers). The large dense
layers of a ranker also compute in int8, through ONNX Runtime: their inputs are quantized as they come
(dynamic). One scale an output instead of one a matrix costs no time and less normalized entropy. Where
computing in int8 gains nothing, in small layers and in towers (which run once a request, or offline), only
the weights are stored in int8: with their inputs quantized too, the towers lost .12 % of normalized entropy
on the sample world, with the weights alone .02 %.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from adstool.config import Settings
from adstool.errors import AdstoolError, GateNotPassed, UsageError
from adstool.progress import log
from adstool.serving.gate import Limits, judge
from adstool.serving.scorer import INT8, QUANTIZATION, graph_file
from adstool.workspace import Workspace, write_json

if TYPE_CHECKING:
    import duckdb

SCHEMES = ("int8",)
TOWERS = ("user.onnx", "item.onnx")
MODELS = {"engagement": ("model.onnx",), "lightweight": TOWERS, "retrieval": TOWERS}
CANDIDATE = ".int8.candidate"  # written, not judged yet
REFUSED = ".int8.refused"
MIN_TABLE = 4096  # numbers in a table below which int8 saves nothing worth an extra lookup
MIN_DENSE = 4096  # weights of a layer below which quantizing its input costs more time than it gains
MIN_STORED = 512  # weights of a layer below which int8 saves nothing worth an extra node


@dataclass(frozen=True)
class Layers:
    """What became of a graph's weights."""

    tables: list[str]  # int8 rows
    dense: list[str]  # computed in int8
    stored: list[str]  # stored in int8, computed in float32
    skipped: dict[str, str]  # layer -> why it stays in float32


def quantize_run(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    name: str,
    scheme: str = "int8",
    max_ne_loss: float | None = None,
) -> dict[str, Any]:
    """Quantize the run of model `name` in use, and put it into use when it passes its gate.

    Returns {model, run_id, scheme, accepted, size_ratio, speedup, delta_ne, delta_calibration, topk_overlap,
    ...}; the same is kept in the run's quantization.json. max_ne_loss: instead of the setting.
    Raises GateNotPassed, with the same figures, when a limit is broken: the graphs are then kept as
    *.int8.refused.onnx and the full-precision ones serve on. Raises UsageError for an unknown model or
    scheme.
    """
    if scheme not in SCHEMES:
        raise UsageError(f"There is no quantization scheme '{scheme}'.", f"Schemes: {', '.join(SCHEMES)}.")
    if name not in MODELS:
        raise UsageError(f"'{name}' cannot be quantized.", f"Models: {', '.join(MODELS)}.")
    run = ws.require_run(name, f"train {name}")
    layers: dict[str, Layers] = {}
    for file in MODELS[name]:
        dynamic = file not in TOWERS
        layers[file] = quantize_graph(run / file, run / graph_file(file, CANDIDATE), dynamic=dynamic)
        for layer, reason in layers[file].skipped.items():
            log.debug("%s %s stays in float32: %s", file, layer, reason)
    limits = Limits.of(settings.quantization, max_ne_loss)
    measured = judge(ws, settings, con, run, name, CANDIDATE, limits)
    before, after = (_size(run, name, variant) for variant in ("", CANDIDATE))
    result = {
        "model": name,
        "run_id": run.name,
        "scheme": scheme,
        **measured,
        "size_ratio": after / before,
        "bytes": {"fp32": before, "int8": after},
        "layers": {file: vars(found) for file, found in layers.items()},
    }
    _publish(run, name, result)
    if not result["accepted"]:
        raise GateNotPassed(
            f"int8 {name} {run.name} is refused: {'; '.join(result['reasons'])}.",
            result,
            "The full-precision model stays in use. Allow more with --max-ne-loss or in [quantization].",
        )
    return result


def _size(run: Path, name: str, variant: str) -> int:
    return sum((run / graph_file(file, variant)).stat().st_size for file in MODELS[name])


def _publish(run: Path, name: str, result: dict[str, Any]) -> None:
    """Rename the candidates to what the gate said. At no moment does the run claim graphs it has not."""
    document = {**result, "in_use": result["accepted"]}
    if not result["accepted"]:
        write_json(run / QUANTIZATION, document)
        for file in MODELS[name]:
            (run / graph_file(file, INT8)).unlink(missing_ok=True)
    for file in MODELS[name]:
        final = graph_file(file, INT8 if result["accepted"] else REFUSED)
        os.replace(run / graph_file(file, CANDIDATE), run / final)
    if result["accepted"]:
        for file in MODELS[name]:
            (run / graph_file(file, REFUSED)).unlink(missing_ok=True)
        write_json(run / QUANTIZATION, document)


def quantize_graph(source: Path, target: Path, *, dynamic: bool = True) -> Layers:
    """Write the int8 form of the graph at `source` to `target`; with `dynamic`, large layers compute in int8.

    Raises AdstoolError when `source` is no graph.
    """
    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's errors have no common base but Exception
        raise AdstoolError(f"{source} cannot be read: {error}", "Train the model again.") from None
    tables, skipped = _quantize_tables(model)
    _name_nodes(model)
    large = _dense(model, MIN_DENSE) if dynamic else {}
    if large:
        model = _compute_in_int8(model, large, target.parent)
    stored, small = _store_in_int8(model)
    _shorten(model)
    temporary = target.with_name(f".{target.name}.tmp")
    onnx.save(model, str(temporary))
    os.replace(temporary, target)
    return Layers(tables, list(large), stored, skipped | small)


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 rows and a float16 scale a row [rows, 1], so that row = q * scale with |error| <= scale / 2."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    # The scale is rounded to float16 first, and up, so that the largest number of a row is not cut off.
    scale = (largest / 127.0).astype(np.float16)
    short = scale.astype(np.float32) * 127.0 < largest
    scale = np.where(short, np.nextafter(scale, np.float16(np.inf)), scale)
    scale = np.where(largest > 0, scale, np.float16(1.0)).astype(np.float16)
    rows = np.rint(table / scale.astype(np.float32))
    return np.clip(rows, -127, 127).astype(np.int8), scale


def _quantize_tables(model: Any) -> tuple[list[str], dict[str, str]]:
    """Large tables that are only looked up become int8 rows and scales, looked up and multiplied."""
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
        else:
            chosen.append(name)
    nodes = []
    for node in graph.node:
        nodes += _lookup(node) if node.op_type == "Gather" and node.input[0] in chosen else [node]
    kept = [tensor for tensor in graph.initializer if tensor.name not in chosen]
    for name in chosen:
        rows, scale = quantize_rows(numpy_helper.to_array(stored[name]))
        kept += [
            numpy_helper.from_array(rows, f"{name}_int8"),
            numpy_helper.from_array(scale, f"{name}_scale"),
        ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return chosen, skipped


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


def _compute_in_int8(model: Any, chosen: dict[str, Any], folder: Path) -> Any:
    """The graph with these nodes as dynamically quantized products, by ONNX Runtime's quantizer."""
    excluded = []
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.name not in chosen:
            # The quantizer first turns Gemm into MatMul under this second name.
            excluded += [node.name, f"{node.name}_MatMul"]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".quantize-") as scratch, _quiet():
        before, after = Path(scratch) / "before.onnx", Path(scratch) / "after.onnx"
        onnx.save(model, str(before))
        quantize_dynamic(
            before,
            after,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=excluded,
        )
        return onnx.load(str(after))


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
        graph.initializer.append(numpy_helper.from_array(scale[:, 0].astype(np.float32), f"{weight}/scale"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{weight}/int8", f"{weight}/scale"], [weight], axis=axis)
        )
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
