"""Semantic ids: codebooks that turn a content vector into a short code, coarse to fine.

Level l holds vectors of which each item takes the one nearest to what the levels before left over
(residual quantization). Items that share the first codes look and read alike, so every prefix of an id is a
cluster, and an item nobody has seen shares its prefixes with items that everybody knows. An encoder (of the
RQ-VAE) may stand before the levels; all of it is arrays, and encoding is numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adstool.content.kmeans import CHUNK, nearest
from adstool.errors import AdstoolError
from adstool.progress import log
from adstool.workspace import Workspace, read_json, write_arrays

MODEL = "semantic"  # the name of the runs: models/semantic/<run>/
FILE = "codebooks.npz"
BITS = 8  # a level's code in a packed id; sizes are at most 1 << BITS
MAX_LEVELS = 6
NO_CODE = -1
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]  # (weights [in, out], biases [out]) each


@dataclass(frozen=True)
class Codebooks:
    """What turns vectors into semantic ids.

    levels: float32 [K, d] each. encoder: dense layers D -> d with ReLU between, none where d is D already;
    decoder: back again. scale: what a vector is multiplied by before the encoder.
    """

    levels: tuple[np.ndarray, ...]
    encoder: Layers = ()
    decoder: Layers = ()
    scale: float = 1.0

    @property
    def dim(self) -> int:
        """D, the length of the content vectors that it reads."""
        return int(self.encoder[0][0].shape[0] if self.encoder else self.levels[0].shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes every level has."""
        return tuple(len(level) for level in self.levels)

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        layers = (*self.encoder, *self.decoder)
        return sum(level.size for level in self.levels) + sum(w.size + b.size for w, b in layers)

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """What the levels quantize: float64 [n, d].

        In double precision, so that an item's id does not depend on which other items are encoded with it:
        products of different shapes round differently.
        """
        return _dense(np.asarray(vectors, dtype=np.float64) * self.scale, self.encoder)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Semantic ids, int16 [n, L]; NO_CODE at every level for a vector of zeros (an item without content).

        Raises AdstoolError for vectors of another length than those it was made from.
        """
        if vectors.shape[1] != self.dim:
            raise AdstoolError(
                f"Vectors of {vectors.shape[1]} numbers cannot be given semantic ids: the codebooks are of "
                f"vectors of {self.dim}.",
                "Make the codebooks again: adstool train semantic.",
            )
        codes = np.full((len(vectors), len(self.levels)), NO_CODE, dtype=np.int16)
        centres = [level.astype(np.float64) for level in self.levels]
        for start in range(0, len(vectors), CHUNK):
            part = np.asarray(vectors[start : start + CHUNK])
            known = np.flatnonzero(np.abs(part).max(axis=1, initial=0.0) > 0)
            left = self.latent(part[known])
            for place, level in enumerate(centres):
                chosen = nearest(left, level)[0]
                left = left - level[chosen]
                codes[start + known, place] = chosen
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The vectors that ids stand for, by as many levels as they have: float64 [n, D]."""
        total = np.zeros((len(codes), self.levels[0].shape[1]))
        for place in range(codes.shape[1]):
            total += self.levels[place][codes[:, place]]
        return _dense(total, self.decoder) / self.scale

    def save(self, directory: Path) -> None:
        """Write codebooks.npz into `directory`, whole or not at all."""
        arrays = {f"level_{n}": level for n, level in enumerate(self.levels)}
        arrays["scale"] = np.asarray(self.scale)
        for name, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            for n, (weights, biases) in enumerate(layers):
                arrays[f"{name}_{n}_weights"], arrays[f"{name}_{n}_biases"] = weights, biases
        write_arrays(directory / FILE, arrays)

    @classmethod
    def load(cls, directory: Path) -> Codebooks:
        """What `save` wrote; raises AdstoolError when it is damaged or absent."""
        try:
            with np.load(directory / FILE, allow_pickle=False) as arrays:
                levels = tuple(arrays[f"level_{n}"] for n in range(_count(arrays, "level_{}")))
                encoder, decoder = _layers(arrays, "encoder"), _layers(arrays, "decoder")
                scale = float(arrays["scale"])
        except (OSError, ValueError, KeyError) as error:
            raise AdstoolError(
                f"{directory / FILE} cannot be used: {error}", "Make it again: adstool train semantic."
            ) from None
        if not levels:
            raise AdstoolError(f"{directory / FILE} holds no level.", "Make it again: adstool train semantic")
        return cls(levels, encoder, decoder, scale)


def _dense(values: np.ndarray, layers: Layers) -> np.ndarray:
    for place, (weights, biases) in enumerate(layers):
        values = values @ weights.astype(np.float64) + biases
        if place + 1 < len(layers):
            values = np.maximum(values, 0.0)
    return values


def _count(arrays: Mapping[str, np.ndarray], pattern: str) -> int:
    count = 0
    while pattern.format(count) in arrays:
        count += 1
    return count


def _layers(arrays: Mapping[str, np.ndarray], name: str) -> Layers:
    number = _count(arrays, name + "_{}_weights")
    return tuple((arrays[f"{name}_{n}_weights"], arrays[f"{name}_{n}_biases"]) for n in range(number))


def pack(codes: np.ndarray) -> np.ndarray:
    """Ids [n, L] as one number each, int64 [n], -1 without an id: an id's prefixes are its leading bits."""
    packed = np.zeros(len(codes), dtype=np.int64)
    for place in range(codes.shape[1]):
        packed = (packed << BITS) | np.maximum(codes[:, place].astype(np.int64), 0)
    known = codes[:, 0] >= 0 if codes.shape[1] else np.zeros(len(codes), dtype=bool)
    return np.where(known, packed, -1)


@dataclass(frozen=True)
class SemanticIds:
    """The codebooks of a run, by name."""

    run: str
    codebooks: Codebooks


def load_semantic_ids(ws: Workspace, run: str = "") -> SemanticIds | None:
    """The codebooks of a run, or, without one, of the run in use if it fits the vectors in use.

    None when nothing is in use or it was made for vectors of another model. Raises AdstoolError when the run
    asked for is gone, or is of another model than the vectors in use.
    """
    from adstool.content.vectors import active_model  # lancedb, which ranking does without

    folder = ws.models / MODEL / run if run else ws.current_run(MODEL)
    if folder is None:
        return None
    if not folder.is_dir():
        raise AdstoolError(
            f"Models were trained with semantic ids of {MODEL} {run}, which is gone.",
            "Train them again: adstool run.",
        )
    made_of = read_json(folder / "config.json").get("content")
    active = active_model(ws)
    if active is not None and made_of != active.slug:
        message = f"The codebooks of {MODEL} {folder.name} are of vectors of {made_of}, not of {active.slug}."
        if run:
            raise AdstoolError(message, "Make them again, and what reads them: adstool run.")
        log.warning("%s Items get no semantic ids: adstool train semantic.", message)
        return None
    return SemanticIds(folder.name, Codebooks.load(folder))
