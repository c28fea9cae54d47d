"""What interests are in: categories, topics, semantic ids; each kind says what items and queries speak of it.

A kind is a function and a row in KINDS. Shares of one item over the values of one level sum to 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adstool.content.taxonomy import Topic
from adstool.content.text import CategoryWords, TokenIndex, tokens
from adstool.warehouse import load_sql

if TYPE_CHECKING:
    import duckdb

SEMANTIC_LEVELS = 2  # deeper prefixes hold a few items each
LEAST_SHARE = 0.05  # smaller shares of a query's words in a category are noise

ITEM_MEMBERS = pa.schema(
    [
        ("level", pa.int32()),
        ("item_type", pa.string()),
        ("item_id", pa.string()),
        ("value", pa.string()),
        ("share", pa.float64()),
    ]
)
QUERY_MEMBERS = pa.schema(
    [("query", pa.string()), ("level", pa.int32()), ("value", pa.string()), ("share", pa.float64())]
)

QUERY_CATEGORIES = pa.schema([("query", pa.string()), ("category", pa.string()), ("share", pa.float64())])


@dataclass(frozen=True)
class Catalogue:
    """The catalogue as the kinds read it."""

    con: duckdb.DuckDBPyConnection
    topics: tuple[Topic, ...]
    item_intents: pa.Table | None = None  # item_type, item_id, topic, score
    query_intents: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # query -> topic -> score
    semantic: pa.Table | None = None  # ITEM_MEMBERS of prefixes of semantic ids

    @cached_property
    def paths(self) -> frozenset[str]:
        """The paths of the topics."""
        return frozenset(topic.path for topic in self.topics)

    @cached_property
    def items(self) -> pa.Table:
        """item_type, item_id, title, description, category of every item."""
        return self.con.sql(load_sql("interests_items")).to_arrow_table().combine_chunks()

    @cached_property
    def words(self) -> TokenIndex:
        """The words of titles and descriptions."""
        return TokenIndex.of([_column(self.items, name) for name in ("title", "description")])

    @cached_property
    def categories(self) -> list[str]:
        """The categories, sorted."""
        return sorted(set(self.items["category"].drop_null().to_pylist()))

    @cached_property
    def category_words(self) -> CategoryWords:
        """What categories the words of a query ask for."""
        number = {name: place for place, name in enumerate(self.categories)}
        codes = [number.get(name, -1) for name in self.items["category"].to_pylist()]
        texts = [_column(self.items, name) for name in ("title", "description", "category")]
        return CategoryWords.of(TokenIndex.of(texts), np.asarray(codes, dtype=np.int64), len(self.categories))


Members = Callable[[Catalogue], pa.Table]
Queries = Callable[[Catalogue, Sequence[str]], pa.Table]


@dataclass(frozen=True)
class Kind:
    """members: ITEM_MEMBERS of all items. queries: QUERY_MEMBERS of the queries that the kind can read by
    itself; other queries get what the items are of the categories that their words ask for."""

    members: Members
    queries: Queries | None = None


def category_members(catalogue: Catalogue) -> pa.Table:
    """Every item in its category."""
    table = catalogue.con.sql(load_sql("interests_category_members")).to_arrow_table()
    return table.cast(ITEM_MEMBERS)


def topic_members(catalogue: Catalogue) -> pa.Table:
    """Items in the topics of their category, or else in those whose words their texts hold."""
    by_category: dict[str, list[Topic]] = defaultdict(list)
    for topic in catalogue.topics:
        for category in topic.categories:
            by_category[category].append(topic)
    by_word: dict[int, list[Topic]] = defaultdict(list)
    for topic in catalogue.topics:
        for row in _rows_with(catalogue.words, topic):
            by_word[row].append(topic)
    types, ids = catalogue.items["item_type"].to_pylist(), catalogue.items["item_id"].to_pylist()
    found: list[tuple[tuple[str, str], list[Topic]]] = []
    for row, category in enumerate(catalogue.items["category"].to_pylist()):
        found.append(((types[row], ids[row]), by_category.get(category) or by_word.get(row, [])))
    return _shares(found, ("item_type", "item_id"), ITEM_MEMBERS)


def topic_queries(catalogue: Catalogue, queries: Sequence[str]) -> pa.Table:
    """Queries in the topics whose words they hold."""
    found: list[tuple[tuple[str, ...], list[Topic]]] = []
    for query in queries:
        words = set(tokens(query))
        held = [topic for topic in catalogue.topics if any(words.issuperset(key) for key in topic.keys)]
        found.append(((query,), held))
    return _shares(found, ("query",), QUERY_MEMBERS)


def intent_members(catalogue: Catalogue) -> pa.Table:
    """Items in the topics that CLIP sees in their pictures and texts; none before any were embedded."""
    if catalogue.item_intents is None:
        return ITEM_MEMBERS.empty_table()
    topics = {topic.path: topic for topic in catalogue.topics}
    columns = catalogue.item_intents.to_pydict()
    weighted: dict[tuple[str, ...], dict[Topic, float]] = defaultdict(dict)
    for kind, item, topic, score in zip(*columns.values(), strict=True):
        weighted[kind, item][topics[topic]] = score
    return _weighted(weighted, ("item_type", "item_id"), ITEM_MEMBERS)


def intent_queries(catalogue: Catalogue, queries: Sequence[str]) -> pa.Table:
    """Queries in the topics that CLIP reads in them."""
    topics = {topic.path: topic for topic in catalogue.topics}
    known = catalogue.query_intents
    weighted: dict[tuple[str, ...], dict[Topic, float]] = {
        (query,): {topics[path]: score for path, score in known[query].items()}
        for query in queries
        if query in known
    }
    return _weighted(weighted, ("query",), QUERY_MEMBERS)


def semantic_members(catalogue: Catalogue) -> pa.Table:
    """Items by the first codes of their semantic ids; none without codebooks."""
    return ITEM_MEMBERS.empty_table() if catalogue.semantic is None else catalogue.semantic


KINDS: dict[str, Kind] = {
    "category": Kind(category_members),
    "topic": Kind(topic_members, topic_queries),
    "intent": Kind(intent_members, intent_queries),
    "semantic": Kind(semantic_members),
}


def semantic_prefixes(item_type: str, ids: Sequence[str], codes: np.ndarray) -> pa.Table:
    """ITEM_MEMBERS of items with semantic ids: 3, then 3-17, the first SEMANTIC_LEVELS codes.

    codes: int [n, levels], negative for an item without an id.
    """
    kept = np.flatnonzero((codes >= 0).all(axis=1)).tolist()
    levels = min(SEMANTIC_LEVELS, codes.shape[1])
    rows = [
        (level, item_type, ids[row], "-".join(map(str, codes[row, : level + 1].tolist())), 1.0)
        for level in range(levels)
        for row in kept
    ]
    columns = zip(*rows, strict=True) if rows else [[] for _ in ITEM_MEMBERS]
    return pa.table(dict(zip(ITEM_MEMBERS.names, columns, strict=True)), schema=ITEM_MEMBERS)


def query_categories(catalogue: Catalogue, queries: Sequence[str]) -> pa.Table:
    """What categories the words of each query ask for: query, category, share; shares of a query sum to 1."""
    asked = [tokens(query) for query in queries]
    count = len(catalogue.categories)
    if not asked or not count:
        return pa.table(
            {"query": pa.array([], pa.string()), "category": pa.array([], pa.string()), "share": [0.0][:0]}
        )
    pairs = np.repeat(np.arange(len(asked)), count), np.tile(np.arange(count), len(asked))
    fit = np.exp(catalogue.category_words.fit(asked, *pairs).astype(np.float64)).reshape(-1, count)
    share = np.where(fit >= LEAST_SHARE, fit, 0.0)  # nan, no known word, compares false
    place, category = np.nonzero(share)
    total = share.sum(axis=1)
    return pa.table(
        {
            "query": pa.array(list(queries), pa.string()).take(pa.array(place)),
            "category": pa.array(catalogue.categories).take(pa.array(category)),
            "share": share[place, category] / total[place],
        },
        schema=QUERY_CATEGORIES,
    )


def _column(table: pa.Table, name: str) -> pa.Array:
    chunked = table.column(name)
    return pa.concat_arrays(chunked.chunks) if chunked.num_chunks else pa.array([], type=chunked.type)


def _rows_with(index: TokenIndex, topic: Topic) -> list[int]:
    """Rows whose text holds all tokens of one of the topic's words."""
    rows: set[int] = set()
    for key in topic.keys:
        held = [_rows_of(index, token) for token in key]
        rows |= set.intersection(*map(set, held))
    return sorted(rows)


def _rows_of(index: TokenIndex, token: str) -> list[int]:
    number = index.words.get(token)
    if number is None:
        return []
    low, high = np.searchsorted(index.pairs, [number * index.rows, (number + 1) * index.rows])
    return [int(pair) - number * index.rows for pair in index.pairs[low:high]]


def _shares(
    found: Sequence[tuple[tuple[str, ...], list[Topic]]], names: tuple[str, ...], schema: pa.Schema
) -> pa.Table:
    weighted = {key: {topic: 1.0 / len(topics) for topic in topics} for key, topics in found if topics}
    return _weighted(weighted, names, schema)


def _weighted(
    weighted: Mapping[tuple[str, ...], Mapping[Topic, float]], names: tuple[str, ...], schema: pa.Schema
) -> pa.Table:
    """Rows of all levels: a topic's share is also its ancestors'; the shares of a level sum to 1."""
    columns: dict[str, list[str | int | float]] = {name: [] for name in schema.names}
    for key, topics in weighted.items():
        levels: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for topic, share in topics.items():
            for level, path in enumerate(topic.ancestors):
                levels[level][path] += share
        for level, values in levels.items():
            total = sum(values.values())
            for value, share in values.items():
                for name, part in zip(names, key, strict=True):
                    columns[name].append(part)
                columns["level"].append(level)
                columns["value"].append(value)
                columns["share"].append(share / total)
    return pa.table(columns, schema=schema)
