"""Nearest vectors by inner product: exact, by clusters of our own or through an index of LanceDB; `index
--tune` measures which.

What is used before anything was measured on the data at hand is itself measured (one core, 200,000 vectors of
32 numbers, top 2,000, all in one run): an exact product takes 3.3 ms, IVF_FLAT of LanceDB 8.1, clusters .7,
each of the last two with 60 of 447 looked into and everything found. At 50,000 and fewer the product finds
everything at a similar cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from adstool.errors import AdstoolError
from adstool.funnel.ivf import IvfIndex
from adstool.serving.rows import Rows

EXACT_ROWS = 50_000  # rows up to which the search is an exact product, unless measured otherwise
PROBES = 60
MAX_PARTITIONS = 2048
SLACK = 1.2  # how much more is asked for where a filter takes some away afterwards
FEW = 4  # times k: as many allowed vectors are compared exactly, whatever the index
KINDS = ("exact", "ivf", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw_sq")  # the last four are LanceDB's
ROUGH = ("ivf_sq", "ivf_pq", "hnsw_sq")  # their distances are of rounded vectors


@dataclass(frozen=True)
class AnnChoice:
    """A way of searching: the kind of index and its parameters."""

    kind: str = "exact"  # one of KINDS
    partitions: int = 0  # clusters of the vectors
    probes: int = 0  # clusters looked into
    refine: float = 1.0  # of a rough index so many times k are taken, and ordered by their exact products

    @classmethod
    def usual(cls, rows: int) -> AnnChoice:
        """What is used for so many vectors as long as nothing was measured on them."""
        if rows <= EXACT_ROWS:
            return cls()
        return cls("ivf", min(2 * int(math.sqrt(rows)), MAX_PARTITIONS), PROBES)


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

    def __init__(self, vectors: Rows) -> None:
        self.vectors = vectors

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See VectorIndex. query: [d], or [d, m] for the largest of the products with m queries."""
        rows = np.flatnonzero(allowed)
        whole = len(rows) * 2 > len(allowed)
        products = (self.vectors if whole else self.vectors[rows]) @ query
        if products.ndim == 2:
            products = products.max(axis=1)
        scores = products[rows] if whole else products
        chosen = best(scores, k)
        return rows[chosen], scores[chosen]


def search_any(
    index: VectorIndex, queries: np.ndarray, k: int, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The at most k allowed positions with the largest product with any query of [m, d], m > 0: positions
    and products as of `search`."""
    if isinstance(index, ExactIndex):  # all vectors pass once, not once a query
        return index.search(queries.T, k, allowed)
    found = [index.search(query, k, allowed) for query in queries]
    positions = np.concatenate([positions for positions, _ in found])
    scores = np.concatenate([scores for _, scores in found])
    order = np.lexsort((positions, -scores))
    _, first = np.unique(positions[order], return_index=True)
    kept = order[np.sort(first)][:k]
    return positions[kept], scores[kept]


class LanceIndex:
    """An index of LanceDB over a table of (position, vector)."""

    def __init__(self, choice: AnnChoice, vectors: Rows, folder: Path, name: str) -> None:
        import lancedb

        self._choice, self._vectors = choice, vectors
        try:
            self._table = lancedb.connect(str(folder)).open_table(name)
        except (ValueError, OSError) as error:
            raise AdstoolError(f"{folder} holds no index '{name}': {error}", "Run adstool index.") from None

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See VectorIndex. The filter is applied to what the index finds, which costs least (BASELINES).

        Where hardly more than k are allowed, or too few of them are found, the allowed ones are compared
        exactly: a filter never costs a candidate.
        """
        able = int(np.count_nonzero(allowed))
        share = able / max(len(allowed), 1)
        if share == 0.0 or k <= 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        if share < 1.0 and able < FEW * k:
            return ExactIndex(self._vectors).search(query, k, allowed)
        asked = k if share == 1.0 else math.ceil(k * SLACK / share)
        query = np.asarray(query, dtype=np.float32)
        search = self._table.search(query).distance_type("dot")
        if self._choice.probes:
            search = search.nprobes(self._choice.probes)
        found = (
            search.select(["position", "_distance"])
            .limit(min(len(allowed), math.ceil(asked * self._choice.refine)))
            .to_arrow()
        )
        positions = found["position"].to_numpy()
        kept = allowed[positions]
        positions = positions[kept].astype(np.int64)
        if self._choice.kind in ROUGH:
            scores = self._vectors[positions] @ query
        else:
            scores = (1.0 - found["_distance"].to_numpy()[kept]).astype(np.float32)
        if len(positions) < min(k, able):
            return ExactIndex(self._vectors).search(query, k, allowed)
        order = np.lexsort((positions, -scores))[:k]
        return positions[order], scores[order]


def store_vectors(vectors: Rows, folder: Path, name: str) -> Any:
    """A LanceDB table of (position, vector), replacing one of that name."""
    import lancedb
    import pyarrow as pa

    columns: dict[str, Any] = {
        "position": pa.array(np.arange(len(vectors), dtype=np.int64)),
        "vector": pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel()), vectors.shape[1]
        ),
    }
    return lancedb.connect(str(folder)).create_table(name, pa.table(columns), mode="overwrite")


def create_index(table: Any, choice: AnnChoice, dim: int) -> None:
    """Index the vectors of a table of `store_vectors`, replacing an index that is there."""
    from lancedb.index import HnswSq, IvfFlat, IvfPq, IvfSq

    config: Any
    if choice.kind == "ivf_flat":
        config = IvfFlat(distance_type="dot", num_partitions=choice.partitions)
    elif choice.kind == "ivf_sq":
        config = IvfSq(distance_type="dot", num_partitions=choice.partitions)
    elif choice.kind == "ivf_pq":
        parts = dim // 4 if dim % 4 == 0 else None  # four numbers a code; LanceDB's own choice otherwise
        config = IvfPq(distance_type="dot", num_partitions=choice.partitions, num_sub_vectors=parts)
    else:
        config = HnswSq(distance_type="dot", num_partitions=choice.partitions)
    table.create_index("vector", config=config, replace=True)


def build_ann(vectors: Rows, folder: Path, name: str, choice: AnnChoice) -> None:
    """Write what `open_ann` will search besides the vectors themselves."""
    if choice.kind == "ivf":
        IvfIndex.build(vectors, choice.partitions, folder, name)
    elif choice.kind != "exact":
        create_index(store_vectors(vectors, folder, name), choice, vectors.shape[1])


def open_ann(choice: AnnChoice, vectors: Rows, folder: Path, name: str) -> VectorIndex:
    """The index that `build_ann` made of these vectors."""
    if choice.kind == "exact":
        return ExactIndex(vectors)
    if choice.kind == "ivf":
        return IvfIndex(folder, name, choice.probes)
    return LanceIndex(choice, vectors, folder, name)
