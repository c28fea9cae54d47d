"""What must hold of an ONNX file before ONNX Runtime is given it: a run's folder may come from a stranger.

Only the protobuf fields that decide are read (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), in a
millisecond; the package onnx takes a second to import, and loads external data by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adstool.errors import AdstoolError

LARGEST = 2**31  # bytes: a protobuf cannot be larger
NEWEST_OPSET = {"": 26, "com.microsoft": 1}  # the only domains that our graphs use
# Numbers of fields
_GRAPH, _OPSET, _TRAINING, _FUNCTIONS = 7, 8, 20, 25  # of ModelProto
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # of GraphProto
_ATTRIBUTE, _DOMAIN = 5, 7  # of NodeProto
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 5, 6, 10, 11  # of AttributeProto
_DIMENSION, _EXTERNAL, _LOCATION = 1, 13, 14  # of TensorProto


def check_graph(path: Path) -> None:
    """Raises AdstoolError unless the graph holds its own weights and only operators that ONNX Runtime ships.

    Refused are data in other files, operators of other domains, functions, branches and loops, newer opsets,
    and tensors of more elements than the file has bytes for.
    """
    try:
        size = path.stat().st_size
        if not 0 < size < LARGEST:
            raise ValueError(f"it has {size:,} bytes")
        _check_model(np.memmap(path, np.uint8, "r").data)
    except FileNotFoundError:
        raise AdstoolError(f"{path} cannot be loaded: it is not there.", "Train the model again.") from None
    except (ValueError, OSError) as error:
        raise AdstoolError(f"{path} cannot be loaded: {error}.", "Train the model again.") from None


def _check_model(model: memoryview) -> None:
    for number, value in _fields(model):
        if number in (_TRAINING, _FUNCTIONS):
            raise ValueError("it holds functions of its own")
        if number == _OPSET:
            _check_opset(value)
        elif number == _GRAPH:
            _check_nodes(_bytes(value))


def _check_opset(value: memoryview | int) -> None:
    found = dict(_fields(_bytes(value)))
    domain, version = _text(found.get(1, memoryview(b""))), found.get(2, 0)
    if domain == "ai.onnx":
        domain = ""
    if domain.startswith("ai.onnx.") or domain == "com.microsoft.nchwc":
        return  # what exporters name beside what they use; a node of it is refused
    if domain not in NEWEST_OPSET:
        raise ValueError(f"it needs operators of {domain[:40]!r}")
    if not isinstance(version, int) or not 0 < version <= NEWEST_OPSET[domain]:
        raise ValueError(f"it has opset {version}, newer than {NEWEST_OPSET[domain]}")


def _check_nodes(graph: memoryview) -> None:
    for number, value in _fields(graph):
        if number == _INITIALIZER:
            _check_tensor(_bytes(value))
        elif number == _SPARSE:
            raise ValueError("it holds sparse weights")
        elif number == _NODE:
            for field, inner in _fields(_bytes(value)):
                if field == _DOMAIN and _text(inner) not in ("ai.onnx", *NEWEST_OPSET):
                    raise ValueError(f"it has an operator of {_text(inner)[:40]!r}")
                if field == _ATTRIBUTE:
                    _check_attribute(_bytes(inner))


def _check_attribute(attribute: memoryview) -> None:
    for number, value in _fields(attribute):
        if number in (_SUBGRAPH, _SUBGRAPHS):
            raise ValueError("it holds branches or loops")
        if number in (_TENSOR, _TENSORS):
            _check_tensor(_bytes(value))


def _check_tensor(tensor: memoryview) -> None:
    elements = 1
    for number, value in _fields(tensor):
        if number == _EXTERNAL or (number == _LOCATION and value != 0):
            raise ValueError("its weights lie in another file")
        if number == _DIMENSION:
            for dimension in [value] if isinstance(value, int) else _varints(value):
                elements *= dimension
    if elements > 2 * len(tensor):  # two 4-bit numbers in a byte
        raise ValueError(f"a tensor of {elements:,} elements has {len(tensor):,} bytes")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(number, value) of every field of a protobuf message; raises ValueError when it is none."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            whole, place = _varint(message, place)
            yield number, whole
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2:
                raise ValueError("it is no ONNX file")
            length, place = _varint(message, place)
        if place + length > len(message):
            raise ValueError("it is cut off")
        yield number, message[place : place + length]
        place += length


def _varints(packed: memoryview) -> Iterator[int]:
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("it is cut off")


def _bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no ONNX file")
    return value


def _text(value: memoryview | int) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")
