"""Post-training int8: embedding tables row by row, dense layers through ONNX Runtime, behind a gate.

A table becomes int8 rows with a float16 scale a row (18 bytes instead of 64 for 16 numbers). Dense layers get
int8 weights, one scale an output, and their inputs are quantized as they come (dynamic): on the rankers
here one scale an output costs a half of the loss in normalized entropy of one scale a matrix, at equal speed.
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
MODELS = {"engagement": ("model.onnx",), "lightweight": ("user.onnx", "item.onnx")}
MODELS["retrieval"] = MODELS["lightweight"]
CANDIDATE = ".int8.candidate"  # written, not judged yet
REFUSED = ".int8.refused"
MIN_TABLE = 4096  # numbers in a table below which int8 saves nothing worth an extra lookup
MIN_DENSE = 4096  # numbers in a weight matrix below which quantizing its input costs more than it gains


@dataclass(frozen=True)
class Layers:
    """What became of a graph's weights."""

    tables: list[str]
    dense: list[str]
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
        layers[file] = quantize_graph(run / file, run / graph_file(file, CANDIDATE))
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


def quantize_graph(source: Path, target: Path) -> Layers:
    """Write the int8 form of the graph at `source` to `target`.

    Raises AdstoolError when `source` is no graph.
    """
    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's errors have no common base but Exception
        raise AdstoolError(f"{source} cannot be read: {error}", "Train the model again.") from None
    tables, skipped = _quantize_tables(model)
    dense, excluded, small = _dense_nodes(model)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".quantize-") as folder:
        middle, done = Path(folder) / "tables.onnx", Path(folder) / "done.onnx"
        onnx.save(model, str(middle))
        if dense:
            with _quiet():
                quantize_dynamic(
                    middle,
                    done,
                    weight_type=QuantType.QInt8,
                    per_channel=True,
                    op_types_to_quantize=["MatMul"],
                    nodes_to_exclude=excluded,
                )
        os.replace(done if dense else middle, target)
    return Layers(tables, dense, skipped | small)


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


def _dense_nodes(model: Any) -> tuple[list[str], list[str], dict[str, str]]:
    """Names of the dense nodes that are quantized, names to tell the quantizer to leave out, and why."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    dense: list[str] = []
    excluded: list[str] = []
    skipped: dict[str, str] = {}
    for index, node in enumerate(model.graph.node):
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        node.name = node.name or f"{node.op_type}_{index}"
        weight = stored.get(node.input[1])
        if weight is not None and len(weight.dims) == 2 and np.prod(weight.dims) >= MIN_DENSE:
            dense.append(node.name)
            continue
        # The quantizer first turns Gemm into MatMul under this second name.
        excluded += [node.name, f"{node.name}_MatMul"]
        if weight is not None:
            skipped[node.name] = f"fewer than {MIN_DENSE} weights"
    return dense, excluded, skipped


class _quiet:
    """Keeps the quantizer's advice, which is for image models, off the user's screen."""

    def __enter__(self) -> None:
        self._before = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._before)
