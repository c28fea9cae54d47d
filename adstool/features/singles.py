"""The numbers of one example that are not counters: ages, price, similarity of content, words in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adstool.features.counters import DAY, HOUR
from adstool.features.items import NO_TIME, ItemTable


def single_values(
    items: ItemTable,
    item_row: np.ndarray,
    asked: np.ndarray | int,
    signup: np.ndarray | int,
    engagements: np.ndarray | int,
    user_content: np.ndarray,
    queries: Sequence[tuple[str, ...]],
    query: np.ndarray,
) -> dict[str, np.ndarray]:
    """What `finish` needs beside the counters, for n pairs of a request and an item.

    item_row: int [n]. asked, signup: microseconds, [n] or one for all. engagements: how many the user had
    made. user_content: float32 [n, D] or [D]. queries: the words of the distinct queries; query: int [n] into
    them, -1 for none. Values that are not known are nan.
    """
    content = items.content[item_row]
    similarity = np.einsum("nd,nd->n", content, np.broadcast_to(user_content, content.shape))
    lengths = np.asarray([*(len(words) for words in queries), 0], dtype=np.float32)  # place -1 is the last
    return {
        "user_tenure_days": _elapsed(asked, signup, DAY),
        "user_engagements": np.asarray(engagements, dtype=np.float32),
        "item_age_hours": _elapsed(asked, items.times("created_at")[item_row], HOUR),
        "item_price": items.numbers("price")[item_row],
        "content_similarity": np.where(similarity == 0.0, np.nan, similarity),  # exactly 0: one has no vector
        "query_tokens": lengths[query],
        **_of_queries(items, item_row, queries, query),
    }


def _of_queries(
    items: ItemTable, item_row: np.ndarray, queries: Sequence[tuple[str, ...]], query: np.ndarray
) -> dict[str, np.ndarray]:
    """How the items fit their queries; the words of the catalogue are only looked at where there is one."""
    if not any(queries):
        unknown = np.full(len(query), np.nan, dtype=np.float32)
        return dict.fromkeys(("query_title_overlap", "query_text_overlap", "query_category_fit"), unknown)
    return {
        "query_title_overlap": items.title_tokens.overlap(queries, query, item_row),
        "query_text_overlap": items.text_tokens.overlap(queries, query, item_row),
        "query_category_fit": items.category_words.fit(queries, query, items.categories[0][item_row]),
    }


def hour_and_weekday(asked: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day 0–23 and day of the week 0–6 (Monday is 0) in UTC, of microseconds."""
    moment = np.asarray(asked, dtype=np.int64)
    return moment // HOUR % 24, (moment // DAY + 3) % 7  # 1970-01-01 was a Thursday


def _elapsed(asked: np.ndarray | int, since: np.ndarray | int, unit: int) -> np.ndarray:
    since = np.asarray(since, dtype=np.int64)
    known = since != NO_TIME
    elapsed = (np.asarray(asked, dtype=np.int64) - np.where(known, since, 0)) / unit
    return np.where(known, np.maximum(elapsed, 0.0), np.nan)
