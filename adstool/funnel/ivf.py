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
from adstool.features.items import mapped
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
        self._starts = arrays[1].tolist()  # of every cluster, and the end
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
        query = np.asarray(query, dtype=np.float32)
        nearest_first = np.argsort(-(self._centres @ query), kind="stable")
        seen, wanted = 0, self._probes
        positions, scores = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        while seen < len(nearest_first) and (len(positions) < k or not seen):
            found, products = self._scan(nearest_first[seen:wanted].tolist(), query)
            kept = allowed[found]
            positions = np.concatenate([positions, found[kept]])
            scores = np.concatenate([scores, products[kept]])
            seen, wanted = wanted, 2 * wanted
        if 0 < k < len(scores):
            last = np.partition(scores, len(scores) - k)[len(scores) - k]
            near = scores >= last
            positions, scores = positions[near], scores[near]
        order = np.lexsort((positions, -scores))[:k] if k > 0 else np.zeros(0, dtype=np.int64)
        return positions[order], scores[order]

    def _scan(self, clusters: list[int], query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and products of all vectors of these clusters."""
        ranges = [(self._starts[cluster], self._starts[cluster + 1]) for cluster in clusters]
        total = sum(stop - start for start, stop in ranges)
        products = np.empty(total, dtype=np.float32)
        positions = np.empty(total, dtype=np.int64)
        place = 0
        for start, stop in ranges:
            end = place + stop - start
            np.dot(self._vectors[start:stop], query, out=products[place:end])
            positions[place:end] = self._positions[start:stop]
            place = end
        return positions, products
