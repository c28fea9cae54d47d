"""`enrich` as a whole: attributes by CLIP or a language model and their vectors, or relevance grades."""

from __future__ import annotations

from collections.abc import Sequence

from adstool.config import Settings
from adstool.content.enrichment.attributes_by_clip import enrich_by_clip
from adstool.content.enrichment.attributes_by_llm import LlmOptions, enrich_by_llm
from adstool.content.enrichment.connect import open_chat
from adstool.content.enrichment.distillation import distil
from adstool.content.enrichment.knowledge import embed_knowledge
from adstool.content.enrichment.relevance import grade_by_llm
from adstool.content.enrichment.result import EnrichResult
from adstool.content.search import require_active
from adstool.errors import UsageError
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def enrich_items(
    ws: Workspace,
    settings: Settings,
    by: str,
    kinds: Sequence[str] = ("ad", "pin"),
    *,
    limit: int | None = None,
    dry_run: bool = False,
    retry_rejected: bool = False,
    relevance: bool = False,
) -> EnrichResult:
    """Enrich items `by` clip or llm; with `relevance`, grade logged queries and items and teach the student.

    The caller holds the workspace's lock unless `dry_run`; the warehouse is held only while it is read or
    written. Raises AdstoolError when the model cannot be used, UsageError for relevance without a language
    model.
    """
    if by == "clip":
        if relevance or retry_rejected:
            raise UsageError(
                "--with clip gives no relevance grades and rejects nothing.",
                "Give --with llm, or leave out --relevance and --retry-rejected.",
            )
        result = enrich_by_clip(ws, settings, kinds, limit=limit, dry_run=dry_run)
    else:
        options = LlmOptions(kinds, limit, dry_run, retry_rejected)
        chat = open_chat(settings.llm, asking=not dry_run)
        if relevance:
            if not dry_run:
                require_active(ws)  # the student needs vectors: say so before anything is paid for
            result = grade_by_llm(ws, settings, chat, options)
            if not dry_run:
                result.student = distil(ws, settings, result.source, kinds)
            return result
        result = enrich_by_llm(ws, settings, chat, options)
    if not dry_run:
        with open_warehouse(ws, settings, read_only=True) as con:
            result.knowledge = embed_knowledge(ws, settings, con, kinds)
    return result
