"""Words of queries and items, and how much of a query an item's text holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adstool.workspace import write_array, write_table

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
        pairs.sort()  # np.unique makes a hash table of integers first, which takes ten times as long
        return cls(words, pairs[np.diff(pairs, prepend=-1) != 0], count)

    def save(self, directory: Path, name: str) -> None:
        """Write <name>_words.parquet and <name>_pairs.npy into `directory`, each whole or not at all."""
        words, pairs = _files(directory, name)
        write_table(words, pa.table({"word": pa.array(self.words, pa.string())}))
        write_array(pairs, self.pairs)

    @classmethod
    def load(cls, directory: Path, name: str, rows: int) -> TokenIndex | None:
        """What `save` wrote for so many items, memory-mapped; None where it wrote nothing."""
        words, pairs = _files(directory, name)
        if not (words.is_file() and pairs.is_file()):
            return None
        known = pq.read_table(words).column("word").to_pylist()
        return cls({word: n for n, word in enumerate(known)}, np.load(pairs, mmap_mode="r"), max(rows, 1))

    def holding(self, word: str) -> np.ndarray:
        """The rows that hold a word, rising, int64."""
        number = self.words.get(word, -1)
        low, high = np.searchsorted(self.pairs, [number * self.rows, (number + 1) * self.rows])
        return np.asarray(self.pairs[low:high] - number * self.rows)

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


def _files(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}_words.parquet", directory / f"{name}_pairs.npy"


@dataclass(frozen=True)
class CategoryWords:
    """How well the words of a query fit a category, learned from the texts of the catalogue alone.

    Naive Bayes: log P(category | query) with P(word | category) the share of its items that hold the word,
    smoothed. It says that "looking glass" asks for mirrors although no title holds the word mirror.
    words: numbers of the words. evidence: float32 [words, C], ln P(word | category). prior: float32 [C].
    """

    words: dict[str, int]
    evidence: np.ndarray
    prior: np.ndarray

    SMOOTHING = 0.1  # of an item, added to every word of every category
    LEAST = -10.0  # log probabilities below this say no more

    @classmethod
    def of(cls, index: TokenIndex, category: np.ndarray, categories: int) -> CategoryWords:
        """From the words of every item and its category number (-1 for none), int [rows]."""
        numbers, rows = np.divmod(index.pairs, index.rows)
        known = category[rows] >= 0 if len(rows) else np.zeros(0, dtype=bool)
        evidence = np.full((len(index.words), categories), cls.SMOOTHING, dtype=np.float32)
        np.add.at(evidence, (numbers[known], category[rows[known]]), np.float32(1.0))
        size = np.bincount(category[category >= 0], minlength=categories)
        evidence /= (size + 2 * cls.SMOOTHING).astype(np.float32)
        np.log(evidence, out=evidence)  # in place: words times categories can be large
        prior = np.log((size + cls.SMOOTHING) / (size.sum() + categories * cls.SMOOTHING))
        return cls(index.words, evidence, prior.astype(np.float32))

    def fit(self, queries: Sequence[tuple[str, ...]], query: np.ndarray, category: np.ndarray) -> np.ndarray:
        """ln P(category[i] | queries[query[i]]), at least LEAST: float32 [n].

        query: int [n], -1 for none; category: int [n], -1 for none. nan where either is missing or no word of
        the query is in the catalogue.
        """
        result = np.full(len(query), np.nan, dtype=np.float32)
        asked = np.flatnonzero((query >= 0) & (category >= 0))
        distinct, which = np.unique(query[asked], return_inverse=True)
        known = [[self.words[w] for w in queries[q] if w in self.words] for q in distinct.tolist()]
        if not any(known):
            return result
        scores = np.stack([self.prior + self.evidence[words].sum(axis=0) for words in known])
        top = scores.max(axis=1, keepdims=True)
        scores -= top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        found = np.maximum(scores[which, category[asked]], self.LEAST)
        heard = np.asarray([bool(words) for words in known])[which]
        result[asked] = np.where(heard, found, np.nan)
        return result
