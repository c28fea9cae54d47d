"""`embed`: the vectors of all catalogue items, making only those that are new or changed.

An item is known by the hash of its text, of its picture's bytes and of the model. Every few batches are one
write, so that work cut off goes on where it stopped; equal texts and pictures go through the model once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.content.attributes import read_attributes
from adstool.content.clip import ClipModel, ClipSource, load_clip, resolve_source
from adstool.content.clip_data import item_text
from adstool.content.encoding import Encoder
from adstool.content.images import hash_bytes, hash_image, is_url
from adstool.content.precision import SAMPLE, check_precision, in_precision
from adstool.content.queries import asked_texts, keep_queries
from adstool.content.vectors import (
    ITEM_TYPES,
    ActiveModel,
    VectorTable,
    active_model,
    set_active_model,
)
from adstool.errors import DataError
from adstool.progress import bar, log, track
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

WRITE_EVERY = 8  # batches; each write is a version of the table


@dataclass(frozen=True)
class Item:
    """What there is to embed of one item."""

    item_id: str
    text: str
    image: str | None
    text_hash: str | None
    image_hash: str | None
    problem: str | None  # why the picture cannot be used, as far as its file tells
    content_hash: str


@dataclass
class EmbedResult:
    """What `embed` did: every item is embedded, skipped as unchanged, or failed (its picture cannot be used).

    A failed item with a text is embedded by its text. `failures` are (item_id, reason).
    """

    model: str
    dim: int = 0
    precision: str | None = None  # None: nothing had to be embedded
    embedded: int = 0
    skipped: int = 0
    failed: int = 0
    removed: int = 0
    described: int = 0  # unchanged items whose attributes (price, campaign dates ...) were brought up to date
    seconds: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complaint(self) -> str:
        """What could not be used, in a sentence; empty when all could."""
        if not self.failed:
            return ""
        item_id, reason = self.failures[0]
        pictures = "1 picture" if self.failed == 1 else f"{self.failed:,} pictures"
        return f"{pictures} cannot be used, the first: {item_id}, {reason}. All else is embedded."

    @property
    def items_per_second(self) -> float:
        """Items written a second, decoding and writing included, loading the model not."""
        done = self.embedded + self.failed if self.precision else 0
        return done / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The result as the command prints it."""
        failures = [{"item_id": item_id, "reason": reason} for item_id, reason in self.failures]
        return {**vars(self), "items_per_second": self.items_per_second, "failures": failures}


@dataclass
class Plan:
    """What is to be done for one item type."""

    kind: str
    table: VectorTable | None
    pending: list[Item]
    replaced: set[str]
    gone: set[str]
    attributes: pa.Table  # of every item of the catalogue


@dataclass(frozen=True)
class Work:
    """Everything that is pending, and what it is done with; the tables of all plans exist."""

    ws: Workspace
    source: ClipSource
    clip: ClipModel  # in the precision chosen
    batch: int  # items in a forward pass
    images: Path | None
    plans: Sequence[Plan]

    def parts(self, plan: Plan) -> Iterator[list[Item]]:
        """The pending items of a plan, as many at a time as are written together."""
        step = WRITE_EVERY * self.batch
        for start in range(0, len(plan.pending), step):
            yield plan.pending[start : start + step]


@dataclass(frozen=True)
class Written:
    """What one write stored: how many items, and (item_id, reason) of those whose picture is no use."""

    items: int
    broken: list[tuple[str, str]]


# How pending items are embedded and written: in this process, or by workers (adstool.distributed).
Engine = Callable[[Work], Iterator[Written]]


def embed_items(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    kinds: Sequence[str] = ITEM_TYPES,
    *,
    images: Path | None = None,
    engine: Engine | None = None,
) -> EmbedResult:
    """Bring the vector tables of the model in settings.content up to date with the catalogue.

    `kinds` are item types ('ad', 'pin'); `images` is the folder of relative image paths. New and changed
    items are embedded by `engine` (in this process when None), those that left the catalogue removed, the
    model becomes the workspace's model in use.
    Raises AdstoolError when the model cannot be loaded, DataError when there is nothing to embed.
    """
    check_precision(settings.content.precision)
    source = resolve_source(ws, settings)
    result = EmbedResult(source.name)
    plans = [plan_items(ws, con, source, kind, images, result) for kind in kinds]
    dims = [plan.table.dim for plan in plans if plan.table]
    if any(plan.pending for plan in plans):
        asked = [entry.text for entry in asked_texts(con)]
        result.dim = _embed(ws, settings, source, plans, images, engine or embed_locally, result, asked)
    elif dims:
        result.dim = dims[0]
        if not result.failed:
            log.info("vectors of %s are up to date", source.name)
    else:
        raise DataError(
            f"The catalogue holds no {' or '.join(kinds)} with a text or a picture.",
            "Ingest one: adstool ingest FILES.",
        )
    for plan in plans:
        if plan.table and plan.gone:
            plan.table.remove(plan.gone)
            result.removed += len(plan.gone)
        if plan.table:
            result.described += plan.table.describe(plan.attributes)
            plan.table.maintain()
    _activate(ws, source, result.dim)
    return result


def plan_items(
    ws: Workspace,
    con: duckdb.DuckDBPyConnection,
    source: ClipSource,
    kind: str,
    images: Path | None,
    result: EmbedResult,
) -> Plan:
    """What is to be done for the items of one type; those that are unchanged are counted in `result`."""
    items = _read_items(con, source, kind, images)
    table = VectorTable.open(ws, kind, source.slug)
    known: dict[str, tuple[str, str | None]] = {}
    if table:
        rows = table.columns("item_id", "content_hash", "problem").to_pydict()
        hashes = zip(rows["content_hash"], rows["problem"], strict=True)
        known = dict(zip(rows["item_id"], hashes, strict=True))
    pending = []
    for item in items:
        content_hash, problem = known.get(item.item_id, (None, None))
        if content_hash != item.content_hash:
            pending.append(item)
        elif problem:
            result.failed += 1
            result.failures.append((item.item_id, problem))
        else:
            result.skipped += 1
    replaced = {item.item_id for item in pending} & known.keys()
    gone = known.keys() - {item.item_id for item in items}
    return Plan(kind, table, pending, replaced, gone, read_attributes(con, kind, source.slug))


def _read_items(
    con: duckdb.DuckDBPyConnection, source: ClipSource, kind: str, images: Path | None
) -> list[Item]:
    rows = con.execute(load_sql("content_items"), {"kinds": [kind]}).fetchall()
    remote = sum(1 for row in rows if row[4] and is_url(row[4]))
    if remote:
        log.info("%d %ss name their picture by URL; it is not fetched, their text is embedded", remote, kind)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        described = pool.map(lambda row: _describe(row, source, images), rows)
        return list(track(described, f"reading {kind}s", total=len(rows), unit="item"))


def _describe(row: tuple[Any, ...], source: ClipSource, images: Path | None) -> Item:
    _, item_id, title, description, image, _ = row
    text = item_text(title, description)
    text_hash = hash_bytes(text.encode()) if text else None
    image = None if image and is_url(image) else image
    image_hash, problem = hash_image(image, images) if image else (None, None)
    if not text and not image:
        problem = "has neither a text nor a picture"
    elif problem:
        problem = f"image {image} {problem}"
    content_hash = hash_bytes(f"{source.identity}|{text_hash}|{image_hash}".encode())
    return Item(item_id, text, image, text_hash, image_hash, problem, content_hash)


def _embed(
    ws: Workspace,
    settings: Settings,
    source: ClipSource,
    plans: Sequence[Plan],
    images: Path | None,
    engine: Engine,
    result: EmbedResult,
    asked: Sequence[str],
) -> int:
    pending = [item for plan in plans for item in plan.pending]
    log.info("embedding %d items with %s", len(pending), source.name)
    clip = _prepared_clip(ws, settings, source, pending, images)
    result.precision = clip.precision
    keep_queries(ws, source.slug, clip, asked)
    for plan in plans:
        plan.table = VectorTable.create(ws, plan.kind, source.slug, clip.dim)
    started = time.monotonic()
    work = Work(ws, source, clip, settings.content.batch_size, images, plans)
    with bar("embed", total=len(pending), unit="item") as shown:
        for written in engine(work):
            result.failures += written.broken
            result.failed += len(written.broken)
            result.embedded += written.items - len(written.broken)
            shown.update(written.items)
    result.seconds = time.monotonic() - started
    return clip.dim


def embed_locally(work: Work) -> Iterator[Written]:
    """The engine that embeds in this process."""
    encoder = Encoder(
        work.clip, [item for plan in work.plans for item in plan.pending], work.images, work.batch
    )
    for plan in work.plans:
        if plan.table:
            encoder.reuse(plan.table)
    for plan in work.plans:
        for items in work.parts(plan):
            assert plan.table is not None
            yield write_items(plan.table, encoder, items, plan.replaced, plan.attributes)


def write_items(
    table: VectorTable, encoder: Encoder, items: Sequence[Item], replaced: set[str], attributes: pa.Table
) -> Written:
    """Embed the encoder's next items and store them in one version of the table."""
    rows = encoder.rows(items)
    replacing = any(row.item_id in replaced for row in rows)
    table.write(rows, replacing=replacing, attributes=attributes)
    return Written(len(rows), [(row.item_id, row.problem) for row in rows if row.problem])


def _prepared_clip(
    ws: Workspace, settings: Settings, source: ClipSource, pending: Sequence[Item], images: Path | None
) -> ClipModel:
    clip = load_clip(source)
    sample = Encoder(clip, [], images, SAMPLE).decode_some(pending, SAMPLE)
    texts = [item.text for item in pending if item.text][:SAMPLE]
    return in_precision(ws, source, clip, settings.content.precision, sample, texts)


def _activate(ws: Workspace, source: ClipSource, dim: int) -> None:
    model = ActiveModel(source.slug, source.name, source.pretrained, dim)
    if model == active_model(ws):
        return
    set_active_model(ws, model)
    for kind in ITEM_TYPES:
        if VectorTable.open(ws, kind, source.slug) is None:
            log.info("there are no vectors of %ss by %s: adstool embed %ss", kind, source.name, kind)
