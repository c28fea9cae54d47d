"""Report section with searches as pictures: what people ask for, and what the vectors find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adstool.config import Settings
from adstool.content.queries import Asked, asked_texts, keep_queries, known_queries
from adstool.errors import AdstoolError
from adstool.evaluation.page import Html, picture, section, text
from adstool.evaluation.thumbnails import Thumbnails
from adstool.progress import log
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from adstool.content.search import Hit
    from adstool.content.vectors import ActiveModel

QUERIES = 4
ITEMS = 5
SIDE = 160  # of a thumbnail


def search_section(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> Html:
    """The most frequent queries, or the largest categories where nothing is asked, with their nearest items.

    Empty when nothing was embedded. The model is loaded only when `embed` kept no vector of these texts.
    """
    if not ws.vectors.is_dir():
        return Html("")  # LanceDB takes longer to import than a report of data alone takes to write
    from adstool.content.search import nearest_items
    from adstool.content.vectors import ITEM_TYPES, VectorTable, active_model

    model = active_model(ws)
    tables = {kind: VectorTable.open(ws, kind, model.slug) for kind in ITEM_TYPES} if model else {}
    found = {kind: table for kind, table in tables.items() if table is not None}
    if model is None or not found:
        return Html("")
    asked = asked_texts(con)
    queries = [entry for entry in asked if entry.requests is not None] or asked
    queries, vectors = _with_vectors(ws, settings, model, queries)
    hits = {
        query.text: nearest_items(
            con, found, vectors[query.text], ITEMS, text=query.text, words=settings.content.words
        )
        for query in queries
    }
    ids = [hit.item_id for listed in hits.values() for hit in listed]
    about = {
        item_id: (title, image)
        for item_id, title, image, _ in con.execute(load_sql("evaluation_shown"), {"ids": ids}).fetchall()
    }
    pictures = Thumbnails(SIDE)
    blocks = [_results(query, hits[query.text], about, pictures) for query in queries]
    what = "The most frequent queries" if any(q.requests is not None for q in queries) else "Categories"
    lead = f"{what}, each with the items nearest to it by {model.name}, as adstool search finds them."
    return section("search", "Search", lead, *blocks) if blocks else Html("")


def _with_vectors(
    ws: Workspace, settings: Settings, model: ActiveModel, queries: list[Asked]
) -> tuple[list[Asked], dict[str, np.ndarray]]:
    """The first few queries that have a vector; without any, the model makes those of the first few."""
    known = known_queries(ws, model.slug)
    chosen = [query for query in queries if query.text in known][:QUERIES]
    if chosen or not queries:
        return chosen, known
    from adstool.content.clip import load_clip, resolve_source
    from adstool.content.search import in_use

    try:
        source = resolve_source(ws, in_use(settings, model))
        if source.slug != model.slug:
            return [], {}
        made = keep_queries(ws, model.slug, load_clip(source), [query.text for query in queries])
    except AdstoolError as error:
        log.info("No searches in the report: %s", error.message)
        return [], {}
    return queries[:QUERIES], made


def _results(
    query: Asked,
    hits: list[Hit],
    about: dict[str, tuple[str | None, str | None]],
    pictures: Thumbnails,
) -> Html:
    asked = "" if query.requests is None else f"{query.requests:,} requests"
    shown = []
    for hit in hits:
        title, image = about.get(hit.item_id, (None, None))
        shown.append(
            f"<figure>{picture(pictures.get(image), title or hit.item_id)}"
            f"<figcaption>{text(title or hit.item_id)}<br>{hit.score:.2f}</figcaption></figure>"
        )
    return Html(
        f'<div class="user"><h3>{text(query.text)} <span class="meta">{text(asked)}</span></h3>'
        f'<div class="strip found" tabindex="0">{"".join(shown)}</div></div>'
    )
