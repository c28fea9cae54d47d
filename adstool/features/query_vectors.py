"""Vectors of logged queries: the mean content of what people engaged with when they asked for that.

They lie in the space of the items' pictures and texts, and come from the log alone: serving needs no text
encoder, and what a query means to people counts more than what its words mean.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adstool.content.text import normalise
from adstool.errors import AdstoolError
from adstool.features.log import FOREVER, CodedLog
from adstool.features.mapping import mapped
from adstool.features.spec import ENGAGED
from adstool.warehouse import load_sql
from adstool.workspace import write_array, write_table


@dataclass(frozen=True)
class QueryVectors:
    """texts: sorted queries as words joined by blanks [Q]. vectors: float32 [Q, D], unit length."""

    texts: pa.ChunkedArray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def build(cls, log: CodedLog, until: int = FOREVER) -> QueryVectors:
        """From what was engaged with strictly before `until`, microseconds UTC."""
        positive = [log.spec.actions[number - 1] for number in log.spec.signal_actions(ENGAGED)]
        parameters = {"positive": positive, "until": until}
        found = log.con.sql(load_sql("features_query_items"), params=parameters).to_arrow_table()
        asked = [normalise(text) or "" for text in found["query"].to_pylist()]
        texts, query = np.unique(np.asarray(asked, dtype=object), return_inverse=True)
        content = log.items.content
        vectors = np.zeros((len(texts), content.shape[1]), dtype=np.float32)
        items, times = found["item_no"].to_numpy(), found["times"].to_numpy().astype(np.float32)
        np.add.at(vectors, query, np.asarray(content[items]) * times[:, None])
        length = np.linalg.norm(vectors, axis=1)
        known = np.flatnonzero(length > 1e-6)
        kept = pa.chunked_array([pa.array(texts[known].tolist(), pa.string())])
        return cls(kept, vectors[known] / length[known, None])

    def of(self, query: str | None) -> np.ndarray | None:
        """The vector of a query, float32 [D]; None for one that nobody engaged with anything after."""
        text = normalise(query)
        if text is None:
            return None
        place = bisect_left(range(len(self)), text, key=lambda row: str(self.texts[row].as_py()))
        if place == len(self) or self.texts[place].as_py() != text:
            return None
        return np.asarray(self.vectors[place], dtype=np.float32)

    def save(self, directory: Path) -> None:
        """Write query_texts.parquet and query_vectors.npy, each whole or not at all."""
        write_table(directory / "query_texts.parquet", pa.table({"query": self.texts}))
        write_array(directory / "query_vectors.npy", self.vectors)

    @classmethod
    def load(cls, directory: Path) -> QueryVectors:
        """What `save` wrote, vectors memory-mapped; raises AdstoolError when it is damaged or absent."""
        try:
            texts = pq.read_table(directory / "query_texts.parquet").column("query")
            return cls(texts, mapped(directory / "query_vectors.npy"))
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise AdstoolError(f"{directory} holds no queries: {error}", "Run adstool index.") from None
