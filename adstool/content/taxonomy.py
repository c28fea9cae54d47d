"""Topics that interests and intents are told in: a taxonomy file, or one made from the catalogue.

A topic is a path such as home/lighting. What it is about is said by categories of the catalogue, by words, or
both. A file is TOML or JSON, each topic's path a key whose value is a table {words, categories} or a list of
words; or CSV with the columns topic, word and category, a row a word or a category.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.content.text import tokens
from adstool.documents import read_document, read_toml, user_path
from adstool.errors import DataError
from adstool.warehouse import load_sql

if TYPE_CHECKING:
    import duckdb

FORMATS = (".toml", ".json", ".csv")
KEYS = ("words", "categories")


@dataclass(frozen=True)
class Topic:
    """A topic: its path, parts joined by /, and the words and categories it is about."""

    path: str
    words: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @cached_property
    def ancestors(self) -> tuple[str, ...]:
        """The paths of all levels, the topic's own last: home, home/lighting."""
        parts = self.path.split("/")
        return tuple("/".join(parts[: depth + 1]) for depth in range(len(parts)))

    @cached_property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """Each of `words` as the tokens that a text must hold."""
        return tuple(found for found in map(tokens, self.words) if found)

    @property
    def name(self) -> str:
        """The last part of the path, as words."""
        return self.path.rpartition("/")[2].replace("_", " ")


def load_taxonomy(path: str, con: duckdb.DuckDBPyConnection) -> tuple[Topic, ...]:
    """The topics of the file at `path`, or the catalogue's own where it is empty; ordered by path.

    Raises DataError for a file that is not there, does not parse or says of a topic what is no taxonomy.
    """
    if not path:
        rows = con.execute(load_sql("interests_default_topics")).fetchall()
        return tuple(Topic(topic, (), (category,)) for topic, category in rows)
    file = user_path(path)
    kind = file.suffix.lower()
    if kind not in FORMATS:
        raise DataError(
            f"{file} is no taxonomy: it ends in none of {', '.join(FORMATS)}.",
            "Rename it by what it holds, such as topics.toml.",
        )
    name = f"The taxonomy {file}"
    try:
        entries = read_toml(file, name) if kind == ".toml" else _entries(read_document(file, name), file)
    except (ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{name} cannot be read: {error}", "Mend the file, or interests.taxonomy.") from None
    topics = [_topic(name, content, file) for name, content in entries.items()]
    if not topics:
        raise DataError(
            f"The taxonomy {file} names no topic.", 'Write one, such as "home/lighting" = ["lamp"].'
        )
    return tuple(sorted(topics, key=lambda topic: topic.path))


def _entries(text: str, file: Path) -> Mapping[str, Any]:
    if file.suffix.lower() == ".csv":
        return _rows(text, file)
    document = json.loads(text)
    if not isinstance(document, dict):
        raise DataError(f"{file} holds no topics by name.", 'Write {"home/lighting": ["lamp"]}.')
    return document


def _rows(text: str, file: Path) -> dict[str, dict[str, list[str]]]:
    reader = csv.DictReader(text.splitlines())
    columns = set(reader.fieldnames or ())
    if "topic" not in columns or not columns & {"word", "category"}:
        raise DataError(f"{file} lacks a column topic, word or category.", "Begin it: topic,word,category")
    entries: dict[str, dict[str, list[str]]] = {}
    for row in reader:
        entry = entries.setdefault((row["topic"] or "").strip(), {"words": [], "categories": []})
        for column, key in (("word", "words"), ("category", "categories")):
            value = (row.get(column) or "").strip()
            if value:
                entry[key].append(value)
    return entries


def _topic(name: str, content: Any, file: Path) -> Topic:
    parts = [part.strip() for part in name.split("/")]
    if not all(parts):
        raise DataError(f"{file}: '{name}' is no path of a topic.", "Write it like home/lighting.")
    table = {"words": content} if isinstance(content, list) else content
    if not isinstance(table, dict) or set(table) - set(KEYS):
        raise DataError(f"{file}: topic '{name}' has other keys than words and categories.", "Take them out.")
    lists = {key: table.get(key, []) for key in KEYS}
    if any(not isinstance(v, list) or not all(isinstance(x, str) for x in v) for v in lists.values()):
        raise DataError(
            f"{file}: words and categories of '{name}' must be lists of texts.", 'Write ["lamp", "lantern"].'
        )
    if not any(lists.values()):
        raise DataError(
            f"{file}: topic '{name}' has neither words nor categories.", 'Give it some, such as ["lamp"].'
        )
    return Topic("/".join(parts), tuple(lists["words"]), tuple(lists["categories"]))
