"""Rule: models from strangers are loaded safely or refused by a message: no code, no other file, no download,
and no memory for what a config asks and the weights do not hold."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from adstool.content.clip import ClipSource, load_clip, load_folder, shipped_folder
from adstool.errors import AdstoolError
from adstool.features.encoder import FeatureEncoder
from adstool.models.registry import load_model
from adstool.serving.graph_check import check_graph
from adstool.serving.scorer import GraphSession
from adstool.workspace import Workspace, read_json


class Bomb:
    """What runs code where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sign),)


@pytest.mark.parametrize("suffix", ["pt", "bin", "npy", "npz", "safetensors", "onnx"])
def test_no_code_of_a_weights_file_runs(tmp_path: Path, suffix: str) -> None:
    sign, path = tmp_path / "owned", tmp_path / f"model.{suffix}"
    bomb = np.array([Bomb(sign)], dtype=object)
    if suffix in ("pt", "bin"):
        torch.save({"state_dict": Bomb(sign)}, path)
    elif suffix == "npy":
        np.save(path, bomb, allow_pickle=True)
    elif suffix == "npz":
        np.savez(path, x=bomb)
    else:
        path.write_bytes(pickle.dumps(Bomb(sign)))
    with pytest.raises(AdstoolError):
        GraphSession(path)
    with pytest.raises(AdstoolError) as refused:
        load_clip(ClipSource("RN50", str(path), None, "x", "x"))
    assert "cannot be loaded" in refused.value.message
    assert not sign.exists()


def _graph(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], kind: int = TensorProto.FLOAT, **more: Any
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", kind, ["batch", 2])]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = more.pop("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def _adding(tensor: onnx.TensorProto, **more: Any) -> onnx.ModelProto:
    return _graph([helper.make_node("Add", ["x", "w"], ["y"])], [tensor], **more)


WEIGHT = numpy_helper.from_array(np.ones(2, np.float32), "w")


def _elsewhere(location: str) -> onnx.ModelProto:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return _adding(tensor)


def _in_attribute() -> onnx.ModelProto:
    inner = _elsewhere("../../secret").graph.initializer[0]
    constant = helper.make_node("Constant", [], ["w"], value=inner)
    return _graph([constant, helper.make_node("Add", ["x", "w"], ["y"])], [])


def _swollen() -> onnx.ModelProto:
    return _adding(onnx.TensorProto(name="w", data_type=1, dims=[2**40, 2**20], raw_data=b"1234"))


def _looping() -> onnx.ModelProto:
    body = helper.make_graph([], "b", [], [])
    return _graph([helper.make_node("Loop", ["x"], ["y"], body=body)], [])


def _foreign() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil.example", 1)]
    node = helper.make_node("Run", ["x"], ["y"], domain="evil.example")
    return _graph([node], [], opset_imports=opsets)


def _function() -> onnx.ModelProto:
    made = helper.make_function(
        "evil.example", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], []
    )
    return _adding(WEIGHT, functions=[made])


def _cyclic() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Add", ["z", "x"], ["y"])]
    return _graph(nodes, [])


STRANGE: dict[str, Callable[[], onnx.ModelProto]] = {
    "weights below": lambda: _elsewhere("secret"),
    "weights elsewhere": lambda: _elsewhere("../../secret"),
    "weights of the system": lambda: _elsewhere("/etc/passwd"),
    "weights elsewhere, in an attribute": _in_attribute,
    "a tensor larger than the file": _swollen,
    "a loop": _looping,
    "operators of its own": _foreign,
    "functions of its own": _function,
    "a cycle": _cyclic,
    "a newer opset": lambda: _adding(WEIGHT, opset_imports=[helper.make_opsetid("", 99)]),
    "an unknown operator": lambda: _graph([helper.make_node("Explode", ["x"], ["y"])], []),
    "shapes that do not meet": lambda: _adding(numpy_helper.from_array(np.ones(3, np.float32), "w")),
    "types that do not meet": lambda: _adding(numpy_helper.from_array(np.ones(2, np.int64), "w")),
    "a type that we do not have": lambda: _adding(
        numpy_helper.from_array(np.ones(2, np.float64), "w"), kind=TensorProto.DOUBLE
    ),
    "an input that is not there": lambda: _graph([helper.make_node("Add", ["x", "w"], ["y"])], []),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_graph_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models" / "r1"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(8))
    (folder / "secret").write_bytes(bytes(8))
    (folder / "model.onnx").write_bytes(STRANGE[name]().SerializeToString())
    with pytest.raises(AdstoolError) as refused:
        GraphSession(folder / "model.onnx")
    assert str(folder / "model.onnx") in refused.value.message
    assert refused.value.hint


def test_a_graph_of_ours_is_taken_and_a_damaged_one_is_not(shop: Workspace, tmp_path: Path) -> None:
    path = shop.models / "engagement" / "r1" / "model.onnx"
    check_graph(path)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    cut = tmp_path / "model.onnx"
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(AdstoolError):
            GraphSession(cut)
    for _ in range(40):  # wherever a byte is wrong, the answer is a session or a message
        damaged = bytearray(content)
        for place in random.integers(0, min(len(content), 5000), 4):
            damaged[place] = random.integers(0, 256)
        cut.write_bytes(damaged)
        try:
            GraphSession(cut)
        except AdstoolError:
            continue


def _copied(shop: Workspace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shop.models / "engagement" / "r1", tmp_path / "r1"))


def _changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "far too wide": lambda c: c["config"].update(hidden=[10**8, 10**8]),
    "far too many codes": lambda c: c["config"]["inputs"].update(
        cardinalities=[10**12] * len(c["config"]["inputs"]["cardinalities"])
    ),
    "negative": lambda c: c["config"].update(hidden=[-1]),
    "nothing": lambda c: c["config"].update(hidden=[0]),
    "text for numbers": lambda c: c["config"].update(hidden="__import__('os').mkdir('owned')"),
    "a key of its own": lambda c: c["config"].update(owned=True),
    "no inputs": lambda c: c["config"].pop("inputs"),
    "a list": lambda c: c.update(config=[1]),
    "another kind": lambda c: c.update(kind="os.system"),
    "a kind that is a list": lambda c: c.update(kind=["engagement"]),
    "another architecture": lambda c: c["config"].update(hidden=[7]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_strange_config_is_refused_before_memory_is_given(
    shop: Workspace, tmp_path: Path, name: str
) -> None:
    run = _copied(shop, tmp_path)
    _changed(run / "config.json", CONFIGS[name])
    with pytest.raises(AdstoolError) as refused:
        load_model(run)
    assert refused.value.hint


def test_strange_weights_are_refused(shop: Workspace, tmp_path: Path) -> None:
    run = _copied(shop, tmp_path)
    weights = run / "model.safetensors"
    content = weights.read_bytes()
    header = b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}'
    for strange in (
        b"",
        content[: len(content) // 2],
        (2**60).to_bytes(8, "little") + content[8:],  # a header larger than the file
        len(header).to_bytes(8, "little") + header + bytes(4),  # a tensor larger than the file
        pickle.dumps({"w": 1}),
    ):
        weights.write_bytes(strange)
        with pytest.raises(AdstoolError):
            load_model(run)
    weights.write_bytes(content)
    load_model(run)


def test_strange_features_and_vocabularies_are_refused(shop: Workspace, tmp_path: Path) -> None:
    run = _copied(shop, tmp_path)
    FeatureEncoder.load(run)
    features, vocabulary = run / "features.json", run / "vocabularies" / "category.parquet"
    kept = features.read_text(encoding="utf-8")
    for strange in ("[]", "1", '{"spec": []}', "[" * 100_000, "9" * 10_000, kept[:-20]):
        features.write_text(strange, encoding="utf-8")
        with pytest.raises(AdstoolError):
            FeatureEncoder.load(run)
    for key, value in (("unknown_buckets", 0), ("unknown_buckets", "x"), ("cardinalities", {}), ("spec", 1)):
        features.write_text(json.dumps({**json.loads(kept), key: value}), encoding="utf-8")
        with pytest.raises(AdstoolError):
            FeatureEncoder.load(run)
    features.write_text(kept, encoding="utf-8")
    rows = pq.read_metadata(vocabulary).num_rows
    for table in (
        pa.table({"value": ["x"] * (rows + 1)}),
        pa.table({"other": ["x"] * rows}),
        pa.table({"value": [[1]] * rows}),
        pa.table({"value": ["x"] * 10_000_000}),  # some kilobytes on disk
    ):
        pq.write_table(table, vocabulary)
        with pytest.raises(AdstoolError):
            FeatureEncoder.load(run)


def test_json_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(AdstoolError):
        read_json(tmp_path / "config.json")


CLIPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "far too wide": lambda c: c["model_cfg"]["text_cfg"].update(width=2**20, heads=2),
    "far too many words": lambda c: c["model_cfg"]["text_cfg"].update(vocab_size=2**33),
    "far too long": lambda c: c["model_cfg"]["text_cfg"].update(context_length=2**24),
    "a text tower from the hub": lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="evil/x"),
    "weights from the hub": lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_pretrained=True),
    "a picture tower from the hub": lambda c: c["model_cfg"]["vision_cfg"].update(
        timm_model_name="hf-hub:evil/x"
    ),
    "no towers": lambda c: c.pop("model_cfg"),
    "a key of its own": lambda c: c["model_cfg"].update(owned=1),
    "text for a number": lambda c: c["model_cfg"]["text_cfg"].update(context_length="x"),
    "a list": lambda c: c.update(model_cfg=[1]),
}


@pytest.mark.parametrize("name", CLIPS)
def test_a_strange_clip_is_refused_before_memory_is_given_or_the_network_asked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(shipped_folder(), tmp_path / "clip"))
    _changed(folder / "open_clip_config.json", CLIPS[name])
    monkeypatch.setattr("socket.socket.connect", _no_network)
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    with pytest.raises(AdstoolError) as refused:
        load_folder(folder)
    assert "cannot be loaded" in refused.value.message


def _no_network(*_: Any, **__: Any) -> None:
    raise AssertionError("the network was asked")


def test_a_checkpoint_that_unpacks_to_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {"visual.proj": torch.zeros(3, 3)}}, path)
    with pytest.raises(AdstoolError) as refused:
        load_clip(ClipSource("RN50", str(path), None, "x", "x"))
    assert "belongs to the model" in refused.value.hint
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(AdstoolError):
        load_clip(ClipSource("RN50", str(path), None, "x", "x"))
