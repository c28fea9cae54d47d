"""How good semantic ids are, by level: what they keep of the vectors, how evenly they are used, and whether
items that people want together share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from adstool.content.codebooks import Codebooks, pack
from adstool.warehouse import lent, load_sql

if TYPE_CHECKING:
    import duckdb

USERS = 5000  # whose engagements make pairs
ENGAGEMENTS = 100  # last ones of each


def reconstruction(codebooks: Codebooks, vectors: np.ndarray, codes: np.ndarray) -> list[dict[str, float]]:
    """By level, with the codes up to it: relative_mse = sum |x - y|^2 / sum |x - mean|^2, so that 1 is what
    the mean of all vectors alone would give, and the mean cosine of x and y. Empty for no vectors."""
    if not len(vectors):
        return []
    exact = np.asarray(vectors, dtype=np.float64)
    spread = np.square(exact - exact.mean(axis=0)).sum()
    found = []
    for depth in range(1, codes.shape[1] + 1):
        made = codebooks.decode(codes[:, :depth])
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(made, axis=1)
        cosine = np.einsum("nd,nd->n", exact, made) / np.maximum(lengths, 1e-12)
        error = np.square(exact - made).sum()
        found.append({"relative_mse": float(error / max(spread, 1e-12)), "cosine": float(cosine.mean())})
    return found


def usage(codes: np.ndarray, sizes: Sequence[int]) -> list[dict[str, float]]:
    """By level: perplexity = exp of the entropy of its codes (its size when all are used alike), dead codes,
    prefixes in use, and collisions, the share of items whose prefix another item has too."""
    found = []
    for depth, size in enumerate(sizes, 1):
        share = np.bincount(codes[:, depth - 1], minlength=size) / max(len(codes), 1)
        used = share[share > 0]
        _, counts = np.unique(pack(codes[:, :depth]), return_counts=True)
        found.append(
            {
                "size": size,
                "perplexity": float(np.exp(-(used * np.log(used)).sum())),
                "dead": int(size - len(used)),
                "prefixes": len(counts),
                "collisions": float(counts[counts > 1].sum() / max(len(codes), 1)),
            }
        )
    return found


def purity(codes: np.ndarray, pairs: np.ndarray) -> list[dict[str, float]]:
    """By level: the share of pairs whose items share the prefix (purity), beside that of two distinct items
    drawn as often as they are in pairs (popularity_matched) and of two items drawn alike (random).

    pairs: int64 [m, 3], two rows of `codes` and a weight. Both other shares are exact, not sampled: with
    chances s_i of items and S_p of prefixes, (sum S_p^2 - sum s_i^2) / (1 - sum s_i^2).
    """
    weight = pairs[:, 2].astype(np.float64)
    often = np.bincount(pairs[:, 0], weights=weight, minlength=len(codes))
    often += np.bincount(pairs[:, 1], weights=weight, minlength=len(codes))
    found = []
    for depth in range(1, codes.shape[1] + 1):
        prefix = np.unique(pack(codes[:, :depth]), return_inverse=True)[1]
        same = prefix[pairs[:, 0]] == prefix[pairs[:, 1]]
        found.append(
            {
                "purity": float(weight[same].sum() / weight.sum()) if len(pairs) else float("nan"),
                "popularity_matched": _agreement(prefix, often),
                "random": _agreement(prefix, np.ones(len(codes))),
            }
        )
    return found


def _agreement(prefix: np.ndarray, chances: np.ndarray) -> float:
    """The chance that two distinct items, drawn with these chances, have the same prefix."""
    total = chances.sum()
    if total <= 0:
        return float("nan")
    each = chances / total
    together = np.square(np.bincount(prefix, weights=each)).sum()
    itself = np.square(each).sum()
    return float((together - itself) / (1.0 - itself)) if itself < 1.0 else float("nan")


def engaged_pairs(
    con: duckdb.DuckDBPyConnection, items: Sequence[tuple[str, str]], actions: Sequence[str]
) -> np.ndarray:
    """Pairs of `items` ((type, id) by number) that a user engaged with within a day.

    int64 [m, 3]: two numbers, and of how many users.
    """
    table = pa.table(
        {
            "item_type": pa.array([kind for kind, _ in items], pa.string()),
            "item_id": pa.array([item for _, item in items], pa.string()),
            "number": pa.array(np.arange(len(items), dtype=np.int64)),
        }
    )
    with lent(con, semantic_items=table):
        found = con.execute(
            load_sql("content_pairs"),
            {"actions": list(actions), "users": USERS, "engagements": ENGAGEMENTS},
        ).fetchnumpy()
    columns = [np.asarray(found[name], dtype=np.int64) for name in ("first", "second", "users")]
    return np.stack(columns, axis=1)


def level_metrics(
    codebooks: Codebooks,
    vectors: np.ndarray,
    codes: np.ndarray,
    pairs: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    """All figures by level, {"1": {...}, ...}, none for no vectors.

    pairs: of rows of `codes`; without any there are no figures of co-engagement.
    """
    if not len(vectors):
        return {}
    parts = [reconstruction(codebooks, vectors, codes), usage(codes, codebooks.sizes)]
    if pairs is not None and len(pairs):
        parts.append(purity(codes, pairs))
    return by_level(*parts)


def by_level(*parts: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Lists of figures by level as one object, {"1": {...}, ...}."""
    return {
        str(depth): {key: value for figures in level for key, value in figures.items()}
        for depth, level in enumerate(zip(*parts, strict=True), 1)
    }
