"""What the same users engaged with: items by shrunk cosine, as a baseline and as the start of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh

Codes = NDArray[np.int64]

ROUNDING = 1e-12  # eigenvalues below are none: those of a kernel of cosines are near 1


class CoEngagement:
    """K[a, b] = Σ_u length_u^-damping ÷ √((n_a + shrinkage)(n_b + shrinkage)) over the users u who engaged
    with both a and b, n how many engaged with an item; 0 on the diagonal.

    With shrinkage and damping 0 it is the cosine of item-based collaborative filtering (Sarwar et al. 2001).
    Shrinkage keeps two items of one user each from counting as alike; damping takes weight from users who
    engaged with everything. K is never written out: products with it are products with users × items.
    """

    def __init__(
        self, sequences: Sequence[Codes], items: int, shrinkage: float = 20.0, damping: float = 0.5
    ) -> None:
        """sequences: codes 0 .. items - 1 of every user; a repeated one counts once."""
        lengths = np.array([len(one) for one in sequences], dtype=np.int64)
        users = np.repeat(np.arange(len(sequences)), lengths)
        codes = np.concatenate([np.zeros(0, dtype=np.int64), *sequences])
        seen = sparse.csr_matrix((np.ones(len(codes)), (users, codes)), shape=(len(sequences), items))
        seen.data[:] = 1.0
        self.counts = np.asarray(seen.sum(axis=0)).ravel()
        weight = sparse.diags(np.maximum(lengths, 1.0) ** (-damping / 2.0))
        shrunk = sparse.diags(1.0 / np.sqrt(np.maximum(self.counts + shrinkage, 1.0)))
        self._seen = sparse.csr_matrix(weight @ seen @ shrunk)
        self._back = sparse.csr_matrix(self._seen.T)
        self._own = np.asarray(self._seen.power(2).sum(axis=0)).ravel()

    def scores(self, histories: Sequence[Codes], decay: float = 1.0) -> NDArray[np.float64]:
        """Σ_k decay^k K[h_k, ·] of every history, h_0 the newest: [n, items]."""
        past = recency_weighted(histories, len(self._own), decay)
        whole = (past @ self._back @ self._seen).toarray()
        return np.asarray(whole - past.multiply(self._own).toarray())

    def embedding(self, dim: int, seed: int = 0) -> NDArray[np.float32]:
        """Vectors [items, dim] whose products come nearest to K: its first eigenvectors, each times the root
        of its eigenvalue; one whose eigenvalue is not positive is left out as zeros."""
        items = len(self._own)
        vectors = np.zeros((items, dim))
        width = min(dim, items - 1)
        if width < 1 or not self._seen.nnz:
            return vectors.astype(np.float32)

        def product(x: NDArray[Any]) -> NDArray[Any]:
            flat = x.ravel()
            return np.asarray(self._back @ (self._seen @ flat) - self._own * flat)

        kernel = LinearOperator((items, items), matvec=product, dtype=np.float64)
        start = np.random.default_rng(seed).normal(size=items)
        values, left = eigsh(kernel, k=width, which="LA", v0=start)
        values[values < ROUNDING] = 0.0  # of a kernel without any pair, whose eigenvalues are all zero
        vectors[:, :width] = left * np.sqrt(values)
        vectors[np.abs(vectors) < 1e-12] = 0.0  # rounding, of items that go with no other
        return vectors.astype(np.float32)


def recency_weighted(histories: Sequence[Codes], items: int, decay: float) -> sparse.csr_matrix:
    """decay^k at the k-th newest code of each history, repeats summed: [n, items]."""
    lengths = np.array([len(one) for one in histories], dtype=np.int64)
    rows = np.repeat(np.arange(len(histories)), lengths)
    weights = [decay ** np.arange(len(one), dtype=np.float64)[::-1] for one in histories]
    values = np.concatenate([np.zeros(0), *weights])
    codes = np.concatenate([np.zeros(0, dtype=np.int64), *histories])
    return sparse.csr_matrix((values, (rows, codes)), shape=(len(histories), items))
