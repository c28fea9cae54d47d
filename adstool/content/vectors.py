"""The vector tables: what CLIP made of every item, in LanceDB, one table an item type and model.

Table `<type>s__<model slug>` has one row an item: its vectors (unit length, null where the item has no such
side), the hashes by which `embed` sees what is new or changed, and the attributes it can be filtered by
(adstool.content.attributes). `current.json` beside the tables names the
model whose vectors are in use. No torch here: ranking and features read vectors through this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col
from lancedb.index import Bitmap

from adstool.config import Settings
from adstool.content.attributes import ATTRIBUTES, INDEXED, Filter, attributes_of
from adstool.errors import AdstoolError, choose
from adstool.workspace import Workspace, read_json, write_json

ITEM_TYPES = ("ad", "pin")
SIDES = ("image", "text", "joint")
COMPACT_ABOVE = 20  # fragments; more of them make every scan slower
CLEAN_ABOVE = 60  # versions; each is a file, and opening a table lists them
INDEX_ABOVE = 50_000  # rows from which filters have a bitmap; scanning fewer costs less than keeping one
KEEP_VERSIONS = timedelta(hours=1)  # long enough for a reader that opened the table before compaction


@dataclass(frozen=True)
class ActiveModel:
    """The CLIP model whose vectors are in use in a workspace."""

    slug: str  # names its tables
    name: str  # as the user writes it: an open_clip name, adstool-small, clip@r1
    pretrained: str  # tag or checkpoint file; empty for the own models
    dim: int


@dataclass(frozen=True)
class ItemVectors:
    """One row to write: vectors of shape [dim], unit length; None where the item has no such side."""

    item_id: str
    content_hash: str
    text_hash: str | None
    image_hash: str | None
    problem: str | None  # why the picture could not be used
    image: np.ndarray | None
    text: np.ndarray | None
    joint: np.ndarray | None


def slugify(name: str) -> str:
    """`name` in letters, digits, dot, dash and underscore, fit for a table's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def table_name(item_type: str, slug: str) -> str:
    """The LanceDB table of an item type ('ad' or 'pin') and a model."""
    if item_type not in ITEM_TYPES:
        raise AdstoolError(f"'{item_type}' is not an item type.", choose(item_type, ITEM_TYPES))
    return f"{item_type}s__{slug}"


def active_model(ws: Workspace) -> ActiveModel | None:
    """The model whose vectors are in use, None before the first `embed`."""
    path = ws.vectors / "current.json"
    return ActiveModel(**read_json(path)) if path.is_file() else None


def set_active_model(ws: Workspace, model: ActiveModel) -> None:
    """Make the vectors of `model` the ones that search, features and the funnel read."""
    write_json(ws.vectors / "current.json", asdict(model))


def load_vectors(ws: Workspace, item_type: str, *, column: str = "joint") -> tuple[list[str], np.ndarray]:
    """Item ids, sorted, and their vectors of the model in use: float32 [n, dim], unit length.

    `column` is image, text or joint; items without that side are left out. Before any `embed` the answer is
    ([], zeros of shape [0, 0]).
    """
    if column not in SIDES:
        raise AdstoolError(f"'{column}' is not a vector column.", choose(column, SIDES))
    model = active_model(ws)
    table = VectorTable.open(ws, item_type, model.slug) if model else None
    if model is None or table is None:
        return [], np.zeros((0, model.dim if model else 0), np.float32)
    return table.vectors(column)


def feature_vectors(ws: Workspace, settings: Settings) -> dict[str, tuple[list[str], np.ndarray]]:
    """Ids and joint vectors by item type, from which features and candidates are made.

    Nothing with `[features] content = false`: models, the index and the source `clip` then do without.
    """
    return {kind: load_vectors(ws, kind) for kind in ITEM_TYPES} if settings.features.content else {}


class VectorTable:
    """The vectors of one item type under one model."""

    def __init__(self, table: Any) -> None:
        self._table = table

    @classmethod
    def open(cls, ws: Workspace, item_type: str, slug: str) -> VectorTable | None:
        """The table, or None when nothing was embedded into it yet."""
        name = table_name(item_type, slug)
        if not (ws.vectors / f"{name}.lance").is_dir():
            return None
        try:
            return cls(lancedb.connect(str(ws.vectors)).open_table(name))
        except ValueError:
            return None  # a kill between making the folder and its first version leaves no table

    @classmethod
    def create(cls, ws: Workspace, item_type: str, slug: str, dim: int) -> VectorTable:
        """The table, made empty when it is not there. Raises AdstoolError when it holds another dimension."""
        found = cls.open(ws, item_type, slug)
        if found is None:
            ws.vectors.mkdir(parents=True, exist_ok=True)
            database = lancedb.connect(str(ws.vectors))
            return cls(database.create_table(table_name(item_type, slug), schema=_schema(dim)))
        if found.dim != dim:
            raise AdstoolError(
                f"{ws.vectors}: table {table_name(item_type, slug)} holds vectors of {found.dim} numbers,"
                f" the model makes {dim}.",
                "Give the model another name, or delete the table's folder and embed again.",
            )
        return found

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._table.schema.field("joint").type.list_size)

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def columns(self, *names: str) -> pa.Table:
        """The named columns of every row, in no particular order."""
        return self._table.search().select(list(names)).limit(None).to_arrow()

    def vectors(self, column: str) -> tuple[list[str], np.ndarray]:
        """Sorted item ids with that side and their vectors, float32 [n, dim]."""
        rows = self.columns("item_id", column)
        rows = rows.filter(pc.is_valid(rows[column])).sort_by("item_id")
        return rows["item_id"].to_pylist(), matrix(rows[column], self.dim)

    def sides(self, column: str, hashes: set[str]) -> dict[str, np.ndarray]:
        """Vectors already made, by hash: `column` is text or image, `hashes` those looked for."""
        name = f"{column}_hash"
        shared = sorted(hashes & set(self.columns(name)[name].to_pylist()))
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(shared), 1000):
            query = self._table.search().where(col(name).isin(shared[start : start + 1000]))
            known = query.select([name, column]).limit(None).to_arrow()
            known = known.filter(pc.is_valid(known[column]))
            found |= zip(known[name].to_pylist(), matrix(known[column], self.dim), strict=True)
        return found

    @property
    def describes(self) -> bool:
        """Whether the rows have attributes; tables of earlier versions get them by `describe`."""
        return set(self._table.schema.names) >= {field.name for field in ATTRIBUTES}

    def write(
        self, rows: Sequence[ItemVectors], *, replacing: bool, attributes: pa.Table | None = None
    ) -> None:
        """Store rows in one version; with `replacing`, rows of the same item_id give way.

        `attributes` (adstool.content.attributes.SCHEMA) may hold more items than are written.
        """
        if not rows:
            return
        self._upgrade()
        data = _arrow(rows, self.dim, attributes)
        if replacing:
            merge = self._table.merge_insert("item_id")
            merge = merge.when_matched_update_all().when_not_matched_insert_all()
            merge.execute(data, on_bad_vectors="null")  # it takes a null, an item without that side, for bad
        else:
            self._table.add(data)

    def describe(self, attributes: pa.Table) -> int:
        """Bring the attributes of stored items up to date, leaving vectors as they are; how many changed."""
        self._upgrade()
        stored = self.columns("item_id", "metadata_hash")
        known = pa.table({"item_id": attributes["item_id"], "metadata_hash": attributes["metadata_hash"]})
        places = pc.index_in(stored["item_id"], value_set=known["item_id"].combine_chunks())
        wanted = known["metadata_hash"].combine_chunks().take(places.combine_chunks())
        same = pc.fill_null(pc.equal(stored["metadata_hash"], wanted), False)
        changed = stored["item_id"].filter(pc.and_(pc.invert(same), pc.is_valid(places)))
        if len(changed):
            rows = attributes.filter(pc.is_in(attributes["item_id"], value_set=changed.combine_chunks()))
            self._table.merge_insert("item_id").when_matched_update_all().execute(rows)
        return len(changed)

    def _upgrade(self) -> None:
        """Give a table of an earlier version the columns it lacks; only its description is rewritten."""
        missing = [field for field in ATTRIBUTES if field.name not in self._table.schema.names]
        if missing:
            self._table.add_columns(missing)

    def remove(self, item_ids: Iterable[str]) -> None:
        """Take out the rows of these items."""
        listed = sorted(item_ids)
        for start in range(0, len(listed), 1000):
            self._table.delete(col("item_id").isin(listed[start : start + 1000]))

    def nearest(
        self, query: np.ndarray, k: int, column: str = "joint", *, among: Filter | None = None
    ) -> list[tuple[str, float]]:
        """The k items nearest to `query` ([dim], unit length) and their cosine, best first.

        Only items that pass the filter are looked at, so that k are found where there are as many. Equal
        cosines are ordered by item_id. Raises AdstoolError when the rows have no attributes yet.
        """
        condition = among.expression() if among else None
        search = self._table.search(np.asarray(query, np.float32), vector_column_name=column)
        if condition is not None:
            if not self.describes:
                raise AdstoolError(
                    f"The vectors of table {self._table.name} were made before they could be filtered.",
                    "Complete them, without embedding anything again: adstool embed all",
                )
            search = search.where(condition, prefilter=True)
        found = search.distance_type("cosine").select(["item_id", "_distance"]).limit(k).to_arrow()
        pairs = zip(found["item_id"].to_pylist(), found["_distance"].to_pylist(), strict=True)
        ranked = [(item_id, 1.0 - distance) for item_id, distance in pairs if distance is not None]
        return sorted(ranked, key=lambda pair: (-pair[1], pair[0]))

    def maintain(self) -> None:
        """Merge small fragments and drop old versions once there are many; index filters of large tables."""
        rows = len(self)
        if self.describes and rows >= INDEX_ABOVE:
            indexed = {name for index in self._table.list_indices() for name in index.columns}
            for name in INDEXED:
                if name not in indexed:
                    self._table.create_index(name, config=Bitmap())
        fragments = int(self._table.stats()["fragment_stats"]["num_fragments"])
        if fragments > COMPACT_ABOVE or len(self._table.list_versions()) > CLEAN_ABOVE:
            self._table.optimize(cleanup_older_than=KEEP_VERSIONS)


def matrix(column: Any, dim: int) -> np.ndarray:
    """A column of vectors without nulls as float32 [n, dim]."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [np.asarray(chunk.flatten(), np.float32).reshape(-1, dim) for chunk in chunks]
    return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)


def _schema(dim: int) -> pa.Schema:
    vector = pa.list_(pa.float32(), dim)
    return pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("text_hash", pa.string()),
            pa.field("image_hash", pa.string()),
            pa.field("problem", pa.string()),
            *(pa.field(side, vector) for side in SIDES),
            *ATTRIBUTES,
        ]
    )


def _arrow(rows: Sequence[ItemVectors], dim: int, attributes: pa.Table | None) -> pa.Table:
    schema = _schema(dim)
    columns: list[Any] = [
        pa.array([getattr(row, name) for row in rows], pa.string()) for name in schema.names[:5]
    ]
    zero = np.zeros(dim, np.float32)
    for side in SIDES:
        vectors = [getattr(row, side) for row in rows]
        flat = np.concatenate([zero if vector is None else vector for vector in vectors])
        missing = pa.array([vector is None for vector in vectors])
        values = pa.array(flat.astype(np.float32, copy=False))
        columns.append(pa.FixedSizeListArray.from_arrays(values, dim, mask=missing))
    columns += attributes_of(columns[0], attributes)
    return pa.Table.from_arrays(columns, schema=schema)
