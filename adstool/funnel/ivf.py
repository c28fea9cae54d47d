"""Vectors in clusters, memory-mapped: a query is compared with those of the clusters nearest to it alone.

The same method as an inverted file of LanceDB, without its query planner: a search costs the products and
little else, what may not be shown is left out while searching, and nothing has to be imported. Measured
beside LanceDB by `index --tune`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adstool.content.kmeans import kmeans, nearest
from adstool.errors import AdstoolError
from adstool.features.mapping import mapped
from adstool.serving.rows import Rows, load_rows, save_rows

SAMPLED = 64  # vectors a cluster from which the centres are learned
PARTS = ("centres", "starts", "positions")  # beside the vectors


class IvfIndex:
    """Vectors by cluster; see VectorIndex of adstool.funnel.ann for `search`."""

    def __init__(self, folder: Path, name: str, probes: int) -> None:
        """What `build` wrote; `probes` clusters are looked into. Raises AdstoolError when it is not whole."""
        try:
            arrays = [mapped(folder / f"{name}.{part}.npy") for part in PARTS]
            self._vectors = load_rows(folder / f"{name}.vectors.npy")  # [n, d], cluster by cluster
        except (OSError, ValueError, EOFError) as error:
            raise AdstoolError(f"{folder} holds no index '{name}': {error}", "Run adstool index.") from None
        self._centres = np.array(arrays[0])  # float32 [P, d]
        self._starts = np.array(arrays[1])  # int64 [P + 1], of every cluster, and the end
        self._positions = arrays[2]  # int64 [n]
        self._probes = probes

    @staticmethod
    def build(vectors: Rows, partitions: int, folder: Path, name: str) -> None:
        """Cluster the vectors [n, d] and write them, cluster by cluster, into `folder`.

        The same vectors give the same files.
        """
        rng = np.random.default_rng(0)
        drawn = rng.choice(len(vectors), min(len(vectors), SAMPLED * partitions), replace=False)
        sample = np.asarray(vectors[np.sort(drawn)], dtype=np.float32)
        centres = kmeans(sample, min(partitions, len(sample)), rng)
        cluster, _ = nearest(np.asarray(vectors), centres)
        order = np.argsort(cluster, kind="stable")
        starts = np.searchsorted(cluster[order], np.arange(len(centres) + 1))
        folder.mkdir(parents=True, exist_ok=True)
        for part, array in zip(PARTS, (centres, starts, order), strict=True):
            save_rows(folder / f"{name}.{part}.npy", array)
        save_rows(folder / f"{name}.vectors.npy", vectors.take(order, axis=0))

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See VectorIndex. Where the clusters looked into hold fewer than k allowed vectors, more of them are
        looked into, so that k are found where there are as many."""
        if k <= 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        query = np.asarray(query, dtype=np.float32)
        nearest_first = np.argsort(-(self._centres @ query), kind="stable")
        probes = self._probes
        while True:
            positions, scores = self._best(nearest_first[:probes], query, k, allowed)
            if len(positions) >= k or probes >= len(nearest_first):
                order = np.lexsort((positions, -scores))[:k]
                return positions[order], scores[order]
            probes *= 4

    def _best(
        self, clusters: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """At least the k best allowed vectors of these clusters, all of them where there are fewer: positions
        and products, in no order."""
        starts, stops = self._starts[clusters], self._starts[clusters + 1]
        ends = np.cumsum(stops - starts)
        products = np.empty(int(ends[-1]), dtype=np.float32)
        place = 0
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            end = place + stop - start
            np.dot(self._vectors[start:stop], query, out=products[place:end])
            place = end
        taken = 2 * k  # most vectors are allowed as a rule: only the best few are looked up
        while True:
            if taken < len(products):
                last = np.partition(products, len(products) - taken)[len(products) - taken]
                few = np.flatnonzero(products >= last)
            else:
                few = np.arange(len(products))
            cluster = np.searchsorted(ends, few, side="right")
            positions = self._positions[few - ends[cluster] + stops[cluster]]
            kept = allowed[positions]
            if kept.sum() >= k or taken >= len(products):
                return positions[kept], products[few[kept]]
            taken *= 4
