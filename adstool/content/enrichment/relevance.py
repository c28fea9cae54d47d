"""`enrich --with llm --relevance`: how well shown items answered their queries, graded 1 to 5.

The language model grades a sample of the pairs that were logged; a student learns from it and grades all of
them. Sent are the words of queries that several users asked, and of items; never who asked, or clicked what.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from adstool.config import Settings
from adstool.content.enrichment.attributes_by_llm import LlmOptions, batches, estimate, finish
from adstool.content.enrichment.calls import Caller, Outcome, ask_all
from adstool.content.enrichment.chat import Chat
from adstool.content.enrichment.prompts import RELEVANCE_VERSION, ItemText, Messages, relevance_messages
from adstool.content.enrichment.result import EXAMPLES, EnrichResult
from adstool.content.enrichment.schema import parse_grade
from adstool.content.enrichment.store import Key, content_hash, read_items
from adstool.progress import bar, log
from adstool.warehouse import lent, load_sql, open_warehouse, transaction
from adstool.workspace import Workspace

STUDENT = "student:"  # sources of grades that a student gave

_COLUMNS = pa.schema(
    [
        ("query", pa.string()),
        ("item_type", pa.string()),
        ("item_id", pa.string()),
        ("content_hash", pa.string()),
        ("source", pa.string()),
        ("prompt_version", pa.string()),
        ("grade", pa.float64()),
        ("problem", pa.string()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("created_at", pa.timestamp("us")),
    ]
)


@dataclass(frozen=True)
class Pair:
    """A query, in lower case with single blanks, and an item that was shown for it."""

    query: str
    item: Key


@dataclass(frozen=True)
class Graded:
    """What a source said of a pair: a grade, or why its answer was refused."""

    pair: Pair
    content_hash: str
    grade: float | None
    problem: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


def logged_pairs(con: duckdb.DuckDBPyConnection, kinds: Sequence[str], users: int = 1) -> list[Pair]:
    """All pairs of a query that at least so many users asked and an item shown for it, in an order that is
    random but always the same."""
    rows = con.execute(load_sql("enrichment_pairs"), {"kinds": list(kinds), "users": users}).fetchall()
    return [Pair(query, (kind, item_id)) for query, kind, item_id in rows]


def grade_by_llm(ws: Workspace, settings: Settings, chat: Chat, options: LlmOptions) -> EnrichResult:
    """Ask `chat` for the grades of enrichment.relevance_pairs logged pairs, those not graded yet.

    Written, limited and resumed as attributes are. Raises AdstoolError when the endpoint cannot be used.
    """
    started = time.monotonic()
    source = f"llm:{chat.name}"
    with open_warehouse(ws, settings, read_only=True) as con:
        items = read_items(con, options.kinds)
        pairs = logged_pairs(con, options.kinds, settings.enrichment.query_users)
        known = {found.pair: found for found in read_grades(con, source, RELEVANCE_VERSION)}
    pairs = [pair for pair in pairs if pair.item in items][: settings.enrichment.relevance_pairs]
    if not pairs:
        log.warning(
            "No query of the log was asked by %d users and answered with items: nothing is graded.",
            settings.enrichment.query_users,
        )
    hashes = {pair: pair_hash(pair.query, items[pair.item]) for pair in pairs}
    pending = [
        pair
        for pair in pairs
        if pair not in known
        or known[pair].content_hash != hashes[pair]
        or (options.retry_rejected and known[pair].grade is None)
    ]
    asked = pending if options.limit is None else pending[: options.limit]
    result = EnrichResult(source, cached=len(pairs) - len(pending), left=len(pending) - len(asked))

    def write(pair: Pair) -> Messages:
        return relevance_messages(pair.query, items[pair.item])

    if options.dry_run:
        return estimate(result, settings.llm, (write(pair) for pair in asked), len('{"grade": 3}'))
    caller = Caller(chat, settings.llm)

    def keep_all(con: duckdb.DuckDBPyConnection, rows: list[Graded]) -> None:
        write_grades(con, source, RELEVANCE_VERSION, rows)

    try:
        with (
            bar("grade", total=len(asked), unit="pair") as shown,
            batches(ws, settings, keep_all) as keep,
        ):
            for pair, outcome in ask_all(caller, asked, write, parse_grade):
                _count(result, pair, outcome, items[pair.item])
                if outcome.failure is None:
                    spent = (outcome.tokens_in, outcome.tokens_out)
                    keep([Graded(pair, hashes[pair], outcome.value, outcome.problem, *spent)])
                shown.update(1)
    finally:
        finish(result, caller, settings.llm, len(asked), time.monotonic() - started)
    return result


def _count(result: EnrichResult, pair: Pair, outcome: Outcome[int], item: ItemText) -> None:
    about = {"item_type": pair.item[0], "item_id": pair.item[1]}
    if outcome.value is not None:
        result.enriched += 1
        if len(result.examples) < EXAMPLES:
            example = {"query": pair.query, **about, "title": item.title, "grade": outcome.value}
            result.examples.append(example)
        return
    kind = "rejected" if outcome.problem else "failed"
    setattr(result, kind, getattr(result, kind) + 1)
    result.problems.append({**about, "kind": kind, "reason": outcome.problem or outcome.failure or ""})


def pair_hash(query: str, item: ItemText) -> str:
    """A hash of all that is sent of a pair."""
    return hashlib.blake2b(f"{query}\n{content_hash(item)}".encode(), digest_size=16).hexdigest()


def read_grades(con: duckdb.DuckDBPyConnection, source: str, version: str) -> list[Graded]:
    """Everything that one source said with one wording."""
    rows = con.execute(load_sql("enrichment_grades"), {"source": source, "version": version}).fetchall()
    return [Graded(Pair(query, (kind, item_id)), *rest) for query, kind, item_id, *rest in rows]


def write_grades(con: duckdb.DuckDBPyConnection, source: str, version: str, rows: Sequence[Graded]) -> None:
    """Keep grades, in one transaction, in place of what this source said of the same pairs."""
    if not rows:
        return
    table = pa.Table.from_pylist(
        [
            {
                "query": row.pair.query,
                "item_type": row.pair.item[0],
                "item_id": row.pair.item[1],
                "content_hash": row.content_hash,
                "source": source,
                "prompt_version": version,
                "grade": row.grade,
                "problem": row.problem,
                "tokens_in": row.tokens_in,
                "tokens_out": row.tokens_out,
                "created_at": datetime.now(UTC).replace(tzinfo=None),
            }
            for row in rows
        ],
        schema=_COLUMNS,
    )
    with lent(con, relevance_rows=table), transaction(con):
        con.execute(load_sql("enrichment_replace_grades"))
        con.execute("insert into relevance by name select * from relevance_rows")


def write_student_grades(
    con: duckdb.DuckDBPyConnection, source: str, version: str, pairs: Sequence[Pair], grades: np.ndarray
) -> None:
    """Keep the grades of a student, in one transaction, in place of those of all students before it."""
    count = len(pairs)
    columns: dict[str, Any] = {
        "query": [pair.query for pair in pairs],
        "item_type": [pair.item[0] for pair in pairs],
        "item_id": [pair.item[1] for pair in pairs],
        "source": [source] * count,
        "prompt_version": [version] * count,
        "grade": grades.astype(np.float64),
        "created_at": [datetime.now(UTC).replace(tzinfo=None)] * count,
    }
    with lent(con, relevance_rows=pa.table(columns)), transaction(con):
        con.execute("delete from relevance where starts_with(source, $prefix)", {"prefix": STUDENT})
        con.execute("insert into relevance by name select * from relevance_rows")
