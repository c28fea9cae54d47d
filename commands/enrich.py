"""adstool enrich: attributes, intents and audience of items, by CLIP or a language model, cached."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, say, show, table
from adstool.errors import AdstoolError, UsageError, choose

if TYPE_CHECKING:
    from adstool.content.enrichment.result import EnrichResult

KINDS = {"ads": ("ad",), "pins": ("pin",), "all": ("ad", "pin")}
SHOWN = 10  # problems listed for people; --json has all


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        enrich,
        "adstool enrich ads --limit 100",
        "adstool enrich --with llm --dry-run",
    )


def enrich(
    context: typer.Context,
    what: Annotated[str, argument(_options.KIND_OF_ITEMS, "ads|pins|all")] = "all",
    by: Annotated[
        str,
        option(
            Group.MODEL,
            "clip, by the vectors, or llm, the model that setting llm.model names.",
            "--with",
            metavar="clip|llm",
        ),
    ] = "clip",
    relevance: Annotated[
        bool,
        option(
            Group.MODEL,
            "With llm: grade logged queries and items 1 to 5, and teach a student to grade the rest.",
            "--relevance",
        ),
    ] = False,
    limit: Annotated[
        int | None, _options.limit("items, or pairs with --relevance,", "all that have no answer yet")
    ] = None,
    retry_rejected: Annotated[
        bool,
        option(
            Group.RUNNING,
            "With llm: ask again where answers did not fit the schema.",
            "--retry-rejected",
        ),
    ] = False,
    dry_run: _options.DryRun = False,
) -> None:
    """Give items attributes, intents and audience, cached.

    With llm by any OpenAI-compatible endpoint (setting llm.base_url, its key in the variable that
    llm.api_key_env names) or a local transformers folder, with adstool[llm]. Nothing unchanged is asked
    twice; settings llm.max_calls and llm.max_tokens bound a run. --dry-run counts, and estimates tokens
    and cost.
    """
    if what not in KINDS:
        raise UsageError(f"'{what}' cannot be enriched.", choose(what, KINDS))
    if by not in ("clip", "llm"):
        raise UsageError(f"--with {by} is no way to enrich.", choose(by, ("clip", "llm")))
    if by == "clip" and (retry_rejected or relevance):
        raise UsageError("--relevance and --retry-rejected ask a language model.", "Add --with llm.")
    ws, settings = open_workspace(context)
    from adstool.content.enrichment.run import enrich_items

    lock = nullcontext() if dry_run else ws.lock(settings.warehouse.lock_wait_seconds)
    with lock:
        done = enrich_items(
            ws,
            settings,
            by,
            KINDS[what],
            limit=limit,
            dry_run=dry_run,
            retry_rejected=retry_rejected,
            relevance=relevance,
        )
    if not emit(context, done.to_json()):
        _show(context, done, "pairs" if relevance else "items")
    if done.complaint:
        raise AdstoolError(done.complaint, "Run it again: only what has no answer is asked.")
    if done.dry_run:
        next_verb(context, "the same without --dry-run")
    else:
        what = "relevance" if relevance else "item_attributes"
        next_verb(context, f'adstool sql "from {what} limit 5"')


def _show(context: typer.Context, done: EnrichResult, what: str) -> None:
    if done.dry_run:
        say(context, f"{done.source}: {done.left:,} {what} to do, {done.cached:,} cached.")
    else:
        say(
            context,
            f"{done.source}: {done.enriched:,} {what} enriched, {done.cached:,} cached,"
            f" {done.rejected:,} rejected, {done.failed:,} failed, {done.left:,} left.",
        )
    if done.calls:
        about = "would be about " if done.dry_run else ""
        say(
            context,
            f"{about}{done.calls:,} calls, {done.tokens_in:,} + {done.tokens_out:,} tokens,"
            f" cost {show(done.cost)}" + (", tokens counted as characters by 4." if done.dry_run else "."),
        )
    if done.stopped:
        say(context, f"Stopped: {done.stopped}. What was answered is kept; the same command goes on.")
    if done.examples:
        names = list(done.examples[0])
        table(context, names, [[example[name] for name in names] for example in done.examples])
    if done.problems:
        rows = [[p["item_id"], p["kind"], p["reason"]] for p in done.problems[:SHOWN]]
        table(context, ["item", "kind", "why there is no result"], rows)
    if done.student:
        _show_student(context, done.student)


def _show_student(context: typer.Context, student: dict[str, Any]) -> None:
    test, labelled = student["test"], student["labelled"]
    say(
        context,
        f"Student relevance@{student['run_id']} ({student['kind']}): on {test['pairs']:,} held-out pairs"
        f" kappa {show(test['kappa'])}, mean error {show(test['mae'])}, equal {test['equal']:.0%}.",
    )
    grades = ", ".join(f"{count:,} of {grade}" for grade, count in labelled["grades"].items())
    say(
        context, f"It graded {labelled['pairs']:,} logged pairs of {labelled['queries']:,} queries: {grades}."
    )
