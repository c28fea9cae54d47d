"""The sweep of `index --tune` at a size of one's choice, over random clustered unit vectors.

    python tests/bench/ann_sweep.py [--rows 200000] [--dim 64] [--depth 500] [--spread 1.5]

Run by hand; prints one table. Vectors lie around 500 centres, `spread` standard deviations of a centre's own
coordinate away in each; queries are drawn like the vectors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from adstool.funnel.tuning import QUERIES, tune

CENTRES = 500


def clustered(rows: int, dim: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [rows, dim] and queries of the same clusters, float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CENTRES, dim)).astype(np.float32)
    count = rows + QUERIES
    drawn = centres[rng.integers(0, CENTRES, count)]
    drawn += spread * rng.standard_normal((count, dim), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn[:rows], drawn[rows:]


def main() -> None:
    """Tune, and print every trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=500)
    parser.add_argument("--spread", type=float, default=1.5)
    parser.add_argument("--min-recall", type=float, default=0.95)
    given = parser.parse_args()
    vectors, queries = clustered(given.rows, given.dim, given.spread)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tuning = tune(vectors, queries, given.depth, Path(folder) / "tune", given.min_recall)
    names = ("partitions", "probes", "refine", "recall", "p50 ms", "p90 ms", "build s")
    print(
        f"{'search':10}"
        + "".join(f"{name:>{width}}" for name, width in zip(names, (11, 8, 8, 8, 8, 8, 9), strict=True))
    )
    for trial in tuning.trials:
        c = trial.choice
        print(
            f"{c.kind:10}{c.partitions:11}{c.probes:8}{c.refine:8.0f}{trial.recall:8.4f}{trial.p50_ms:8.2f}"
            f"{trial.p90_ms:8.2f}{trial.build_seconds:9.1f}{'  chosen' if c == tuning.chosen else ''}"
        )
    print(f"{tuning.reason}; {time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
