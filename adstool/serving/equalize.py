"""Inputs of dense layers made alike in size before they are quantized together.

A ranker's trunk reads embeddings of .05 beside numerics of 5 and more; with one step for all of them, the
small ones keep few of their 256 levels. So column j of the input is divided by s_j and row j of the weights
multiplied by it, s_j = sqrt(max |x_j| / max |w_j|), which changes nothing but what rounding loses
(SmoothQuant, Xiao et al. 2023, eq. 4 with alpha 1/2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

LARGEST = 100.0  # factor of a column
EVEN = 4.0  # times the median column, up to which the largest is not worth a multiplication


def equalize(model: Any, nodes: Iterable[Any], samples: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Rescale the inputs and stored weights of these MatMul and Gemm nodes of `model`, in place.

    samples: feeds of the model, from which the largest value of every column is taken.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    groups: dict[str, list[Any]] = {}
    for node in nodes:
        plain = not any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        if plain and readers[node.input[1]] == 1:
            groups.setdefault(node.input[0], []).append(node)
    largest = _largest(model, list(groups), samples)
    for name, group in groups.items():
        before = _before_relu(model, weights, readers, name)
        sizes = largest[name][largest[name] > 0]
        if not len(sizes) or (before is None and sizes.max() <= EVEN * np.median(sizes)):
            continue
        matrices = [_by_input(node, numpy_helper.to_array(weights[node.input[1]])) for node in group]
        own = np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0)
        known = (own > 0) & (largest[name] > 0)
        ratio = np.where(known, largest[name], 1.0) / np.where(known, own, 1.0)
        factor = np.clip(np.sqrt(ratio), 1.0 / LARGEST, LARGEST).astype(np.float32)
        for node, matrix in zip(group, matrices, strict=True):
            scaled = _by_input(node, np.asarray(matrix * factor[:, None]))
            weights[node.input[1]].CopyFrom(
                numpy_helper.from_array(np.ascontiguousarray(scaled), node.input[1])
            )
        if before is not None:
            _absorb(before, weights, 1.0 / factor)
            continue
        for node in group:
            node.input[0] = f"{name}/equalized"
        model.graph.initializer.append(numpy_helper.from_array(1.0 / factor, f"{name}/factor"))
        first = min(place for place, node in enumerate(model.graph.node) if node in group)
        multiply = helper.make_node("Mul", [name, f"{name}/factor"], [f"{name}/equalized"])
        model.graph.node.insert(first, multiply)


def _before_relu(model: Any, weights: dict[str, Any], readers: dict[str, int], name: str) -> Any:
    """The dense layer whose outputs are `name` behind a ReLU, where nothing else reads them; else None.

    Positive factors of its outputs can be its own: they cost nothing there.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    relu = makers.get(name)
    if relu is None or relu.op_type != "Relu" or readers[name] != 1 or readers[relu.input[0]] != 1:
        return None
    dense = makers.get(relu.input[0])
    if dense is None or dense.op_type != "Gemm" or len(dense.input) != 3:
        return None
    return dense if all(part in weights and readers[part] == 1 for part in dense.input[1:]) else None


def _absorb(dense: Any, weights: dict[str, Any], factor: np.ndarray) -> None:
    """Multiply the outputs of a dense layer by `factor` within its weights and biases."""
    matrix = _by_input(dense, numpy_helper.to_array(weights[dense.input[1]])) * factor
    bias = numpy_helper.to_array(weights[dense.input[2]]) * factor
    for place, values in ((1, _by_input(dense, matrix)), (2, bias)):
        stored = numpy_helper.from_array(np.ascontiguousarray(values), dense.input[place])
        weights[dense.input[place]].CopyFrom(stored)


def _by_input(node: Any, weight: np.ndarray) -> np.ndarray:
    """A node's weights as [inputs, outputs], and back."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return weight.T if transposed else weight


def _largest(
    model: Any, names: list[str], samples: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The largest magnitude of every column (last axis) of these tensors on the samples."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: dict[str, np.ndarray] = {}
    for feed in samples:
        for name, values in zip(names, session.run(names, dict(feed)), strict=True):
            most = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], most) if name in found else most
    return found
