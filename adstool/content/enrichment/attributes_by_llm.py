"""`enrich --with llm`: the attributes of items by a language model, each content asked once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import duckdb

from adstool.config import Settings
from adstool.config_services import LlmSettings
from adstool.content.enrichment.calls import Caller, Outcome, Usage, ask_all
from adstool.content.enrichment.chat import Chat, estimate_tokens
from adstool.content.enrichment.prompts import (
    ATTRIBUTES_VERSION,
    ItemText,
    Messages,
    attribute_messages,
    expected_answer,
)
from adstool.content.enrichment.result import EnrichResult
from adstool.content.enrichment.schema import Attributes, parse_attributes
from adstool.content.enrichment.store import EnrichmentStore, Key, Known, Row, content_hash, read_items
from adstool.errors import WorkspaceLocked
from adstool.progress import bar, log
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

T = TypeVar("T")
WRITE_EVERY = 16  # answers; a kill loses fewer, unless they come faster than the pause below lets them
WRITE_SECONDS = 2.0  # or after so long, when the model is slow
BETWEEN_WRITES = 4  # times what a write took: answers that come fast wait longer, so most time goes to asking


@dataclass(frozen=True)
class LlmOptions:
    """What one run is asked to do."""

    kinds: Sequence[str] = ("ad", "pin")
    limit: int | None = None  # items (or pairs) asked about at most
    dry_run: bool = False  # ask nothing, estimate
    retry_rejected: bool = False  # ask again where answers did not fit the schema


@dataclass
class _Plan:
    """Which items are done, and which are to be asked, equal ones together."""

    cached: int
    copies: list[Row]  # items equal to one that was answered
    asked: dict[str, list[Key]]  # content hash -> its items, first come first
    left: int


def enrich_by_llm(ws: Workspace, settings: Settings, chat: Chat, options: LlmOptions) -> EnrichResult:
    """Ask `chat` for the attributes of the items that are new or changed since the last answer.

    Answers are written a few at a time, so a run cut off goes on where it stopped. A limit of calls or tokens
    ends the run in order. Raises AdstoolError when the endpoint cannot be used, after writing what it said.
    """
    started = time.monotonic()
    store = EnrichmentStore(f"llm:{chat.name}", ATTRIBUTES_VERSION)
    with open_warehouse(ws, settings, read_only=True) as con:
        items = read_items(con, options.kinds)
        plan = _plan(items, store.known(con), options)
    result = EnrichResult(store.source, cached=plan.cached + len(plan.copies), left=plan.left)

    def write(content: str) -> Messages:
        return attribute_messages(items[plan.asked[content][0]])

    if options.dry_run:
        requests = (write(content) for content in plan.asked)
        return estimate(result, settings.llm, requests, len(expected_answer()))
    caller = Caller(chat, settings.llm)
    count = sum(map(len, plan.asked.values()))
    if count:
        log.info("asking %s about %d items, %d contents", chat.name, count, len(plan.asked))

    def rows(content: str, outcome: Outcome[Attributes]) -> list[Row]:
        payload = outcome.value.to_json() if outcome.value else None
        known = Known(content, payload, outcome.problem)
        first, *others = plan.asked[content]
        paid = Row(first, known, outcome.tokens_in, outcome.tokens_out)
        return [paid, *(Row(key, known) for key in others)]

    tally = _Tally(result, plan.asked)
    try:
        with (
            bar("enrich", total=len(plan.asked), unit="item") as shown,
            batches(ws, settings, store.write) as keep,
        ):
            keep(plan.copies)
            for content, outcome in ask_all(caller, plan.asked, write, parse_attributes):
                tally.add(content, outcome)
                if outcome.failure is None:
                    keep(rows(content, outcome))
                shown.update(1)
    finally:
        finish(result, caller, settings.llm, count, time.monotonic() - started)
    return result


def _plan(items: dict[Key, ItemText], known: dict[Key, Known], options: LlmOptions) -> _Plan:
    answered = {
        found.content_hash: found
        for found in known.values()
        if found.payload is not None or not options.retry_rejected
    }
    plan = _Plan(0, [], {}, 0)
    for key, item in items.items():
        content = content_hash(item)
        found = answered.get(content)
        if found is not None and known.get(key) == found:
            plan.cached += 1
        elif found is not None:
            plan.copies.append(Row(key, found))
        elif content in plan.asked or options.limit is None or len(plan.asked) < options.limit:
            plan.asked.setdefault(content, []).append(key)
        else:
            plan.left += 1
    return plan


class _Tally:
    """Outcomes counted into a result, by item."""

    def __init__(self, result: EnrichResult, asked: dict[str, list[Key]]) -> None:
        self._result, self._asked = result, asked

    def add(self, content: str, outcome: Outcome[Attributes]) -> None:
        """Count one outcome for all items of this content."""
        keys, result = self._asked[content], self._result
        item_type, item_id = keys[0]
        if outcome.value is not None:
            result.add_enriched(item_type, [key[1] for key in keys], [outcome.value])
            return
        kind = "rejected" if outcome.problem else "failed"
        setattr(result, kind, getattr(result, kind) + len(keys))
        reason = outcome.problem or outcome.failure or ""
        result.problems.append({"item_type": item_type, "item_id": item_id, "kind": kind, "reason": reason})


@contextmanager
def batches(
    ws: Workspace, settings: Settings, write: Callable[[duckdb.DuckDBPyConnection, list[T]], None]
) -> Iterator[Callable[[list[T]], None]]:
    """A function that takes rows and writes them some at a time, the last ones whatever ends the block.

    A model is asked for hours, in which others want to read: the warehouse is open only while it is written,
    and rows wait until no reader has it. Raises WorkspaceLocked when one still has it at the end.
    """
    held: list[T] = []
    written, earliest = time.monotonic(), 0.0

    def write_all(how: Settings) -> None:
        with open_warehouse(ws, how) as con:
            write(con, held)
        held.clear()

    def keep(rows: list[T]) -> None:
        nonlocal written, earliest
        held.extend(rows)
        now = time.monotonic()
        if now >= earliest and (len(held) >= WRITE_EVERY or now >= written + WRITE_SECONDS):
            with suppress(WorkspaceLocked):
                write_all(settings.waiting_for_nobody())
            written = time.monotonic()
            earliest = written + BETWEEN_WRITES * (written - now)

    try:
        yield keep
    finally:
        if held:
            write_all(settings)


def finish(result: EnrichResult, caller: Caller, limits: LlmSettings, count: int, seconds: float) -> None:
    """Enter what the run cost, and what of its `count` items it did not come to."""
    usage = caller.usage
    result.calls, result.tokens_in, result.tokens_out = usage.calls, usage.tokens_in, usage.tokens_out
    result.cost = cost(usage, limits)
    result.left += count - result.enriched - result.rejected - result.failed
    result.stopped, result.seconds = caller.stopped, seconds


def estimate(
    result: EnrichResult, limits: LlmSettings, requests: Iterator[Messages], characters: int
) -> EnrichResult:
    """What asking would cost: a call a request, tokens as characters by four, answers of usual length."""
    usage = Usage()
    for request in requests:
        usage.calls += 1
        usage.tokens_in += estimate_tokens(request)
        usage.tokens_out += min(-(-characters // 4), limits.max_output_tokens)
    result.dry_run = True
    result.calls, result.tokens_in, result.tokens_out = usage.calls, usage.tokens_in, usage.tokens_out
    result.cost, result.left = cost(usage, limits), result.left + usage.calls
    return result


def cost(usage: Usage, limits: LlmSettings) -> float:
    """Money at the prices in the settings."""
    return (usage.tokens_in * limits.price_in + usage.tokens_out * limits.price_out) / 1e6
