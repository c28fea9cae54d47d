"""Every catalogue item as arrays: its columns, and its content vector, at one row number for the whole
pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adstool.content.codebooks import NO_CODE, SemanticIds
from adstool.content.text import CategoryWords, TokenIndex
from adstool.errors import AdstoolError
from adstool.features.mapping import mapped
from adstool.warehouse import load_sql
from adstool.workspace import write_array, write_table

NO_TIME = np.iinfo(np.int64).min  # a time that is not known
_RUN = b"semantic"  # in the table's metadata: the run that made the codes
_CODE = "semantic_code_"  # columns: the code of every level, from 1


class ItemTable:
    """Items in a fixed order: ads by id, then pins by id.

    table: the raw columns of the `catalog` view (item_type, item_id, title, description, image, category,
    price, format, created_at, campaign_id, advertiser_id, vertical, objective, bid_strategy, bid, target,
    daily_budget, starts_at, ends_at). content: float32 [n, D], unit length, zeros for an item without a
    vector; D = 1 of zeros when nothing was embedded. With semantic ids, the table also holds their codes.
    """

    def __init__(self, table: pa.Table, content: np.ndarray) -> None:
        if len(content) != table.num_rows:
            raise AdstoolError(
                f"{table.num_rows} items but {len(content)} content vectors.", "Run adstool embed."
            )
        self.table = table.combine_chunks()
        self.content = content
        self._folder: Path | None = None  # where `save` has written the words too
        self._arrays: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> pa.Array:
        """A raw column as one Arrow array; raises KeyError for an unknown name."""
        chunked = self.table.column(name)
        if chunked.num_chunks == 1:
            return chunked.chunk(0)  # as it is: joining copies the whole column
        return pa.concat_arrays(chunked.chunks) if chunked.num_chunks else pa.array([], type=chunked.type)

    @cached_property
    def ids(self) -> list[str]:
        """Item ids by row."""
        return list(self.column("item_id").to_pylist())

    @cached_property
    def types(self) -> list[str]:
        """'ad' or 'pin' by row."""
        return list(self.column("item_type").to_pylist())

    @cached_property
    def keys(self) -> pa.Array:
        """'ad:<id>' or 'pin:<id>' by row: unique, where an id alone need not be; the `item_id` vocabulary
        holds these."""
        return pc.binary_join_element_wise(self.column("item_type"), self.column("item_id"), ":")

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys.to_pylist())}

    def rows(self, item_ids: Sequence[str], item_type: str | None = None) -> np.ndarray:
        """The rows of these ids, int64, -1 for an unknown one; without a type, an ad is taken before a
        pin."""
        kinds = (item_type,) if item_type else ("ad", "pin")
        found = np.full(len(item_ids), -1, dtype=np.int64)
        for position, item_id in enumerate(item_ids):
            for kind in kinds:
                row = self._row_of.get(f"{kind}:{item_id}", -1)
                if row >= 0:
                    found[position] = row
                    break
        return found

    def of_type(self, item_type: str) -> np.ndarray:
        """bool [n]: whether a row is an item of this type."""
        return np.asarray(
            pc.equal(self.column("item_type"), item_type).to_numpy(zero_copy_only=False), dtype=bool
        )

    def times(self, name: str) -> np.ndarray:
        """A time column in microseconds UTC, int64 [n]; NO_TIME where it is not known."""
        if name not in self._arrays:
            micros = pc.cast(pc.cast(self.column(name), pa.timestamp("us")), pa.int64())
            filled = pc.fill_null(micros, NO_TIME).to_numpy(zero_copy_only=False)
            self._arrays[name] = np.asarray(filled, dtype=np.int64)
        return self._arrays[name]

    def numbers(self, name: str) -> np.ndarray:
        """A number column, float64 [n]; nan where it is not known."""
        if name not in self._arrays:
            values = pc.fill_null(pc.cast(self.column(name), pa.float64()), float("nan"))
            self._arrays[name] = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
        return self._arrays[name]

    def numbered(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A text column as numbers int32 [n] (-1 missing) and the values they stand for, in order."""
        column = self.column(name)
        values = sorted(value for value in pc.unique(column).to_pylist() if value is not None)
        codes = pc.fill_null(pc.index_in(column, value_set=pa.array(values, type=pa.string())), -1)
        return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int32), values

    @cached_property
    def categories(self) -> tuple[np.ndarray, list[str]]:
        """Category numbers by row and their names."""
        return self.numbered("category")

    @cached_property
    def advertisers(self) -> tuple[np.ndarray, list[str]]:
        """Advertiser numbers by row and their ids."""
        return self.numbered("advertiser_id")

    @cached_property
    def title_tokens(self) -> TokenIndex:
        """The words of every title, for the overlap with a query."""
        return self._saved("title") or TokenIndex.of([self.column("title")])

    @cached_property
    def text_tokens(self) -> TokenIndex:
        """The words of title, description and category."""
        columns = ("title", "description", "category")
        return self._saved("text") or TokenIndex.of([self.column(name) for name in columns])

    def _saved(self, name: str) -> TokenIndex | None:
        return TokenIndex.load(self._folder, name, len(self)) if self._folder else None

    @cached_property
    def category_words(self) -> CategoryWords:
        """Which categories the words of a query ask for."""
        return CategoryWords.of(self.text_tokens, self.categories[0], len(self.categories[1]))

    @property
    def semantic(self) -> str:
        """The run whose codebooks made the semantic ids, empty without ids."""
        return str((self.table.schema.metadata or {}).get(_RUN, b"").decode())

    @cached_property
    def codes(self) -> np.ndarray:
        """Semantic ids, int16 [n, L], NO_CODE for an item without one; L = 0 without any."""
        names = [name for name in self.table.column_names if name.startswith(_CODE)]
        columns = [pc.fill_null(self.column(name), NO_CODE).to_numpy(zero_copy_only=False) for name in names]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self), 0), dtype=np.int16)

    def prefixes(self, depth: int) -> pa.Array:
        """The first `depth` codes of every item as a text such as 3-0-17, null without them."""
        if not 1 <= depth <= self.codes.shape[1]:
            return pa.nulls(len(self), pa.string())
        parts = [pc.cast(self.column(f"{_CODE}{level}"), pa.string()) for level in range(1, depth + 1)]
        return pc.binary_join_element_wise(*parts, "-")

    def with_semantic_ids(self, ids: SemanticIds) -> ItemTable:
        """The same items with the ids that these codebooks give them."""
        codes = ids.codebooks.encode(self.content)
        table = self.table
        for level in range(codes.shape[1]):
            column = pa.array(codes[:, level], mask=codes[:, level] == NO_CODE)
            table = table.append_column(f"{_CODE}{level + 1}", column)
        metadata = {**(table.schema.metadata or {}), _RUN: ids.run.encode()}
        return ItemTable(table.replace_schema_metadata(metadata), self.content)

    def with_beside(self, vectors: np.ndarray) -> ItemTable:
        """The same items with these vectors, float32 [n, D'], beside their content in one of unit length.

        The cosine of two items that have both is the mean of the two cosines.
        """
        joined = np.concatenate([self.content, vectors], axis=1)
        length = np.linalg.norm(joined, axis=1, keepdims=True)
        return ItemTable(self.table, joined / np.where(length > 0, length, 1.0))

    def fingerprint(self) -> str:
        """A hash of the rows and of the vectors."""
        digest = hashlib.blake2b(digest_size=16)
        buffer = pa.BufferOutputStream()
        pq.write_table(
            self.table, buffer
        )  # parquet has no undefined bytes under nulls, as Arrow buffers have
        digest.update(buffer.getvalue())
        for start in range(0, len(self), 65536):
            digest.update(np.ascontiguousarray(self.content[start : start + 65536]).tobytes())
        digest.update(str(self.content.shape).encode())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write items.parquet, content.npy and the words of the texts into `directory`, each file whole or
        not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        write_table(directory / "items.parquet", self.table)
        write_array(directory / "content.npy", np.asarray(self.content, dtype=np.float32))
        self.title_tokens.save(directory, "title")
        self.text_tokens.save(directory, "text")

    @classmethod
    def load(cls, directory: Path) -> ItemTable:
        """What `save` wrote, its vectors memory-mapped; raises AdstoolError when it is damaged or absent."""
        try:
            table = pq.read_table(directory / "items.parquet")
            content = mapped(directory / "content.npy")
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise AdstoolError(f"{directory} holds no whole item table: {error}", "Build it again.") from None
        items = cls(table, content)
        items._folder = directory
        return items


def build_items(
    con: duckdb.DuckDBPyConnection,
    vectors: Mapping[str, tuple[list[str], np.ndarray]],
    semantic: SemanticIds | None = None,
    knowledge: Mapping[str, tuple[list[str], np.ndarray]] | None = None,
) -> ItemTable:
    """All items of the catalogue with their content vectors and, given codebooks, their semantic ids.

    vectors: by item type ('ad', 'pin'), ids and float32 [m, D]; ids the catalogue does not know are left out.
    knowledge: vectors of the same form to have beside them; semantic ids do not depend on it.
    Raises AdstoolError when the vectors of the two types differ in width.
    """
    table = con.sql(load_sql("features_items")).to_arrow_table()
    bare = ItemTable(table, np.zeros((table.num_rows, 1), dtype=np.float32))
    items = ItemTable(table, _by_row(bare, vectors))
    if semantic is not None and any(ids for ids, _ in vectors.values()):
        items = items.with_semantic_ids(semantic)
    return items.with_beside(_by_row(items, knowledge)) if knowledge else items


def _by_row(items: ItemTable, vectors: Mapping[str, tuple[list[str], np.ndarray]]) -> np.ndarray:
    """The vectors of every item, float32 [n, D], zeros for one without; D = 1 where nobody has one."""
    widths = {array.shape[1] for ids, array in vectors.values() if len(ids)}
    if len(widths) > 1:
        raise AdstoolError(
            f"Ads and pins have vectors of different widths: {sorted(widths)}.",
            "Embed both with one model: adstool embed all",
        )
    found = np.zeros((len(items), next(iter(widths), 1)), dtype=np.float32)
    for item_type, (ids, array) in vectors.items():
        if ids:
            rows = items.rows(ids, item_type)
            found[rows[rows >= 0]] = array[rows >= 0]
    return found
