"""The steps of inferring interests, each one SQL statement into a temporary table of the connection.

interest_members: what items are about. interest_query_members: what queries ask for. interest_evidence: sums
of what users did. interest_people: their profiles. interest_priors_now: what profiles want.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from adstool.config import Settings
from adstool.content.interest_kinds import KINDS, QUERY_MEMBERS, Catalogue, query_categories
from adstool.warehouse import load_sql, put_table

if TYPE_CHECKING:
    import duckdb

FOREVER = 2**62  # microseconds: later than any event
DAY = 86_400_000_000  # microseconds
PROFILE_SMOOTHING = 300.0  # evidence at the population's shares that each entry of a profile starts with
_TEMPORARY = (
    "interest_changed",
    "interest_members",
    "interest_query_categories",
    "interest_query_values",
    "interest_query_members",
    "interest_given_weights",
    "interest_action_weights",
    "interest_people",
    "interest_priors_now",
    "interest_sums_now",
)


def action_weights(settings: Settings) -> pa.Table:
    """source, action (null: any) and weight of everything that counts by itself, impressions not among them.

    An action counts |its weight in the settings| to the power interests.power, unwanted ones against.
    """
    chosen = settings.interests
    rows: list[tuple[str, str | None, float]] = [
        ("on_site", action.name, (1.0 if action.positive else -1.0) * abs(action.weight) ** chosen.power)
        for action in settings.actions
    ]
    rows += [
        ("query", None, chosen.query),
        ("offsite_online", None, chosen.online),
        ("offsite_offline", None, chosen.offline),
    ]
    source, action, weight = zip(*rows, strict=True)
    return pa.table(
        {
            "source": pa.array(source, pa.string()),
            "action": pa.array(action, pa.string()),
            "weight": pa.array(weight, pa.float64()),
        }
    )


def write_members(
    con: duckdb.DuckDBPyConnection, catalogue: Catalogue, kinds: Sequence[str], until: int
) -> None:
    """Temporary tables of what items and logged queries are about."""
    queries = [row[0] for row in con.execute(load_sql("interests_queries"), {"until": until}).fetchall()]
    items, asked = [], []
    for name in kinds:
        items.append(_of_kind(name, KINDS[name].members(catalogue)))
        read = KINDS[name].queries
        asked.append(_of_kind(name, read(catalogue, queries) if read else QUERY_MEMBERS.empty_table()))
    put_table(con, "interest_members", pa.concat_tables(items))
    put_table(con, "interest_query_values", pa.concat_tables(asked))
    put_table(con, "interest_query_categories", query_categories(catalogue, queries))
    con.execute(
        f"create or replace temp table interest_query_members as {load_sql('interests_query_members')}"
    )


def _of_kind(name: str, members: pa.Table) -> pa.Table:
    return members.append_column("kind", pa.array([name] * members.num_rows, pa.string()))


def add_sums(
    con: duckdb.DuckDBPyConnection, settings: Settings, into: str, until: int, reference: int
) -> None:
    """Evidence of the users of interest_changed, by what it is about: `into` names where the rows go.

    until, reference: microseconds UTC; what happened from `until` on is not read.
    """
    chosen = settings.interests
    con.execute(
        f"{into} {load_sql('interests_sums')}",
        {
            "actions": [action.name for action in settings.actions],
            "until": until,
            "reference": reference,
            "half_life": chosen.half_life_days * DAY,
            "offsite": chosen.offsite,
        },
    )


def write_people(con: duckdb.DuckDBPyConnection, until: int, settings: Settings) -> None:
    """interest_people: everybody known before `until` (microseconds UTC), and their profiles."""
    chosen = settings.interests
    con.execute(
        f"create or replace temp table interest_people as {load_sql('interests_profiles')}",
        {"until": until, "offsite": chosen.offsite, "profile": chosen.profile},
    )


def write_priors(con: duckdb.DuckDBPyConnection, settings: Settings, scale: float) -> None:
    """interest_priors_now, from interest_evidence and interest_people; amounts count `scale` times."""
    put_table(con, "interest_given_weights", action_weights(settings))
    con.execute(
        f"create or replace temp table interest_action_weights as {load_sql('interests_action_weights')}",
        {"impression": settings.interests.impression},
    )
    con.execute(
        f"create or replace temp table interest_priors_now as {load_sql('interests_priors')}",
        {"scale": scale, "smoothing": PROFILE_SMOOTHING},
    )


def scoring(settings: Settings, scale: float, part: int = 0, parts: int = 1) -> dict[str, float]:
    """The parameters of sql/interests_weights.sql for one of so many parts of the users."""
    return {"scale": scale, "prior": settings.interests.prior, "part": part, "parts": parts}


@contextmanager
def temporary_tables(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Drops this module's temporary tables at the end of the block."""
    try:
        yield
    finally:
        con.execute("drop view if exists temp.interest_evidence")
        for table in _TEMPORARY:
            con.execute(f"drop table if exists temp.{table}")
