"""Nearest vectors by inner product: exact for small corpora, an IVF index in LanceDB for large ones.

The limit between them is measured (2 shared cores, 64 numbers a vector, top 500, both in one run): at
200,000 vectors an exact product takes ten times as long as IVF_FLAT with 60 of 450 partitions, whose
recall@100 is .97 and more; at 50,000 and fewer the product finds everything at a similar cost, and spares the
1.6 s of importing lancedb.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from adstool.errors import AdstoolError

EXACT_ROWS = 50_000  # rows up to which the search is an exact product
PROBES = 60
MAX_PARTITIONS = 1024
SLACK = 1.2  # how much more is asked for where a filter takes some away afterwards


class VectorIndex(Protocol):
    """Vectors at positions 0 .. n - 1 that can be searched."""

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The at most k allowed positions with the largest products with `query` [d], best first.

        allowed: bool [n]. Returns positions int64 and products float32; equal products go by position.
        """
        ...


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest scores, best first, equal ones by index."""
    if k <= 0:
        return np.zeros(0, dtype=np.int64)
    if k < len(scores):
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= last)
        return np.asarray(kept[np.argsort(-scores[kept], kind="stable")][:k])
    return np.argsort(-scores, kind="stable")


class ExactIndex:
    """A product with every vector; `vectors` float32 [n, d] may be memory-mapped."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See VectorIndex."""
        rows = np.flatnonzero(allowed)
        products = self.vectors @ query if len(rows) * 2 > len(allowed) else None
        scores = products[rows] if products is not None else self.vectors[rows] @ query
        chosen = best(scores, k)
        return rows[chosen], scores[chosen]


class LanceIndex:
    """An IVF_FLAT index over a LanceDB table of (position, vector)."""

    def __init__(self, folder: Path, name: str) -> None:
        import lancedb

        try:
            self._table = lancedb.connect(str(folder)).open_table(name)
        except (ValueError, OSError) as error:
            raise AdstoolError(f"{folder} holds no index '{name}': {error}", "Run adstool index.") from None

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See VectorIndex. The filter is applied to what the index finds, which costs least (BASELINES)."""
        share = float(allowed.mean())
        if share == 0.0 or k <= 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        asked = min(len(allowed), math.ceil(k * SLACK / share))
        found = (
            self._table.search(np.asarray(query, dtype=np.float32))
            .distance_type("dot")
            .nprobes(PROBES)
            .select(["position", "_distance"])
            .limit(asked)
            .to_arrow()
        )
        positions = found["position"].to_numpy()
        scores = (1.0 - found["_distance"].to_numpy()).astype(np.float32)
        kept = allowed[positions]
        order = np.lexsort((positions[kept], -scores[kept]))[:k]
        return positions[kept][order].astype(np.int64), scores[kept][order]


def build_ann(vectors: np.ndarray, folder: Path, name: str) -> str:
    """Write what `open_ann` will search besides the vectors themselves; returns the kind of index."""
    if len(vectors) <= EXACT_ROWS:
        return "exact"
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfFlat

    columns: dict[str, Any] = {
        "position": pa.array(np.arange(len(vectors), dtype=np.int64)),
        "vector": pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel()), vectors.shape[1]
        ),
    }
    table = lancedb.connect(str(folder)).create_table(name, pa.table(columns), mode="overwrite")
    partitions = min(int(math.sqrt(len(vectors))), MAX_PARTITIONS)
    table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=partitions))
    return "ivf_flat"


def open_ann(kind: str, vectors: np.ndarray, folder: Path, name: str) -> VectorIndex:
    """The index that `build_ann` made of these vectors."""
    return ExactIndex(vectors) if kind == "exact" else LanceIndex(folder, name)
