"""Nearest items to a text or a picture, over the vectors in use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adstool.config import Settings
from adstool.content.attributes import Filter
from adstool.content.clip import ClipModel, load_clip, resolve_source
from adstool.content.images import ImageProblem, decode_image, read_image
from adstool.content.vectors import ITEM_TYPES, ActiveModel, VectorTable, active_model
from adstool.content.word_match import NEAREST, word_share
from adstool.errors import AdstoolError, DataError, UsageError
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


MOST_RESULTS = 100_000


@dataclass(frozen=True)
class Hit:
    """An item found, its title and its score: the cosine to the query, and what words of a text add."""

    item_id: str
    item_type: str
    score: float
    title: str | None


def query_vector(
    ws: Workspace,
    settings: Settings,
    *,
    text: str | None = None,
    image: Path | bytes | None = None,
    clip: ClipModel | None = None,
) -> np.ndarray:
    """The unit vector [dim] of a text or a picture under the model in use; `clip` is it, if it is loaded.

    Raises UsageError for neither or both, DataError for a picture that cannot be used.
    """
    if (text is None) == (image is None):
        raise UsageError("Search needs a text or --image FILE, not both.", 'adstool search "red dress"')
    if text is not None and not text.strip():
        raise UsageError("The text to search for is empty: ''.", 'adstool search "red dress"')
    require_active(ws)
    picture = None
    if image is not None:
        try:
            picture = decode_image(image if isinstance(image, bytes) else read_image(image))
        except ImageProblem as problem:
            name = "The picture" if isinstance(image, bytes) else image
            raise DataError(f"{name} {problem}.", "Give another picture.") from None
    clip = clip or load_active_clip(ws, settings)
    vectors = (
        clip.encode_texts([text or ""]) if picture is None else clip.encode_images([clip.prepare(picture)])
    )
    vector: np.ndarray = vectors[0]
    return vector


def search_items(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    *,
    text: str | None = None,
    image: Path | bytes | None = None,
    kinds: Sequence[str] = ITEM_TYPES,
    k: int = 10,
    among: Filter | None = None,
    clip: ClipModel | None = None,
) -> list[Hit]:
    """The k items of these types nearest to a text or a picture, best first, by cosine to their joint vector.

    The joint vector answers both for what a title says and for what its picture shows. Vectors are weak at
    single words such as colours, so for a text `content.words` times the share of its words that an item
    holds is added to the cosine, among the nearest few hundred. `among` leaves only items that pass.
    Raises AdstoolError before the first `embed`, and what query_vector raises.
    """
    if not 1 <= k <= MOST_RESULTS:
        raise UsageError(
            f"-k {k} is no number of results from 1 to {MOST_RESULTS:,}.", "adstool search TEXT -k 10"
        )
    vector = query_vector(ws, settings, text=text, image=image, clip=clip)
    model = require_active(ws)
    tables = {kind: VectorTable.open(ws, kind, model.slug) for kind in kinds}
    there = {kind: table for kind, table in tables.items() if table is not None}
    return nearest_items(con, there, vector, k, text=text, words=settings.content.words, among=among)


def nearest_items(
    con: duckdb.DuckDBPyConnection,
    tables: Mapping[str, VectorTable],
    vector: np.ndarray,
    k: int,
    *,
    text: str | None,
    words: float,
    among: Filter | None = None,
) -> list[Hit]:
    """`search_items` with the query's vector known, over the vector tables by item type."""
    weighed = words if text else 0.0
    depth = max(k, NEAREST) if weighed else k
    near = [
        (score, kind, item_id)
        for kind, table in tables.items()
        for item_id, score in table.nearest(vector, depth, among=among)
    ]
    written = _written(con, near)
    hits = []
    for score, kind, item_id in near:
        title, held = written.get((kind, item_id), (None, None))
        share = word_share(text, held) if weighed and text else 0.0
        hits.append(Hit(item_id, kind, score + weighed * share, title))
    return sorted(hits, key=lambda hit: (-hit.score, hit.item_id, hit.item_type))[:k]


def require_active(ws: Workspace) -> ActiveModel:
    """The model whose vectors are in use. Raises AdstoolError before the first `embed`."""
    model = active_model(ws)
    if model is None:
        raise AdstoolError(f"Nothing in {ws.root} has been embedded yet.", "Do it: adstool embed all")
    return model


def load_active_clip(ws: Workspace, settings: Settings) -> ClipModel:
    """The CLIP that made the vectors in use. Raises AdstoolError when its weights are others by now."""
    model = require_active(ws)
    source = resolve_source(ws, in_use(settings, model))
    if source.slug != model.slug:
        raise AdstoolError(
            f"The weights of {model.name} changed since the items were embedded.",
            f"Embed them again: adstool embed all --model {model.name}",
        )
    return load_clip(source)


def in_use(settings: Settings, model: ActiveModel) -> Settings:
    """`settings` with the model whose vectors are in use as its content model."""
    pretrained = "shipped" if model.name == "adstool-small" else model.pretrained
    content = dataclasses.replace(settings.content, model=model.name, pretrained=pretrained)
    return dataclasses.replace(settings, content=content)


def _written(
    con: duckdb.DuckDBPyConnection, found: Sequence[tuple[float, str, str]]
) -> dict[tuple[str, str], tuple[str | None, str]]:
    """Title, and all words, by item type and id."""
    ids = [item_id for _, _, item_id in found]
    rows = con.execute(load_sql("content_titles"), {"ids": ids}).fetchall()
    return {(item_type, item_id): (title, words) for item_type, item_id, title, words in rows}
