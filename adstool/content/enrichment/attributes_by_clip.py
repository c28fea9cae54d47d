"""`enrich --with clip`: attributes of items from the vectors that `embed` made; no picture is read again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from adstool.config import Settings
from adstool.config_services import EnrichmentSettings
from adstool.content.enrichment.prompts import ItemText
from adstool.content.enrichment.result import EnrichResult
from adstool.content.enrichment.store import EnrichmentStore, Key, Known, Row, read_items
from adstool.content.enrichment.vocabulary import read_vocabulary
from adstool.content.enrichment.zero_shot import JUDGED, AttributeScorer
from adstool.content.search import load_active_clip, require_active
from adstool.content.vectors import VectorTable
from adstool.errors import DataError
from adstool.progress import bar, log
from adstool.warehouse import load_sql, open_warehouse
from adstool.workspace import Workspace

CHUNK = 4096  # items scored and written at once
RULE = "clip-1"  # change it with the way of choosing


@dataclass(frozen=True)
class _Embedded:
    """The items of one type that have a vector."""

    place: dict[str, int]  # row of an item in `vectors`
    vectors: np.ndarray  # joint, float32 [n, dim]
    hashes: dict[str, str]  # content hash by item


def enrich_by_clip(
    ws: Workspace,
    settings: Settings,
    kinds: Sequence[str] = ("ad", "pin"),
    *,
    limit: int | None = None,
    dry_run: bool = False,
) -> EnrichResult:
    """Attributes of the items whose vectors are new or changed, by the CLIP in use.

    Raises AdstoolError before the first `embed`, DataError when no item of these types has a vector.
    """
    started = time.monotonic()
    model = require_active(ws)
    wanted = settings.enrichment
    with open_warehouse(ws, settings, read_only=True) as con:
        vocabulary = read_vocabulary(wanted.vocabulary).with_categories(_categories(con))
        rule = f"{RULE} {vocabulary.version} {wanted.min_confidence:g} {wanted.min_agreement:g}"
        store = EnrichmentStore(f"clip:{model.slug}", f"{rule} {wanted.unchecked}")
        texts, known = read_items(con, kinds), store.known(con)
    tables = {kind: VectorTable.open(ws, kind, model.slug) for kind in kinds}
    embedded = {kind: _embedded(table) for kind, table in tables.items() if table is not None}
    if not any(items.place for items in embedded.values()):
        raise DataError(f"No {' or '.join(kinds)} has a vector of {model.name}.", "Embed: adstool embed all")
    pending = _pending(embedded, known)
    result = EnrichResult(store.source, dry_run=dry_run)
    result.cached = sum(len(items.place) for items in embedded.values()) - len(pending)
    chosen = pending[:limit]
    if chosen and not dry_run:
        scorer = AttributeScorer(load_active_clip(ws, settings), vocabulary)
        believed = _judge(scorer, embedded, texts, wanted, result)
        with bar("enrich", total=len(chosen), unit="item") as shown:
            for start in range(0, len(chosen), CHUNK):
                part = chosen[start : start + CHUNK]
                vectors = np.stack([embedded[kind].vectors[embedded[kind].place[i]] for kind, i in part])
                words = [texts.get(key) for key in part]
                found = scorer.attributes(vectors, words, believed, wanted.min_confidence)
                answers = [
                    Known(embedded[kind].hashes[item_id], attributes.to_json(), None)
                    for (kind, item_id), attributes in zip(part, found, strict=True)
                ]
                with open_warehouse(ws, settings) as con:  # others read in between
                    store.write(con, [Row(key, answer) for key, answer in zip(part, answers, strict=True)])
                for (kind, item_id), attributes in zip(part, found, strict=True):
                    result.add_enriched(kind, [item_id], [attributes])
                shown.update(len(part))
    result.left = len(pending) - result.enriched
    result.seconds = time.monotonic() - started
    return result


def _categories(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    return tuple(name for (name,) in con.execute(load_sql("enrichment_categories")).fetchall())


def _embedded(table: VectorTable) -> _Embedded:
    ids, vectors = table.vectors("joint")
    place = {item_id: row for row, item_id in enumerate(ids)}
    rows = table.columns("item_id", "content_hash").to_pydict()
    pairs = zip(rows["item_id"], rows["content_hash"], strict=True)
    return _Embedded(place, vectors, {item_id: content for item_id, content in pairs if item_id in place})


def _pending(embedded: dict[str, _Embedded], known: dict[Key, Known]) -> list[Key]:
    """The items, in order, that have no answer for the content they have now."""
    done = {(key, answer.content_hash) for key, answer in known.items()}
    return [
        (kind, item_id)
        for kind, items in embedded.items()
        for item_id in items.place
        if ((kind, item_id), items.hashes[item_id]) not in done
    ]


def _judge(
    scorer: AttributeScorer,
    embedded: dict[str, _Embedded],
    texts: dict[Key, ItemText],
    wanted: EnrichmentSettings,
    result: EnrichResult,
) -> set[str]:
    """The attributes that CLIP is believed on, judged on items spread over the whole catalogue."""
    keys = [(kind, item_id) for kind, items in embedded.items() for item_id in items.place]
    keys = keys[:: -(-len(keys) // JUDGED)]
    vectors = np.stack([embedded[kind].vectors[embedded[kind].place[item_id]] for kind, item_id in keys])
    agreement = scorer.judge(vectors, [texts.get(key) for key in keys])
    believed = {
        name for name, found in agreement.items() if found.believed(wanted.min_agreement, wanted.unchecked)
    }
    for name, found in sorted(agreement.items()):
        result.agreement[name] = {
            "items": found.items,
            "share": found.share,
            "believed": name in believed,
        }
        if name not in believed and found.share is not None:
            log.info(
                "%s: CLIP is right on %d of %d, so only words of the texts count",
                name,
                found.right,
                found.items,
            )
    unknown = sorted(name for name, found in agreement.items() if found.share is None)
    if unknown and not wanted.unchecked:
        log.info(
            "%s: too few texts name a word to judge CLIP by; [enrichment] unchecked = true takes its choice",
            ", ".join(unknown),
        )
    return believed
