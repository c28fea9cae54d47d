"""What users want, inferred from what they did on the site, searched for and bought elsewhere.

Two steps in SQL for all users at once: sums of decayed evidence by user, value and action
(sql/interests_sums.sql), and weights from them, drawn towards what users of the same profile want
(sql/interests_priors.sql, sql/interests_weights.sql). `refresh` keeps the result in the warehouse and adds up
only the users whose log changed; `snapshot` gives the interests as they were at a moment, keeping nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adstool.config import Settings
from adstool.content.interest_kinds import KINDS, Catalogue, semantic_prefixes
from adstool.content.interest_steps import (
    DAY,
    FOREVER,
    add_sums,
    scoring,
    temporary_tables,
    write_members,
    write_people,
    write_priors,
)
from adstool.content.taxonomy import load_taxonomy
from adstool.documents import user_path
from adstool.progress import log
from adstool.warehouse import load_sql, transaction
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

PART_ROWS = 500_000  # of evidence weighed at once: some 200 MB
TABLES = ("users", "pins", "advertisers", "campaigns", "ads", "events", "conversions")


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did. reason: why sums were added up; empty when there was nothing to do."""

    users: int  # with interests
    recomputed: int  # users whose evidence was added up
    reason: str
    interests: int
    offsite: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `interests --refresh --json` shows it."""
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """Interests of all users at one moment, as Arrow tables.

    interests: the columns of the table `interests` without evidence. priors: profile, kind, level, value,
    share, popular. people: user_id, profile.
    """

    interests: pa.Table
    priors: pa.Table
    people: pa.Table


@contextmanager
def snapshot(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    until: int = FOREVER,
    *,
    kinds: Sequence[str] = ("category",),
    catalogue: Catalogue | None = None,
) -> Iterator[Snapshot]:
    """Interests from what was known strictly before `until` (microseconds UTC). Works on a read-only
    warehouse, whose connection it needs for the length of the block."""
    with temporary_tables(con):
        read = catalogue or Catalogue(con, load_taxonomy(settings.interests.taxonomy, con))
        now = _last_moment(con) if until >= FOREVER else until
        write_people(con, until, settings)
        con.execute(
            "create or replace temp table interest_changed as select distinct user_id from interest_people"
        )
        write_members(con, read, kinds, until)
        add_sums(con, settings, "create or replace temp table interest_sums_now as", until, now)
        con.execute("create or replace temp view interest_evidence as select * from interest_sums_now")
        write_priors(con, settings, 1.0)
        # A column that is not asked for is not made.
        weights = f"select * exclude (evidence) from ({load_sql('interests_weights')})"
        yield Snapshot(
            con.sql(weights, params=scoring(settings, 1.0)).to_arrow_table(),
            con.sql("select * from interest_priors_now").to_arrow_table(),
            con.sql("select user_id, profile from interest_people order by user_id").to_arrow_table(),
        )


def refresh(
    con: duckdb.DuckDBPyConnection, settings: Settings, catalogue: Catalogue, *, full: bool = False
) -> Refreshed:
    """Bring the stored interests up to the log as it is; the caller holds the workspace's lock.

    Evidence of users whose log is as before stays; all of it is added up again with `full`, or when the
    catalogue, the taxonomy or what shapes the sums changed. Done in one transaction.
    """
    started = time.perf_counter()
    definition = _definition(con, settings, catalogue)
    if full or stale(con, settings) or _built(con)[0] != definition:
        reason, recomputed = _rebuild(con, settings, catalogue, definition, full)
    else:
        reason, recomputed = "", 0
    ((users, rows),) = con.execute("select count(distinct user_id), count(*) from interests").fetchall()
    why = reason or (f"the log of {recomputed:,} users changed" if recomputed else "")
    log.info("interests: %s", why or "up to date")
    offsite = settings.interests.offsite
    return Refreshed(users, recomputed, why, rows, offsite, round(time.perf_counter() - started, 2))


def _rebuild(
    con: duckdb.DuckDBPyConnection, settings: Settings, catalogue: Catalogue, definition: str, full: bool
) -> tuple[str, int]:
    with temporary_tables(con), transaction(con):
        reason, reference = _prepare(con, definition, full)
        recomputed = _add_up(con, settings, catalogue, reference)
        _weigh(con, settings, reference)
        _note(con, settings, definition, reference)
    return reason, recomputed


def load_catalogue(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> Catalogue:
    """The catalogue as all kinds of interests read it: the topics of the settings, and intents by CLIP.

    Logged queries that are new are read and their intents stored, so `con` must be writable.
    """
    from adstool.content.intents import read_intents  # it brings LanceDB, which reading does without

    topics = load_taxonomy(settings.interests.taxonomy, con)
    intents = read_intents(ws, settings, con, topics)
    semantic = _semantic_members(ws)
    if intents is None:
        return Catalogue(con, topics, semantic=semantic)
    return Catalogue(con, topics, intents.item_intents, intents.query_intents, semantic)


def _semantic_members(ws: Workspace) -> pa.Table | None:
    """What the codebooks in use make of the items; None without codebooks."""
    from adstool.content.codebooks import load_semantic_ids
    from adstool.content.vectors import ITEM_TYPES, load_vectors

    ids = load_semantic_ids(ws)
    if ids is None:
        return None
    parts = []
    for item_type in ITEM_TYPES:
        items, vectors = load_vectors(ws, item_type)
        if items:
            parts.append(semantic_prefixes(item_type, items, ids.codebooks.encode(vectors)))
    return pa.concat_tables(parts) if parts else None


def stale(con: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """Why the stored interests are not those of the data and settings as they are; empty when they are."""
    build = con.execute("select data, settings from interest_build").fetchall()
    if not build:
        return "never made"
    data, made_with = build[0]
    if made_with != _settings_hash(settings):
        return "the settings changed"
    return "" if data == _data(con) else "the data changed"


def changed_users(con: duckdb.DuckDBPyConnection, settings: Settings) -> int:
    """How many users' logs are not those that their interests were added up from."""
    query = f"select count(*) from ({load_sql('interests_changed')})"
    return int(con.execute(query, {"offsite": settings.interests.offsite}).fetchall()[0][0])


def category_intents(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[tuple[str, str, float]]:
    """What CLIP read in logged queries, by category: (query, category, share).

    A topic's share goes to its categories in equal parts; a topic of words alone has none.
    """
    topics = {topic.path: topic.categories for topic in load_taxonomy(settings.interests.taxonomy, con)}
    rows = con.execute("select query, topic, score from query_intents order by all").fetchall()
    return [
        (query, category, score / len(topics[topic]))
        for query, topic, score in rows
        for category in topics.get(topic, ())
    ]


def _prepare(con: duckdb.DuckDBPyConnection, definition: str, full: bool) -> tuple[str, int]:
    """Empty the sums where they cannot stay; returns why and the moment that amounts refer to."""
    before, reference = _built(con)
    if not full and before == definition:
        return "", reference
    reason = "asked for" if full else "the catalogue, the taxonomy or the settings changed"
    reason = reason if before else "never made"
    con.execute("delete from interest_sums")
    con.execute("delete from interest_users")
    return reason, _last_moment(con)


def _built(con: duckdb.DuckDBPyConnection) -> tuple[str, int]:
    """Definition and reference of the stored sums; ("", 0) where there are none."""
    build = con.execute("select definition, reference from interest_build").fetchall()
    return (str(build[0][0]), int(build[0][1])) if build else ("", 0)


def _add_up(con: duckdb.DuckDBPyConnection, settings: Settings, catalogue: Catalogue, reference: int) -> int:
    """Sums of the users whose log is not the one they were made of; returns how many."""
    con.execute(
        f"create or replace temp table interest_changed as {load_sql('interests_changed')}",
        {"offsite": settings.interests.offsite},
    )
    ((changed,),) = con.execute("select count(*) from interest_changed").fetchall()
    if not changed:
        return 0
    write_members(con, catalogue, tuple(KINDS), FOREVER)
    for table in ("interest_sums", "interest_users"):
        con.execute(f"delete from {table} where user_id in (select user_id from interest_changed)")
    add_sums(con, settings, "insert into interest_sums", FOREVER, reference)
    con.execute("insert into interest_users select * from interest_changed where content is not null")
    return int(changed)


def _weigh(con: duckdb.DuckDBPyConnection, settings: Settings, reference: int) -> None:
    """Profiles, priors and interests of everybody, from the sums."""
    elapsed = (_last_moment(con) - reference) / (settings.interests.half_life_days * DAY)
    scale = 2.0**-elapsed
    write_people(con, FOREVER, settings)
    con.execute("create or replace temp view interest_evidence as select * from interest_sums")
    write_priors(con, settings, scale)
    for table, source in (
        ("interest_priors", "select * from interest_priors_now"),
        ("interest_profiles", "select user_id, profile from interest_people order by user_id"),
    ):
        con.execute(f"delete from {table}")
        con.execute(f"insert into {table} {source}")
    con.execute("delete from interests")
    ((rows,),) = con.execute("select count(*) from interest_evidence").fetchall()
    parts = 1 + rows // PART_ROWS
    for part in range(parts):
        one = scoring(settings, scale, part, parts)
        con.execute(f"insert into interests {load_sql('interests_weights')}", one)


def _note(con: duckdb.DuckDBPyConnection, settings: Settings, definition: str, reference: int) -> None:
    con.execute("delete from interest_build")
    con.execute(
        "insert into interest_build values ($definition, $settings, $data, $reference, "
        "make_timestamp($as_of), $offsite, $made_at)",
        {
            "definition": definition,
            "settings": _settings_hash(settings),
            "data": _data(con),
            "reference": reference,
            "as_of": _last_moment(con),
            "offsite": settings.interests.offsite,
            "made_at": datetime.now(UTC).replace(tzinfo=None),
        },
    )


def _last_moment(con: duckdb.DuckDBPyConnection) -> int:
    """Just after the last event, microseconds UTC; 0 without any."""
    return int(con.execute("select coalesce(max(epoch_us(ts)) + 1, 0) from events").fetchall()[0][0])


def _data(con: duckdb.DuckDBPyConnection) -> str:
    return str(con.execute(load_sql("pipeline_inputs"), {"tables": list(TABLES)}).fetchall()[0][0])


def _settings_hash(settings: Settings) -> str:
    taxonomy = user_path(settings.interests.taxonomy)
    content = taxonomy.read_bytes() if settings.interests.taxonomy and taxonomy.is_file() else b""
    return settings.fingerprint("interests", "actions") + hashlib.sha256(content).hexdigest()[:16]


def _content(table: pa.Table | None) -> str:
    return "" if table is None else hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()


def _definition(con: duckdb.DuckDBPyConnection, settings: Settings, catalogue: Catalogue) -> str:
    """A hash of all that the sums depend on but the users' own log."""
    chosen = settings.interests
    parts = [
        [str(value) for value in con.execute(load_sql("interests_catalogue_hash")).fetchall()[0]],
        [(topic.path, topic.words, topic.categories) for topic in catalogue.topics],
        [chosen.offsite, chosen.half_life_days, sorted(action.name for action in settings.actions)],
        sorted(KINDS),
        [_content(table) for table in (catalogue.item_intents, catalogue.semantic)],
        sorted((query, sorted(topics.items())) for query, topics in catalogue.query_intents.items()),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
