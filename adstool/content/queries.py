"""Vectors of what people ask for, made while a CLIP is loaded anyway, so that others need not load it.

Loading a CLIP takes seconds; the report shows a few searches and takes a fraction of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adstool.warehouse import load_sql
from adstool.workspace import Workspace, write_arrays

if TYPE_CHECKING:
    import duckdb

    from adstool.content.clip import ClipModel

KEPT = 32  # most frequent queries, and as many categories


class Asked(NamedTuple):
    """A text that people ask for, and in how many requests; None for the name of a category."""

    text: str
    requests: int | None


def asked_texts(con: duckdb.DuckDBPyConnection, limit: int = KEPT) -> list[Asked]:
    """The most frequent queries of the log, then the largest categories; at most `limit` of each."""
    return [Asked(*row) for row in con.execute(load_sql("content_queries"), {"limit": limit}).fetchall()]


def known_queries(ws: Workspace, slug: str) -> dict[str, np.ndarray]:
    """The vectors kept of texts under a model, unit length [dim]; none when there is no sound file."""
    try:
        with np.load(_path(ws, slug), allow_pickle=False) as stored:
            return dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
    except (OSError, ValueError, KeyError):
        return {}


def keep_queries(ws: Workspace, slug: str, clip: ClipModel, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Vectors of all `texts`, in their order; those not kept yet are made, and then all of these are kept."""
    known = known_queries(ws, slug)
    fresh = [text for text in dict.fromkeys(texts) if text not in known]
    if fresh:
        known |= dict(zip(fresh, clip.encode_texts(fresh), strict=True))
    wanted = {text: known[text] for text in texts}
    if fresh:
        _write(_path(ws, slug), wanted)
    return wanted


def _path(ws: Workspace, slug: str) -> Path:
    return ws.cache / "queries" / f"{slug}.npz"


def _write(path: Path, vectors: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {"texts": np.array(list(vectors)), "vectors": np.stack(list(vectors.values()))})
