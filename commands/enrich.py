"""adstool enrich: attributes, intents and audience of items, by CLIP or a language model, cached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, next_verb, say, show, table
from adstool.errors import AdstoolError, UsageError

if TYPE_CHECKING:
    from adstool.content.enrichment.result import EnrichResult

KINDS = {"ads": ("ad",), "pins": ("pin",), "all": ("ad", "pin")}
SHOWN = 10  # problems listed for people; --json has all


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("enrich")(enrich)


def enrich(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="ads, pins or all.")] = "all",
    by: Annotated[
        str, typer.Option("--with", help="clip, by the vectors, or llm, the model that [llm] names.")
    ] = "clip",
    limit: Annotated[int | None, typer.Option(min=0, help="Items asked about at most.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nothing; count, and estimate tokens and cost.")
    ] = False,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Ask again where the answers did not fit the schema.")
    ] = False,
    relevance: Annotated[
        bool, typer.Option("--relevance", help="Grade logged queries and items 1-5, and teach the student.")
    ] = False,
) -> None:
    """Give items attributes, intents and audience; nothing unchanged is asked twice."""
    if what not in KINDS:
        raise UsageError(f"'{what}' cannot be enriched.", f"Use one of: {', '.join(KINDS)}.")
    if by not in ("clip", "llm"):
        raise UsageError(f"--with {by} is no way to enrich.", "Use clip or llm.")
    if by == "clip" and (retry_rejected or relevance):
        raise UsageError("--relevance and --retry-rejected ask a language model.", "Add --with llm.")
    ws, settings = open_workspace(context)
    from adstool.content.enrichment.run import enrich_items
    from adstool.warehouse import open_warehouse

    with ws.lock(settings.warehouse.lock_wait_seconds), open_warehouse(ws, settings) as con:
        done = enrich_items(
            ws,
            settings,
            con,
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
