"""k-means in numpy, and the residual quantizer made of it: each level of what the ones before left over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ITERATIONS = 40  # of Lloyd's algorithm, at most
SETTLED = 1e-4  # stop when the error falls by less than this share
CHUNK = 16_384  # rows whose distances are held at once
SEEDED = 16_384  # points that starting centres are drawn from


def nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centre nearest to every point, int64 [n], and the squared distance to it, [n]; the first of equals.

    points: [n, d]; centres: [k, d].
    """
    squares = np.einsum("kd,kd->k", centres, centres)
    codes = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=points.dtype)
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        off = squares - 2.0 * (part @ centres.T)
        chosen = off.argmin(axis=1)
        codes[start : start + CHUNK] = chosen
        smallest = off[np.arange(len(part)), chosen] + np.einsum("nd,nd->n", part, part)
        distances[start : start + CHUNK] = np.maximum(smallest, 0.0)
    return codes, distances


def seed_centres(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k starting centres by greedy k-means++ (Arthur and Vassilvitskii 2007), [k, d].

    Each is the best of a few points drawn with chances in proportion to their squared distances from the
    centres before it. A sample of SEEDED points stands for more of them.
    """
    if len(points) > SEEDED:
        points = points[rng.choice(len(points), SEEDED, replace=False)]
    squares = np.einsum("nd,nd->n", points, points)
    trials = 2 + int(np.log(k))
    centres = np.empty((k, points.shape[1]), dtype=points.dtype)
    centres[0] = points[rng.integers(len(points))]
    left = nearest(points, centres[:1])[1].astype(np.float64)
    for place in range(1, k):
        total = left.sum()
        # Without any distance left every point is a centre already.
        chances = left / total if total > 0 else None
        drawn = points[rng.choice(len(points), trials, p=chances)]
        off = squares[:, None] - 2.0 * (points @ drawn.T) + np.einsum("kd,kd->k", drawn, drawn)
        remaining = np.minimum(left[:, None], np.maximum(off, 0.0))
        best = int(remaining.sum(axis=0).argmin())
        centres[place], left = drawn[best], remaining[:, best]
    return centres


def kmeans(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k centres by Lloyd's algorithm from a k-means++ start, [k, d]; a centre that lost all its points takes
    the point farthest from its own."""
    centres = seed_centres(points, k, rng)
    before = np.inf
    for _ in range(ITERATIONS):
        codes, distances = nearest(points, centres)
        error = float(distances.sum(dtype=np.float64))
        if error >= before * (1.0 - SETTLED):
            break
        before = error
        centres = means(points, codes, centres)
        empty = np.flatnonzero(np.bincount(codes, minlength=k) == 0)
        if len(empty):
            centres[empty] = points[np.argsort(-distances, kind="stable")[: len(empty)]]
    return centres


def means(points: np.ndarray, codes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The mean point of every code, [k, d]; a code without points keeps its centre."""
    order = np.argsort(codes, kind="stable")
    used, first = np.unique(codes[order], return_index=True)
    counts = np.diff(np.append(first, len(points)))
    made = centres.copy()
    made[used] = np.add.reduceat(points[order], first, axis=0) / counts[:, None].astype(points.dtype)
    return made


def residual_kmeans(points: np.ndarray, sizes: Sequence[int], seed: int) -> list[np.ndarray]:
    """A codebook of each of these sizes, by k-means of what the levels before leave: float32 [size, d] each.

    The same points and seed give the same codebooks.
    """
    left = np.array(points, dtype=np.float32)
    rng = np.random.default_rng(seed)
    codebooks = []
    for size in sizes:
        centres = kmeans(left, min(size, len(left)), rng)
        left -= centres[nearest(left, centres)[0]]
        codebooks.append(centres)
    return codebooks
