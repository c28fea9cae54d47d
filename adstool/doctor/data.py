"""Checks of the warehouse: that it opens, and that what is in it fits together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from adstool.config import Settings
from adstool.doctor.finding import Check, fault, fit, odd
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

MOST_REJECTED = 0.1  # share of all rows read
MOST_UNKNOWN = 0.1  # share of events whose item no catalogue knows
MOST_MISSING = 0.1  # share of pictures that cannot be used
PICTURES = 200  # looked at
FEW = 50  # actions of a kind, from fewer of which a head learns little
LEAST_CREDITED = 0.01  # share of conversions after a click on an ad of the advertiser


def data_checks(ws: Workspace, settings: Settings) -> Iterator[Check]:
    """All of them; one that another process holds is not waited for."""
    from adstool.warehouse.database import open_unchanged, schema_version
    from adstool.warehouse.queries import migrations

    if not ws.warehouse.is_file():
        yield fit("warehouse", "nothing ingested yet")
        return
    with open_unchanged(ws, settings.waiting_for_nobody()) as con:
        version, newest = schema_version(con), migrations()[-1][0]
        if version < newest:
            found = f"schema {version}, of an older adstool; this one has {newest}"
            yield odd("warehouse", found, "adstool status brings it up to date")
            return
        events = _count(con, "select count(*) from events")
        yield fit("warehouse", f"{events:,} events, schema {version}")
        yield rejects(con)
        yield unknown_items(con, events)
        yield pictures(con)
        yield times(con)
        yield actions(con, settings)
        yield conversions(con, settings)


def _count(con: duckdb.DuckDBPyConnection, sql: str, **values: object) -> int:
    return int(con.execute(sql, values or None).fetchall()[0][0] or 0)


def rejects(con: duckdb.DuckDBPyConnection) -> Check:
    """How many rows were refused, of all that were read."""
    from adstool.warehouse.status import table_rows

    refused = _count(con, "select count(*) from rejects")
    taken = sum(table_rows(con).values())
    share = refused / max(refused + taken, 1)
    if share > MOST_REJECTED:
        return fault("rejects", f"{refused:,} rows refused, {share:.0%} of all", "adstool rejects says why")
    return fit("rejects", f"{refused:,} rows refused, {share:.1%} of all")


def unknown_items(con: duckdb.DuckDBPyConnection, events: int) -> Check:
    """Events whose item no catalogue knows: nothing is learned from them."""
    from adstool.warehouse.status import orphans

    unknown = orphans(con)["events"]
    found = f"{unknown:,} of {events:,} events are of items that no catalogue knows"
    if unknown > MOST_UNKNOWN * max(events, 1):
        return fault("items", found, "Ingest the catalogues of ads and pins: adstool ingest FILES")
    return fit("items", found)


def pictures(con: duckdb.DuckDBPyConnection) -> Check:
    """Whether the catalogue's pictures are where it says, and inside its folder."""
    from adstool.content.images import ImageProblem, is_url, resolve_image
    from adstool.warehouse.queries import load_sql

    rows = con.execute(load_sql("doctor_pictures"), {"pictures": PICTURES}).fetchall()
    files = [(item, image) for item, image in rows if not is_url(image)]
    problems = []
    for item, image in files:
        try:
            if not resolve_image(image, None).is_file():
                problems.append(f"that of {item} is missing")
        except ImageProblem as problem:
            problems.append(f"that of {item} {problem}")
    if len(problems) > MOST_MISSING * len(files):
        found = f"{len(problems)} of {len(files)} looked at cannot be used: {problems[0]}"
        return fault("pictures", found, "Put them back, or ingest the catalogue again with --images DIR")
    return fit("pictures", f"{len(files) - len(problems)} of {len(files)} looked at are there")


def times(con: duckdb.DuckDBPyConnection) -> Check:
    """Events of tomorrow: a clock that is wrong, here or where the log was made."""
    soon = (datetime.now(UTC) + timedelta(days=1)).replace(tzinfo=None)
    late = _count(con, "select count(*) from events where ts > $soon", soon=soon)
    if late:
        latest = con.execute("select max(ts) from events").fetchall()[0][0]
        mend = "Mend the clock of this machine, or the times of the log (zone, seconds or milliseconds)."
        return fault("times", f"{late:,} events are of the future, up to {latest:%Y-%m-%d %H:%M} UTC", mend)
    return fit("times", "no event is of the future")


def actions(con: duckdb.DuckDBPyConnection, settings: Settings) -> Check:
    """Actions of [[actions]] that were never or seldom seen: their heads learn nothing or little."""
    seen = dict(con.execute("select action, count(*) from events group by action").fetchall())
    if not seen:
        return fit("actions", "no events yet")
    never = [action.name for action in settings.actions if not seen.get(action.name)]
    if never:
        mend = 'Mend [[actions]], or ingest with --map; see adstool sql "from events limit 5"'
        return odd("actions", f"no event has the action {', '.join(never)}", mend)
    few = [f"{action.name} ({seen[action.name]})" for action in settings.actions if seen[action.name] < FEW]
    if few:
        return odd(
            "actions", f"seldom seen: {', '.join(few)}", f"Ingest a longer log: {FEW} or more of each."
        )
    return fit("actions", ", ".join(f"{action.name} {seen[action.name]:,}" for action in settings.actions))


def conversions(con: duckdb.DuckDBPyConnection, settings: Settings) -> Check:
    """Conversions that no click came before: their users or advertisers may be named otherwise."""
    from adstool.warehouse.queries import load_sql

    held = _count(con, "select count(*) from conversions")
    if not held:
        return fit("conversions", "none")
    hours = settings.conversion.click_window_hours
    credited = _count(con, load_sql("doctor_credited"), hours=hours)
    found = f"{credited:,} of {held:,} came within {hours:g} hours after a click on an ad of the advertiser"
    if credited < LEAST_CREDITED * held:
        mend = "Compare user_id and advertiser_id of conversions with those of events and campaigns."
        return odd("conversions", found, mend)
    return fit("conversions", found)
