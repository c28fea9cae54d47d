"""Words of queries and items, and how much of a query an item's text holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_WORD = re.compile(r"[^\W_]+")


def tokens(text: str | None) -> tuple[str, ...]:
    """The distinct words of `text`, lower case, letters and digits of any script, in order of appearance."""
    return tuple(dict.fromkeys(_WORD.findall(text.casefold()))) if text else ()


def normalise(text: str | None) -> str | None:
    """A query as its words joined by blanks, so that spelling of blanks and case does not matter; None if
    empty."""
    return " ".join(tokens(text)) or None


@dataclass(frozen=True)
class TokenIndex:
    """Which items hold which words: `pairs` is the sorted item row · size + word number, `words` the
    vocabulary."""

    words: dict[str, int]
    pairs: np.ndarray  # int64, sorted

    @classmethod
    def of(cls, columns: Sequence[pa.Array]) -> TokenIndex:
        """Index the words of several text columns of the same rows together."""
        words: dict[str, int] = {}
        rows: list[int] = []
        numbers: list[int] = []
        for column in columns:
            for row, text in enumerate(column.to_pylist()):
                for word in tokens(text):
                    rows.append(row)
                    numbers.append(words.setdefault(word, len(words)))
        size = max(len(words), 1)
        pairs = np.asarray(rows, dtype=np.int64) * size + np.asarray(numbers, dtype=np.int64)
        return cls(words, np.unique(pairs))

    def overlap(
        self, queries: Sequence[tuple[str, ...]], query: np.ndarray, item_row: np.ndarray
    ) -> np.ndarray:
        """The share of the words of queries[query[i]] that item item_row[i] holds: float32 [n], nan without a
        query.

        query: int [n], -1 for none. A query without words counts as none.
        """
        result = np.full(len(query), np.nan, dtype=np.float32)
        lengths = np.asarray([len(words) for words in queries], dtype=np.int64)
        asked = np.flatnonzero(query >= 0)
        asked = asked[lengths[query[asked]] > 0] if len(asked) else asked
        if not len(asked):
            return result
        known = [self.words.get(word, -1) for words in queries for word in words]
        numbers = np.asarray(known, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        count = lengths[query[asked]]
        owner = np.repeat(np.arange(len(asked)), count)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        word = numbers[np.repeat(starts[query[asked]], count) + within]
        pair = np.asarray(item_row, dtype=np.int64)[asked][owner] * max(len(self.words), 1) + word
        place = np.minimum(np.searchsorted(self.pairs, pair), max(len(self.pairs) - 1, 0))
        hit = (
            (word >= 0) & (self.pairs[place] == pair) if len(self.pairs) else np.zeros(len(word), dtype=bool)
        )
        result[asked] = np.bincount(owner[hit], minlength=len(asked)) / count
        return result
