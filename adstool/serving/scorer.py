"""Scoring with exported graphs through ONNX Runtime. No torch here: this is what `rank` loads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from adstool.errors import AdstoolError
from adstool.features.encoder import FeatureEncoder, feature_digest
from adstool.features.engagements import NOTHING, SHARED_INPUTS, SequenceNeeds
from adstool.progress import log
from adstool.serving.graph_check import check_graph
from adstool.training.calibration import GROUPS, Calibration
from adstool.training.calibration import NAME as CALIBRATION
from adstool.workspace import read_json

QUANTIZATION = "quantization.json"  # what `quantize` measured, and whether its graphs are in use
CHUNK = 4096  # rows scored at once, so that memory stays flat
SHARED = "shared"  # the name of a graph's dimension that is its rows, or one that stands for all

_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


def graph_file(file: str, variant: str) -> str:
    """An exported file in one of its forms: model.onnx, and model.int8.onnx for the variant ".int8"."""
    return file.removesuffix(".onnx") + variant + ".onnx"


def quantized_variant(run_dir: Path) -> str:
    """The ending of the run's quantized graphs that passed their gate, such as ".int8"; "" without any."""
    path = run_dir / QUANTIZATION
    document = read_json(path) if path.is_file() else {}
    return f".{document.get('scheme', 'int8')}" if document.get("in_use") else ""


def as_served(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of inputs as serving gives them: the first row of what candidates share stands for all."""
    return {name: value[:1] if name in SHARED_INPUTS else value for name, value in inputs.items()}


class GraphSession:
    """One exported graph; `threads` is set once, here."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A CPU without VNNI else adds pairs of int8 products in 16 bits, which overflow: of random bytes
        # 98.8 % of the sums were wrong on such an EPYC, and with this none; the ranker takes 13 % longer.
        options.add_session_config_entry("session.x64quantprecision", "1")
        check_graph(path)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            self._inputs = [(i.name, _TYPES[i.type], i.shape) for i in self._session.get_inputs()]
        except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
            reason = str(error).rstrip(". \n")
            raise AdstoolError(f"{path} cannot be loaded: {reason}.", "Train the model again.") from None
        self.output = str(self._session.get_outputs()[0].name)

    @property
    def input_names(self) -> list[str]:
        """The inputs the graph reads (those it turned out not to need are gone)."""
        return [name for name, _, _ in self._inputs]

    def feed(self, inputs: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """The inputs in the types of the graph, histories cut to the length it reads.

        One row that stands for all is given as it is to a graph that takes it so, repeated to the others.
        """
        result = {}
        for name, kind, shape in self._inputs:
            value = inputs[name]
            if len(shape) > 1 and isinstance(shape[1], int):
                value = value[:, : shape[1]]
            if len(value) != rows and shape[0] != SHARED:
                value = np.broadcast_to(value, (rows, *value.shape[1:]))
            result[name] = np.ascontiguousarray(value, dtype=kind)
        return result

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The graph's output, float32 [n, ...], for n rows of inputs; some may have one row for all."""
        names = [*(name for name in self.input_names if name not in SHARED_INPUTS), *self.input_names]
        rows = len(inputs[names[0]])
        parts = []
        for start in range(0, max(rows, 1), CHUNK):
            stop = min(start + CHUNK, rows)
            part = {k: v[start:stop] if len(v) == rows else v for k, v in inputs.items()}
            parts.append(self._session.run(None, self.feed(part, stop - start))[0])
        return np.asarray(parts[0] if len(parts) == 1 else np.concatenate(parts))


class RunScorer:
    """What every scorer reads from a run's folder."""

    def __init__(
        self,
        run_dir: Path,
        *,
        quantized: bool = True,
        threads: int = 1,
        variant: str | None = None,
    ) -> None:
        """quantized: False takes full precision also where quantized graphs passed their gate.

        variant: a form of the graphs by the ending of their names, whatever `quantized` says.
        """
        self.run_dir = run_dir
        self.chosen = variant is not None
        self.variant = variant if variant is not None else quantized_variant(run_dir) if quantized else ""
        self.threads = threads
        self.config: dict[str, Any] = read_json(run_dir / "config.json")

    def session(self, file: str) -> GraphSession:
        """A graph of the run in the form in use; in full precision where that form cannot be loaded."""
        try:
            return GraphSession(self.run_dir / graph_file(file, self.variant), self.threads)
        except AdstoolError as error:
            if self.chosen or not self.variant:
                raise
            log.warning("%s Full precision serves instead: adstool quantize mends it.", error.message)
            self.variant = ""  # for all graphs of the run, and said once
            return GraphSession(self.run_dir / file, self.threads)

    @cached_property
    def encoder(self) -> FeatureEncoder:
        """The features the model was trained on."""
        return FeatureEncoder.load(self.run_dir)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The heads, in the order of the columns: names of actions, or of a retrieval head."""
        return tuple(self.config["outputs"])

    @cached_property
    def needs(self) -> SequenceNeeds:
        """What the model reads of histories beside dataset.INPUTS."""
        config = self.config.get("config", {})
        if config.get("sequence", "none") == "none":
            return NOTHING
        content = config["inputs"]["content_dim"] > 0
        used = min(config["history_used"], config["inputs"]["history_length"])
        return SequenceNeeds(used if content else 0, config.get("long_history", 0), content)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The run's calibration, None when it has none."""
        path = self.run_dir / CALIBRATION
        return Calibration.load(path) if path.is_file() else None

    def calibrated(self, probability: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Probabilities [n, A] after the run's calibration, by surface and vertical where there are."""
        if self.calibration is None:
            return probability
        columns = self.config["config"]["inputs"]["categorical"]
        codes = {name: categorical[:, columns.index(name)] for name in GROUPS if name in columns}
        return np.asarray(self.calibration.apply(probability, codes))


class Scorer(RunScorer):
    """A ranker's run: probabilities of every action for rows of inputs.

    Raises AdstoolError when the run was not exported.
    """

    @cached_property
    def _session(self) -> GraphSession:
        return self.session("model.onnx")

    @cached_property
    def amounts(self) -> tuple[str, ...]:
        """The actions with an expected amount, in the order of the columns behind the probabilities."""
        return tuple(self.config["config"]["inputs"].get("amounts", ()))

    @cached_property
    def typical(self) -> dict[str, float]:
        """The mean amount of training where it happened, by action that has one."""
        return dict(zip(self.amounts, self.config.get("typical_amounts", ()), strict=True))

    def raw(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities [n, A] as the model gives them, float32."""
        return self._session.run(inputs)[:, : len(self.outputs)]

    def predict(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Calibrated probabilities [n, A]."""
        return self.calibrated(self.raw(inputs), inputs["categorical"])

    def predict_worth(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities [n, A], and what the utility weighs: those of binary actions, and expected
        amounts of the others in typical ones (the mean of training where it happened), [n, A]."""
        out = self._session.run(inputs)
        heads = len(self.outputs)
        probability = self.calibrated(out[:, :heads], inputs["categorical"])
        if not self.amounts:
            return probability, probability
        factors = self.calibration.amounts if self.calibration else ()
        worth = probability.copy()
        for place, name in enumerate(self.amounts):
            factor = factors[place] if factors else 1.0
            worth[:, self.outputs.index(name)] = out[:, heads + place] * factor
        return probability, worth


class SidesScorer(RunScorer):
    """A run whose users and items are encoded apart, by user.onnx and item.onnx.

    Raises AdstoolError when the run was not exported.
    """

    @cached_property
    def _user(self) -> GraphSession:
        return self.session("user.onnx")

    @cached_property
    def _item(self) -> GraphSession:
        return self.session("item.onnx")

    def user(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows of users and contexts, float32 [n, U]."""
        return self._user.run(inputs)

    def item(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows of items, float32 [n, V]: what the index holds."""
        return self._item.run(inputs)


class TowerScorer(SidesScorer):
    """A two-tower run of retrieval: unit vectors of users and of items."""

    @property
    def heads(self) -> int:
        """H, the number of vectors a side."""
        return len(self.outputs)

    def user(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors of users and contexts, float32 [n, H, d]."""
        vectors = super().user(inputs)
        return vectors.reshape(len(vectors), self.heads, -1)

    def item(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors of items, float32 [n, H, d]."""
        vectors = super().item(inputs)
        return vectors.reshape(len(vectors), self.heads, -1)


def share_encoders(*scorers: RunScorer) -> None:
    """Let scorers of runs with equal feature files hold one encoder, so that its codes are made once."""
    known: dict[str, FeatureEncoder] = {}
    for scorer in scorers:
        key = feature_digest(scorer.run_dir)
        if key not in known:
            known[key] = scorer.encoder
        scorer.encoder = known[key]
