"""What a query asks for: items that hold its words, and items near to what others engaged with after it."""

from __future__ import annotations

import numpy as np

from adstool.content.text import tokens
from adstool.funnel.ann import best
from adstool.funnel.asked import Asked, Found

WORDS = 0.3  # what an item that holds all words of the query gains on its cosine
LIKE = 10  # items holding most of an unknown query's words, whose mean vector stands for it


def query(asked: Asked, depth: int) -> Found:
    """Items by the cosine with the query's vector, and WORDS times the share of its words that they hold.

    A word counts by its rarity, ln(1 + items / items that hold it). The vector is that of the logged query;
    of one that was never asked, the mean of the items that hold most of its words.
    """
    words = tokens(asked.ctx.query)
    if not words:
        return Found.nothing()
    share = _share(asked, words)
    holding = np.flatnonzero(asked.eligible & (share > 0))
    holding = holding[np.lexsort((-asked.popularity[holding], -share[holding]))][:depth]
    vector = asked.state.queries.of(asked.ctx.query)
    content = asked.state.items.content[asked.rows]
    if vector is None and len(holding):
        mean = np.asarray(content[holding[:LIKE]], dtype=np.float32).mean(axis=0)
        length = float(np.linalg.norm(mean))
        vector = mean / length if length > 1e-6 else None
    if vector is None:
        return Found(holding, (WORDS * share[holding]).astype(np.float32))
    near, _ = asked.clip.search(vector, depth, asked.eligible)
    able = np.union1d(holding, near)
    scores = np.asarray(content[able]) @ vector + WORDS * share[able]
    chosen = best(scores, depth)
    chosen = chosen[scores[chosen] > 0]  # an item without a vector and without the words
    return Found(able[chosen], scores[chosen].astype(np.float32))


def _share(asked: Asked, words: tuple[str, ...]) -> np.ndarray:
    """The share of the words that every item holds, the rare ones counting more: float32 [n]."""
    index, n = asked.state.items.text_tokens, len(asked.eligible)
    share = np.zeros(n, dtype=np.float32)
    total = 0.0
    for word in words:
        rows = index.holding(word) - asked.first_row
        rows = rows[(rows >= 0) & (rows < n)]
        rarity = float(np.log1p(n / max(len(rows), 1)))
        share[rows] += rarity
        total += rarity
    return share / max(total, 1e-9)
