"""adstool interests: what users want, with the evidence."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        interests,
        "adstool interests u1 --limit 3",
        "adstool interests --refresh",
    )


def interests(
    context: typer.Context,
    user: Annotated[str | None, argument("A user_id.", "USER", "all users together")] = None,
    refresh: Annotated[
        bool, option(Group.RUNNING, "Bring interests up to the data as it is now.", "--refresh")
    ] = False,
    full: Annotated[
        bool, option(Group.RUNNING, "With --refresh: add up everything again.", "--full")
    ] = False,
    limit: Annotated[int, _options.limit("interests of every kind", least=1)] = 10,
    dry_run: _options.DryRun = False,
) -> None:
    """Show what a user wants, or users want, with the evidence.

    By category, topic, intent and semantic id, inferred from what was done on the site and bought off it;
    a hide counts against. Setting interests.offsite = false leaves what was bought out everywhere.
    """
    from adstool.errors import UsageError

    if full and not refresh:
        raise UsageError("--full belongs to --refresh.", "adstool interests --refresh --full")
    if dry_run and not refresh:
        raise UsageError("--dry-run belongs to --refresh.", "adstool interests --refresh --dry-run")
    workspace, settings = open_workspace(context)
    if dry_run:
        from adstool.planned import plan_interests

        plan_of_warehouse(context, workspace, settings, lambda con: plan_interests(workspace, settings, con))
        return
    from adstool.content.interest_views import build_facts
    from adstool.content.interests import stale
    from adstool.warehouse import open_warehouse

    with open_warehouse(workspace, settings, read_only=True) as con:
        outdated = stale(con, settings)
    done = _refresh(workspace, settings, full) if refresh or outdated == "never made" else None
    with open_warehouse(workspace, settings, read_only=True) as con:
        result: dict[str, Any] = {**build_facts(con), "stale": stale(con, settings)}
        if done is not None:
            result["refresh"] = done
        if user is None:
            result |= _everybody(con)
        else:
            result |= _one(con, settings, user, limit)
    if emit(context, result):
        return
    (_show_user if user is not None else _show_all)(context, result, limit)
    _close(context, result, user)


def _refresh(workspace: Any, settings: Any, full: bool) -> dict[str, Any]:
    from datetime import UTC, datetime

    from adstool.content.interests import load_catalogue
    from adstool.content.interests import refresh as bring_up
    from adstool.pipeline import record
    from adstool.warehouse import open_warehouse

    started = datetime.now(UTC)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        with open_warehouse(workspace, settings) as con:
            catalogue = load_catalogue(workspace, settings, con)
            done: dict[str, Any] = bring_up(con, settings, catalogue, full=full).to_json()
        record(workspace, settings, "interests", done, started)
    return done


def _everybody(con: Any) -> dict[str, Any]:
    from adstool.content.interest_views import summary

    return {"interests": summary(con)}


def _one(con: Any, settings: Any, user: str, limit: int) -> dict[str, Any]:
    from adstool.content.interest_views import recent_queries, user_interests

    return {
        "user_id": user,
        "interests": user_interests(con, user, limit),
        "queries": recent_queries(con, settings, user),
    }


def _show_user(context: typer.Context, result: dict[str, Any], limit: int) -> None:
    rows = [
        (
            one["kind"],
            one["value"],
            f"{one['weight']:.1%}",
            None if one["lift"] is None else round(one["lift"], 2),
            _evidence(one["evidence"]),
            _day(one["last_seen"]),
        )
        for one in result["interests"]
        if one["weight"] > 0
    ]
    table(
        context,
        ["kind", "interest", "weight", "x usual", "evidence", "last seen"],
        rows,
        f"What {result['user_id']} wants",
    )
    for query in result["queries"]:
        intents = ", ".join(f"{one['topic']} {one['score']:.0%}" for one in query.get("intents") or [])
        asked = f"asked for '{query['query']}' {_day(query['last_seen'])}"
        say(context, f"{asked}: {intents}" if intents else asked)


def _evidence(evidence: list[dict[str, Any]]) -> str:
    """The strongest three contributions, as people read them."""
    parts = []
    for one in evidence[:3]:
        what = one["action"] or "users like this one"
        if one["source"].startswith("offsite"):
            what = f"{what} off-site"
        count = f" x {one['count']}" if one["count"] and one["count"] > 1 else ""
        parts.append(f"{what}{count} {one['contribution']:+.1%}")
    return ", ".join(parts)


def _day(moment: str | None) -> str:
    return "-" if moment is None else moment[:16].replace("T", " ")


def _show_all(context: typer.Context, result: dict[str, Any], limit: int) -> None:
    shown: dict[tuple[str, int], int] = {}
    rows = []
    for one in result["interests"]:
        place = (one["kind"], one["level"])
        shown[place] = shown.get(place, 0) + 1
        if shown[place] <= limit:
            share = "-" if one["share"] is None else f"{one['share']:.1%}"
            rows.append((one["kind"], one["value"], share, one["users"], one["leading"], one["above"]))
    table(
        context,
        ["kind", "interest", "of all", "users", "first for", "1.5 x usual for"],
        rows,
        f"Interests of {result['users']:,} of {result['users_known']:,} users",
    )


def _close(context: typer.Context, result: dict[str, Any], user: str | None) -> None:
    used = "on-site and off-site" if result["offsite"] else "on-site only: interests.offsite is off"
    say(context, f"From what was done up to {_day(result['as_of'])} UTC, {used}.")
    if result["stale"]:
        say(context, f"Out of date, {result['stale']}: adstool interests --refresh")
    next_verb(context, f"adstool rank --user {user}" if user else "adstool interests USER")
