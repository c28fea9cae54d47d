"""What is known of an item as a vector: its attributes as a short text, through the text tower of the CLIP in
use, in the LanceDB table `knowledge_<type>s__<model slug>` beside the vectors of its picture and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import lancedb
import numpy as np
import pyarrow as pa

from adstool.config import Settings
from adstool.content.enrichment.store import load_attributes
from adstool.content.search import load_active_clip
from adstool.content.vectors import ITEM_TYPES, active_model, matrix, table_name
from adstool.progress import bar, log
from adstool.workspace import Workspace

CHUNK = 1024  # texts between two steps of the bar


def embed_knowledge(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, kinds: Sequence[str] = ("ad", "pin")
) -> dict[str, int]:
    """Bring the knowledge vectors of these item types up to date; only texts not seen before are embedded.

    Returns how many items have one, by type; nothing before the first `embed`. Each table is written as one
    version, so a kill leaves the former one.
    """
    model = active_model(ws)
    if model is None:
        log.info("attributes become vectors once items are embedded: adstool embed all")
        return {}
    texts = {
        kind: {
            item_id: text
            for item_id, known in load_attributes(con, kind).items()
            if (text := known.sentence())
        }
        for kind in kinds
    }
    held = {kind: _read(ws, kind, model.slug) for kind in kinds}
    vectors: dict[str, np.ndarray] = {}
    for table in held.values():
        if table is not None:
            rows = matrix(table["vector"], model.dim)
            vectors |= zip(table["text"].to_pylist(), rows, strict=True)
    fresh = sorted({text for found in texts.values() for text in found.values()} - vectors.keys())
    if fresh:
        clip = load_active_clip(ws, settings)
        with bar("knowledge", total=len(fresh), unit="text") as shown:
            for start in range(0, len(fresh), CHUNK):
                part = fresh[start : start + CHUNK]
                vectors |= zip(part, _encode(clip, part, settings.content.batch_size), strict=True)
                shown.update(len(part))
    for kind, wanted in texts.items():
        table = held[kind]
        before = {} if table is None else dict(zip(*_pairs(table), strict=True))
        if before != wanted:
            _write(ws, kind, model.slug, wanted, vectors, model.dim)
    return {kind: len(found) for kind, found in texts.items()}


def load_knowledge(ws: Workspace, item_type: str) -> tuple[list[str], np.ndarray]:
    """Item ids, sorted, and their knowledge vectors under the model in use: float32 [n, dim], unit length.

    Empty, shape [0, 0], before any `enrich`.
    """
    model = active_model(ws)
    table = _read(ws, item_type, model.slug) if model else None
    if model is None or table is None:
        return [], np.zeros((0, model.dim if model else 0), np.float32)
    table = table.sort_by("item_id")
    return table["item_id"].to_pylist(), matrix(table["vector"], model.dim)


def feature_knowledge(ws: Workspace, settings: Settings) -> dict[str, tuple[list[str], np.ndarray]]:
    """Ids and knowledge vectors by item type, which features have beside the content vectors; nothing unless
    `[features] knowledge` and `content` are on."""
    wanted = settings.features.knowledge and settings.features.content
    return {kind: load_knowledge(ws, kind) for kind in ITEM_TYPES} if wanted else {}


def _encode(clip: Any, texts: Sequence[str], batch: int) -> np.ndarray:
    parts = [clip.encode_texts(texts[start : start + batch]) for start in range(0, len(texts), batch)]
    return np.concatenate(parts)


def _pairs(table: pa.Table) -> tuple[list[str], list[str]]:
    return table["item_id"].to_pylist(), table["text"].to_pylist()


def _name(item_type: str, slug: str) -> str:
    return f"knowledge_{table_name(item_type, slug)}"


def _read(ws: Workspace, item_type: str, slug: str) -> pa.Table | None:
    name = _name(item_type, slug)
    if not (ws.vectors / f"{name}.lance").is_dir():
        return None
    try:
        return lancedb.connect(str(ws.vectors)).open_table(name).to_arrow()
    except ValueError:
        return None  # a kill between making the folder and its first version leaves no table


def _write(
    ws: Workspace,
    item_type: str,
    slug: str,
    texts: dict[str, str],
    vectors: dict[str, np.ndarray],
    dim: int,
) -> None:
    ids = sorted(texts)
    flat = np.concatenate([np.zeros(0, np.float32), *(vectors[texts[item_id]] for item_id in ids)])
    rows = pa.table(
        {
            "item_id": pa.array(ids, pa.string()),
            "text": pa.array([texts[item_id] for item_id in ids], pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dim),
        }
    )
    name = _name(item_type, slug)
    mode = "overwrite" if (ws.vectors / f"{name}.lance").is_dir() else "create"
    lancedb.connect(str(ws.vectors)).create_table(name, data=rows, mode=mode)
