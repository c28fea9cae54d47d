"""Reading the stored interests: of one user with the evidence, or over all users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.content.interest_kinds import Catalogue, query_categories, topic_queries
from adstool.content.taxonomy import load_taxonomy
from adstool.errors import AdstoolError
from adstool.warehouse import load_sql

if TYPE_CHECKING:
    import duckdb

RECENT_QUERIES = 5


def user_interests(con: duckdb.DuckDBPyConnection, user_id: str, limit: int = 10) -> list[dict[str, Any]]:
    """The strongest interests of a user in every kind and level, with their evidence, strongest first.

    Each: kind, level, value, weight, lift, certainty, last_seen, evidence [{source, action, count,
    last_seen, contribution}], the strongest contribution first; contributions sum to the weight. Raises
    AdstoolError for a user whom neither catalogue nor log knows.
    """
    require_user(con, user_id)
    rows = con.execute(load_sql("interests_of_user"), {"user": user_id, "limit": limit}).fetchall()
    names = ("kind", "level", "value", "weight", "lift", "certainty", "last_seen", "evidence")
    found = []
    for row in rows:
        entry = dict(zip(names, row, strict=True))
        entry["last_seen"] = stamp(entry["last_seen"])
        entry["evidence"] = sorted(
            (
                {
                    "source": one["source"],
                    "action": one["action"],
                    "count": one["count"],
                    "last_seen": stamp(one["last_ts"]),
                    "contribution": one["contribution"],
                }
                for one in entry["evidence"]
            ),
            key=lambda one: -abs(one["contribution"]),
        )
        found.append(entry)
    return found


def require_user(con: duckdb.DuckDBPyConnection, user_id: str) -> None:
    """Raises AdstoolError when neither catalogue nor log knows the user."""
    known = con.execute(
        "select count(*) from interest_profiles where user_id = $user", {"user": user_id}
    ).fetchall()
    if not known[0][0]:
        raise AdstoolError(
            f"Nobody called '{user_id}' is in the catalogue of users or in the log.",
            'See who is: adstool sql "select distinct user_id from events limit 10"; '
            "after new data: adstool interests --refresh",
        )


def recent_queries(con: duckdb.DuckDBPyConnection, settings: Settings, user_id: str) -> list[dict[str, Any]]:
    """What a user searched for last, newest first.

    Each: query, times, last_seen, read_by, intents [{topic, score}], the strongest first. read_by is clip
    where CLIP read the query, else words: the topics that the query's words ask for.
    """
    rows = con.execute(
        load_sql("interests_recent_queries"), {"user": user_id, "limit": RECENT_QUERIES}
    ).fetchall()
    unread = [query for query, _, _, intents in rows if not intents]
    by_words = _by_words(con, settings, unread) if unread else {}
    return [
        {
            "query": query,
            "times": times,
            "last_seen": stamp(ts),
            "read_by": "clip" if intents else "words",
            "intents": intents or by_words.get(query, []),
        }
        for query, times, ts, intents in rows
    ]


def _by_words(
    con: duckdb.DuckDBPyConnection, settings: Settings, queries: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The topics that queries name, or else those of the categories that their words ask for."""
    catalogue = Catalogue(con, load_taxonomy(settings.interests.taxonomy, con))
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in topic_queries(catalogue, queries).to_pylist():
        if row["level"] == row["value"].count("/") and row["value"] in catalogue.paths:
            found[row["query"]][row["value"]] += row["share"]
    rest = [query for query in queries if query not in found]
    topics = {category: topic.path for topic in catalogue.topics for category in topic.categories}
    for row in query_categories(catalogue, rest).to_pylist():
        if row["category"] in topics:
            found[row["query"]][topics[row["category"]]] += row["share"]
    return {
        query: [{"topic": topic, "score": score} for topic, score in sorted(of.items(), key=lambda x: -x[1])]
        for query, of in found.items()
    }


def summary(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Every value by kind and level: share of the population, users with evidence, users whom it leads."""
    names = ("kind", "level", "value", "share", "users", "leading", "above")
    rows: Sequence[tuple[Any, ...]] = con.execute(load_sql("interests_summary")).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def build_facts(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """When the stored interests were made, of what, and how many users they cover."""
    ((as_of, offsite, made_at),) = con.execute(
        "select as_of, offsite, made_at from interest_build"
    ).fetchall()
    ((users,),) = con.execute("select count(distinct user_id) from interests").fetchall()
    ((everybody,),) = con.execute("select count(*) from interest_profiles").fetchall()
    return {
        "as_of": stamp(as_of),
        "made_at": stamp(made_at),
        "offsite": bool(offsite),
        "users": int(users),
        "users_known": int(everybody),
    }


def stamp(moment: datetime | None) -> str | None:
    """A time of the warehouse as text, UTC."""
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
