"""A trained run as ONNX graphs, so that ranking needs no torch; each graph is compared with its model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from adstool.errors import AdstoolError
from adstool.features.engagements import SHARED_INPUTS
from adstool.models.engagement import EngagementModel
from adstool.models.inputs import Batch, InputSpec
from adstool.models.pairs import PairModel
from adstool.models.registry import load_model
from adstool.models.user_sequence import UserSequence
from adstool.serving.scorer import SHARED
from adstool.workspace import whole_file

OPSET = 18
TOLERANCE = 1e-4  # largest difference between ONNX Runtime and torch that counts as rounding
TRACED_ROWS = 3
CHECKED_ROWS = (1, 64)  # batches of other sizes than the traced one, so that a frozen batch size is seen


@dataclass(frozen=True)
class Graph:
    """One file of a run: what it reads, in order, and what it computes from that."""

    file: str
    inputs: tuple[str, ...]
    output: str
    compute: Callable[[Batch], Tensor]
    shared: tuple[str, ...] = ()  # inputs that may have one row for all


def export_run(run_dir: Path) -> list[Path]:
    """Write the graphs of the model in `run_dir` beside it and return their paths.

    A model of pairs gives user.onnx (-> "user" [B, U]), item.onnx (-> "item" [B, V]) and pair.onnx ("item"
    [B, V], "user" [1, U], "cross" [B, K] where it reads any -> "probability" [B, A]); a ranker gives
    model.onnx (-> "probability" [B, A], before calibration). Inputs carry the names of
    features.dataset.INPUTS; integers are int64, the rest float32, histories as long as the model reads them.
    A model of sequences gives user.onnx ("sequence" [B, T] -> "user" [B, d + 1]) and item.onnx ("code" [B] ->
    "item" [B, d + 1]).
    SHARED_INPUTS of a ranker have as many rows as the others or one that stands for all; what depends on
    them alone is then computed once.
    Raises AdstoolError when a graph's outputs differ from the model's by more than 1e-4.
    """
    model = load_model(run_dir)
    paths = []
    for graph in graphs_of(model):
        path = run_dir / graph.file
        with whole_file(path) as temporary:
            _write(model, graph, temporary)
            difference = _difference(model, graph, temporary)
            if not difference <= TOLERANCE:
                raise AdstoolError(
                    f"{path}: ONNX Runtime and torch differ by {difference:.2g} on random inputs.",
                    "Train it again; if it stays, this version of torch exports the model wrongly.",
                )
        paths.append(path)
    return paths


def graphs_of(model: nn.Module) -> tuple[Graph, ...]:
    """The graphs that a model is served by. Raises AdstoolError for a model nobody said how to serve."""
    if isinstance(model, PairModel):
        return (
            Graph("user.onnx", model.user_inputs, "user", model.user_row),
            Graph("item.onnx", model.item_inputs, "item", model.item_row),
            Graph(
                "pair.onnx",
                ("item", "user", *(("cross",) if len(model.cross) else ())),
                "probability",
                lambda batch: torch.sigmoid(model.pair(batch["user"], batch["item"], batch.get("cross"))),
                ("user",),
            ),
        )
    if isinstance(model, EngagementModel):
        return (
            Graph(
                "model.onnx",
                model.input_names,
                "probability",
                model.served,
                tuple(name for name in model.input_names if name in SHARED_INPUTS),
            ),
        )
    if isinstance(model, UserSequence):
        return (
            Graph("user.onnx", ("sequence",), "user", lambda batch: model.user_vectors(batch["sequence"])),
            Graph("item.onnx", ("code",), "item", lambda batch: model.item_vectors(batch["code"])),
        )
    raise AdstoolError(
        f"Models of the kind {type(model).__name__} cannot be exported for serving.",
        "This is a defect of adstool: report it with the command that you ran.",
    )


class _Positional(nn.Module):
    """A graph's computation with inputs by position, as the exporter calls it."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.model = model
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.graph.compute(dict(zip(self.graph.inputs, inputs, strict=True)))


def _write(model: nn.Module, graph: Graph, path: Path) -> None:
    # Traced with one row of the shared inputs, the graph holds what broadcasts them; it then takes many too.
    batch = _one_shared(graph, _some_inputs(model, TRACED_ROWS))
    axes = {name: {0: SHARED if name in graph.shared else "batch"} for name in graph.inputs}
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter is marked as legacy, but takes .2 s where the other one takes 6 s, and our
        # models have no control flow that a trace would miss; the comparison below would tell.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Positional(model, graph).eval(),
            tuple(batch[name] for name in graph.inputs),
            str(path),
            input_names=list(graph.inputs),
            output_names=[graph.output],
            dynamic_axes={**axes, graph.output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def _difference(model: nn.Module, graph: Graph, path: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    made = [_some_inputs(model, rows, seed=rows) for rows in CHECKED_ROWS]
    for batch in [*made, *([_one_shared(graph, made[-1])] if graph.shared else [])]:
        with torch.no_grad():
            wanted = graph.compute(batch).numpy()
        feed = {name: batch[name].numpy() for name in graph.inputs}
        got = session.run([graph.output], feed)[0]
        if got.shape != wanted.shape:
            return float("inf")
        worst = max(worst, float(np.abs(got - wanted).max()))
    return worst


def _some_inputs(model: nn.Module, rows: int, seed: int = 0) -> Batch:
    """Random inputs of `rows` rows that this model accepts."""
    if not isinstance(model, UserSequence):
        long_history = int(getattr(model.config, "long_history", 0))
        batch = random_inputs(_spec(model), rows, _history_used(model), seed, long_history)
        return {**batch, **_rows_of(model, batch)} if isinstance(model, PairModel) else batch
    random, config = np.random.default_rng(seed), model.config
    filled = np.arange(config.length) < random.integers(0, config.length + 1, (rows, 1))
    sequence = random.integers(1, config.items, (rows, config.length)) * filled
    code = random.integers(0, config.items, rows)
    return {"sequence": torch.from_numpy(sequence), "code": torch.from_numpy(code)}


@torch.no_grad()
def _rows_of(model: PairModel, batch: Batch) -> Batch:
    """What the pair graph reads: items' rows, the first user's row, and cross features if any."""
    cross = model.crossed(batch)
    rows = {"item": model.item_row(batch), "user": model.user_row(batch)[:1]}
    return rows if cross is None else {**rows, "cross": cross}


def _one_shared(graph: Graph, batch: Batch) -> Batch:
    return {name: value[:1] if name in graph.shared else value for name, value in batch.items()}


def random_inputs(
    spec: InputSpec, rows: int, history_used: int, seed: int = 0, long_history: int = 0
) -> Batch:
    """Inputs of `rows` random rows that a model of this spec accepts: every code within its vocabulary."""
    random = np.random.default_rng(seed)
    history = min(spec.history_length, history_used) if history_used else spec.history_length

    def codes(column: int, shape: tuple[int, ...]) -> Any:
        return random.integers(0, spec.cardinalities[column] if column >= 0 else 1, shape)

    filled = np.arange(history)[None, :] < random.integers(0, history + 1, (rows, 1))
    arrays: dict[str, Any] = {
        "categorical": np.stack([codes(f, (rows,)) for f in range(len(spec.cardinalities))], axis=1)
        if spec.cardinalities
        else np.zeros((rows, 0), dtype=np.int64),
        "numeric": random.normal(size=(rows, len(spec.numeric))),
        "item_content": random.normal(size=(rows, max(spec.content_dim, 1))),
        "user_content": random.normal(size=(rows, max(spec.content_dim, 1))),
        "history_item": codes(spec.field(spec.history_item), (rows, history)) * filled,
        "history_category": codes(spec.field(spec.history_category), (rows, history)) * filled,
        "history_action": random.integers(1, len(spec.actions) + 1, (rows, history)) * filled,
        "history_age": random.uniform(0, 6, (rows, history)) * filled,
        "position": random.integers(0, 100, rows),
        "history_content": random.normal(size=(rows, history, max(spec.content_dim, 1))) * filled[..., None],
        **(_random_nearest(spec, rows, long_history, random) if long_history else {}),
    }
    return {
        name: torch.from_numpy(value.astype(np.int64 if value.dtype.kind == "i" else np.float32))
        for name, value in arrays.items()
    }


def _random_nearest(spec: InputSpec, rows: int, n: int, random: np.random.Generator) -> dict[str, Any]:
    filled = np.arange(n)[None, :] < random.integers(0, n + 1, (rows, 1))

    def codes(name: str) -> Any:
        return random.integers(0, spec.cardinalities[spec.field(name)] if name else 1, (rows, n)) * filled

    return {
        "nearest_item": codes(spec.history_item),
        "nearest_category": codes(spec.history_category),
        "nearest_action": random.integers(1, len(spec.actions) + 1, (rows, n)) * filled,
        "nearest_age": random.uniform(0, 6, (rows, n)) * filled,
        "nearest_content": random.normal(size=(rows, n, max(spec.content_dim, 1))) * filled[..., None],
    }


def _spec(model: nn.Module) -> InputSpec:
    spec = getattr(model.config, "inputs", None)
    assert isinstance(spec, InputSpec)
    return spec


def _history_used(model: nn.Module) -> int:
    return int(getattr(model.config, "history_used", 0) or 0)
