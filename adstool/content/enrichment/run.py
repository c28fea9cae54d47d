"""`enrich` as a whole: attributes by CLIP or a language model, then knowledge vectors of what is known."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from adstool.config import Settings
from adstool.content.enrichment.attributes_by_clip import enrich_by_clip
from adstool.content.enrichment.attributes_by_llm import LlmOptions, enrich_by_llm
from adstool.content.enrichment.chat import open_chat
from adstool.content.enrichment.knowledge import embed_knowledge
from adstool.content.enrichment.result import EnrichResult
from adstool.workspace import Workspace


def enrich_items(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    by: str,
    kinds: Sequence[str] = ("ad", "pin"),
    *,
    limit: int | None = None,
    dry_run: bool = False,
    retry_rejected: bool = False,
) -> EnrichResult:
    """Enrich items `by` clip or llm. Raises AdstoolError when the model cannot be used."""
    if by == "clip":
        result = enrich_by_clip(ws, settings, con, kinds, limit=limit, dry_run=dry_run)
    else:
        options = LlmOptions(kinds, limit, dry_run, retry_rejected)
        result = enrich_by_llm(ws, settings, con, open_chat(settings.llm), options)
    if not dry_run:
        result.knowledge = embed_knowledge(ws, settings, con, kinds)
    return result
