"""Report section of users' interests: how good the inferred ones are, and what a few users want, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.content.interest_views import recent_queries, user_interests
from adstool.evaluation.charts import Bar, interval_chart, number, percent
from adstool.evaluation.page import Html, figure, grid, section, table, text
from adstool.warehouse import load_sql

if TYPE_CHECKING:
    import duckdb

USERS = 3
TOP = 5  # interests shown a user
REASONS = 3  # pieces of evidence shown an interest
ORDERS = (
    ("interests", "inferred interests", "a"),
    ("on_site_only", "without off-site data", "a"),
    ("most_engaged", "engaged with most", "e"),
    ("last_engaged", "engaged with last", "e"),
    ("most_popular", "most popular", "e"),
    ("chance", "by chance", "e"),
)
JUDGES = (
    ("truth", "Against the true interests", "users, judged by the hidden truth of the synthetic world"),
    ("later", "Against what came later", "users who engaged after the cut, judged by the categories of that"),
    ("truth_newcomers", "Newcomers", "users without a past, judged by the hidden truth"),
)


def interests_section(
    settings: Settings, con: duckdb.DuckDBPyConnection, stage: dict[str, Any] | None
) -> Html:
    """NDCG@10 of the order of users' categories, and three sampled users with their evidence.

    stage: the result of `evaluate interests`, None before it. Empty with neither that nor stored interests.
    """
    parts: list[str] = []
    if stage:
        parts.append(grid([chart for name, *words in JUDGES if (chart := _chart(stage.get(name), *words))]))
    parts += _users(settings, con)
    if not any(parts):
        return Html("")
    lead = "What each user wants, inferred from what he did on and off the site; hides count against."
    if stage:
        offsite = "" if stage.get("offsite", True) else " Off-site data are switched off."
        lead += f" Figures are NDCG@10 over {stage['categories']} categories as of {stage['as_of']}.{offsite}"
    return section("interests", "Interests", lead, *parts)


def _chart(judged: dict[str, Any] | None, title: str, who: str) -> Html:
    """The orders beside each other; nothing where nobody could be judged."""
    if not judged or not judged["users"]:
        return Html("")
    bars = []
    for key, name, style in ORDERS:
        value, interval = judged["ndcg@10"].get(key), judged["intervals"].get(key)
        if value is not None:
            low, high = interval or (math.nan, math.nan)
            bars.append(Bar(name, value, low, high, f"{value:.3f}", style))
    chart = interval_chart(f"NDCG@10, {title.lower()}", bars)
    return figure(chart, f"{judged['users']:,} {who}", title)


def _users(settings: Settings, con: duckdb.DuckDBPyConnection) -> list[Html]:
    """A block for each of a few users whose interests are stored."""
    built = con.execute("select count(*) from interest_build").fetchall()[0][0]
    if not built:
        return []
    actions = [action.name for action in settings.actions if action.positive]
    sample = con.execute(load_sql("evaluation_users"), {"actions": actions, "limit": USERS}).fetchall()
    names = [user for user, *_ in sample]
    query = "select user_id from interest_profiles where list_contains($users, user_id)"
    stored = {user for (user,) in con.execute(query, {"users": names}).fetchall()}  # others are newer
    return [_user(settings, con, user) for user in names if user in stored]


def _user(settings: Settings, con: duckdb.DuckDBPyConnection, user: str) -> Html:
    """The strongest categories of a user, each with its share, its lift and where it comes from."""
    found = [
        entry
        for entry in user_interests(con, user, TOP)
        if entry["kind"] == "category" and not entry["level"]
    ]
    rows = [
        (entry["value"], percent(entry["weight"]), _lift(entry["lift"]), _evidence(entry)) for entry in found
    ]
    asked = ", ".join(one["query"] for one in recent_queries(con, settings, user))
    words = f"searched for {asked}" if asked else ""
    return Html(
        f'<div class="user"><h3>{text(user)} <span class="meta">{text(words)}</span></h3>'
        f"{table(('category', '>share', '>of average', 'because of'), rows)}</div>"
    )


def _lift(lift: float | None) -> str:
    return "–" if lift is None else f"{number(lift, 2)} ×"


def _evidence(entry: dict[str, Any]) -> str:
    """The strongest reasons in words: 5 × click (on site, last 2026-11-11), habits of people alike."""
    reasons = []
    for one in entry["evidence"][:REASONS]:
        if one["source"] == "profile":
            reasons.append("habits of people alike")
            continue
        what = f"{one['count']:,} × {one['action']}" if one["count"] else str(one["action"])
        sign = " against it" if one["contribution"] < 0 else ""
        last = f", last {one['last_seen'][:10]}" if one["last_seen"] else ""
        reasons.append(f"{what} ({one['source'].replace('_', ' ')}{last}){sign}")
    return "; ".join(reasons)
