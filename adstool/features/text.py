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
    """Which items hold which words.

    words: the vocabulary. pairs: sorted word number · rows + item row, so that a word's items lie together.
    """

    words: dict[str, int]
    pairs: np.ndarray  # int64
    rows: int

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
        count = max(len(columns[0]), 1)
        pairs = np.asarray(numbers, dtype=np.int64) * count + np.asarray(rows, dtype=np.int64)
        return cls(words, np.unique(pairs), count)

    def overlap(
        self, queries: Sequence[tuple[str, ...]], query: np.ndarray, item_row: np.ndarray
    ) -> np.ndarray:
        """The share of the words of queries[query[i]] that item item_row[i] holds.

        query: int [n], -1 for none. Returns float32 [n], nan without a query or for one without words.
        """
        result = np.full(len(query), np.nan, dtype=np.float32)
        lengths = np.asarray([*(len(words) for words in queries), 0], dtype=np.int64)  # place -1 is the last
        asked = np.flatnonzero(lengths[query] > 0)
        longest = int(lengths.max())
        if not len(asked):
            return result
        numbers = np.full((len(queries), longest), -1, dtype=np.int64)
        for place, words in enumerate(queries):
            numbers[place, : len(words)] = [self.words.get(word, -1) for word in words]
        row = np.asarray(item_row, dtype=np.int64)[asked]
        order = np.argsort(row)  # binary search is several times faster for keys that rise
        asked, row = asked[order], row[order]
        which = query[asked]
        hits = np.zeros(len(asked), dtype=np.int64)
        for place in range(longest):  # the words of one place at a time: their items lie close together
            word = numbers[which, place]
            hits += (word >= 0) & self._holds(word * self.rows + row)
        result[asked] = hits / lengths[which]
        return result

    def _holds(self, pair: np.ndarray) -> np.ndarray:
        if not len(self.pairs):
            return np.zeros(len(pair), dtype=bool)
        place = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        return np.asarray(self.pairs[place] == pair)
