"""What queries and items are about, by zero-shot CLIP over the topics of a taxonomy.

Each topic is described by prompts, whose mean vector stands for it; a query or an item belongs to the topics
with softmax of its cosines over a temperature. Items have their vectors already; the text encoder is needed
only for topics and for queries that were not read before, whose intents the table query_intents keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adstool.config import Settings
from adstool.content.taxonomy import Topic
from adstool.content.vectors import ITEM_TYPES, active_model, load_vectors
from adstool.errors import AdstoolError
from adstool.progress import log
from adstool.warehouse import lent, load_sql
from adstool.workspace import Workspace, write_array

if TYPE_CHECKING:
    import duckdb

PROMPTS = ("{}", "a {}", "a photo of {}")
LEAST_SCORE = 0.05  # topics that score lower are left out, the others' scores sum to 1
BATCH = 256  # texts encoded at once
Encode = Callable[[Sequence[str]], np.ndarray]  # texts to unit vectors float32 [n, d]
ITEM_INTENTS = pa.schema(
    [
        ("item_type", pa.string()),
        ("item_id", pa.string()),
        ("topic", pa.string()),
        ("score", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Intents:
    """item_intents: item_type, item_id, topic, score. query_intents: query -> topic -> score."""

    item_intents: pa.Table
    query_intents: Mapping[str, Mapping[str, float]]


def prompts_of(topic: Topic) -> list[str]:
    """The texts that describe a topic: its name, words and categories in every prompt."""
    names = dict.fromkeys([topic.name, *topic.words, *topic.categories])
    return [prompt.replace("{}", name) for name in names for prompt in PROMPTS]


def topic_vectors(topics: Sequence[Topic], encode: Encode) -> np.ndarray:
    """Unit vectors float32 [topics, d]: the mean of each topic's prompts."""
    texts = [prompts_of(topic) for topic in topics]
    flat = encode_all([text for of_topic in texts for text in of_topic], encode)
    bounds = np.cumsum([0, *(len(of_topic) for of_topic in texts)])
    means = np.stack([flat[low:high].mean(axis=0) for low, high in pairwise(bounds)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)


def encode_all(texts: Sequence[str], encode: Encode) -> np.ndarray:
    """Vectors of many texts, a batch at a time: float32 [n, d]."""
    return np.concatenate([encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])


def zero_shot(vectors: np.ndarray, topics: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(cosine / temperature) over topics: float64 [n, topics], of unit vectors [n, d], [topics, d]."""
    logits = vectors.astype(np.float64) @ topics.T.astype(np.float64) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def trimmed(scores: np.ndarray) -> np.ndarray:
    """Scores with those below LEAST_SCORE set to 0 and the others summing to 1; the best always stays."""
    best = scores == scores.max(axis=1, keepdims=True)
    kept = np.where((scores >= LEAST_SCORE) | best, scores, 0.0)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def read_intents(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, topics: Sequence[Topic]
) -> Intents | None:
    """Intents of all items and logged queries under the CLIP whose vectors are in use; None before `embed`.

    Queries that are new are read and stored, so `con` must be writable. Where the CLIP cannot be loaded any
    more, that is told as a warning and the answer is None.
    """
    if not topics or active_model(ws) is None:
        return None
    reader = _Reader(ws, settings)
    key = intents_key(ws, settings, topics)
    try:
        vectors = _topic_vectors(ws, key, topics, reader)
        _read_queries(con, key, topics, vectors, settings.interests.temperature, reader)
    except AdstoolError as error:
        log.warning("No intents by CLIP: %s %s", error.message, error.hint)
        return None
    items = _item_intents(ws, topics, vectors, settings.interests.temperature)
    return Intents(items, stored_queries(con, key))


def intents_key(ws: Workspace, settings: Settings, topics: Sequence[Topic]) -> str:
    """Names what intents depend on but the text itself: model, topics, prompts and temperature."""
    model = active_model(ws)
    parts = [PROMPTS, settings.interests.temperature]
    described = json.dumps([*parts, [(t.path, t.words, t.categories) for t in topics]])
    slug = model.slug if model else "none"
    return f"{slug}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"


def stored_queries(con: duckdb.DuckDBPyConnection, key: str) -> dict[str, dict[str, float]]:
    """The intents of queries read under `key`: query -> topic -> score."""
    rows = con.execute(
        "select query, topic, score from query_intents where model = $model order by all", {"model": key}
    ).fetchall()
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for query, topic, score in rows:
        found[query][topic] = score
    return dict(found)


class _Reader:
    """The text encoder of the CLIP in use, loaded at the first text."""

    def __init__(self, ws: Workspace, settings: Settings) -> None:
        self._ws, self._settings = ws, settings
        self._encode: Encode | None = None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if self._encode is None:
            from adstool.content.search import load_active_clip

            self._encode = load_active_clip(self._ws, self._settings).encode_texts
        return self._encode(texts)


def _topic_vectors(ws: Workspace, key: str, topics: Sequence[Topic], encode: Encode) -> np.ndarray:
    """The topics' vectors, kept in the cache by what they depend on."""
    path = Path(ws.cache) / "topics" / f"{key}.npy"
    if path.is_file():
        try:
            return np.asarray(np.load(path), dtype=np.float32)
        except (OSError, ValueError, EOFError):
            log.info("%s is damaged and is made again", path)
    vectors = topic_vectors(topics, encode)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_array(path, vectors)
    return vectors


def _read_queries(
    con: duckdb.DuckDBPyConnection,
    key: str,
    topics: Sequence[Topic],
    vectors: np.ndarray,
    temperature: float,
    encode: Encode,
) -> None:
    """Store the intents of logged queries that have none under `key`, and forget those of other keys."""
    con.execute("delete from query_intents where model <> $model", {"model": key})
    fresh = [row[0] for row in con.execute(load_sql("interests_unread_queries")).fetchall()]
    if not fresh:
        return
    scores = trimmed(zero_shot(encode_all(fresh, encode), vectors, temperature))
    row, topic = np.nonzero(scores)
    rows = pa.table(
        {
            "model": pa.array([key] * len(row), pa.string()),
            "query": pa.array(fresh).take(pa.array(row)),
            "topic": pa.array([one.path for one in topics]).take(pa.array(topic)),
            "score": scores[row, topic],
        }
    )
    with lent(con, new_intents=rows):
        con.execute("insert into query_intents select * from new_intents")


def _item_intents(
    ws: Workspace, topics: Sequence[Topic], vectors: np.ndarray, temperature: float
) -> pa.Table:
    paths = pa.array([topic.path for topic in topics])
    parts = []
    for item_type in ITEM_TYPES:
        ids, content = load_vectors(ws, item_type)
        if not ids:
            continue
        scores = trimmed(zero_shot(content, vectors, temperature))
        row, topic = np.nonzero(scores)
        parts.append(
            pa.table(
                {
                    "item_type": pa.array([item_type] * len(row), pa.string()),
                    "item_id": pa.array(ids).take(pa.array(row)),
                    "topic": paths.take(pa.array(topic)),
                    "score": scores[row, topic],
                }
            )
        )
    empty = pa.schema(
        [
            ("item_type", pa.string()),
            ("item_id", pa.string()),
            ("topic", pa.string()),
            ("score", pa.float64()),
        ]
    ).empty_table()
    return pa.concat_tables([empty, *parts])
