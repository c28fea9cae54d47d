"""Small random logs in a warehouse, for the tests of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from adstool.config import Settings
from adstool.content.codebooks import Codebooks, SemanticIds
from adstool.content.kmeans import residual_kmeans
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = 60_000_000
WORDS = ["Red", "dress", "linen", "shoe", "blue", "Überwurf", "lamp", "oak"]
TABLES = ("users", "pins", "advertisers", "campaigns", "ads", "events", "conversions")
Event = dict[str, Any]


def at(minutes: float) -> datetime:
    """A moment, minutes after the start of the log, without a zone (UTC), as the warehouse keeps it."""
    return (START + timedelta(minutes=minutes)).replace(tzinfo=None)


@contextmanager
def warehouse(root: Path, settings: Settings) -> Iterator[tuple[Workspace, duckdb.DuckDBPyConnection]]:
    """A new workspace at `root` and its open warehouse."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "adstool.toml").touch()
    ws = Workspace(root)
    with open_warehouse(ws, settings) as con:
        yield ws, con


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Rows into a warehouse table by column name."""
    if not rows:
        return
    con.register("new_rows", pa.Table.from_pylist(list(rows)))
    con.execute(f"insert into {table} by name select * from new_rows")
    con.unregister("new_rows")


def clear(con: duckdb.DuckDBPyConnection) -> None:
    """Empty every outside table."""
    for table in TABLES:
        con.execute(f"delete from {table}")


def catalogue(con: duckdb.DuckDBPyConnection, seed: int = 0, ads: int = 12, pins: int = 6) -> None:
    """Users u0 .. u4, ads a0 .. of 3 advertisers, pins p0 .., 4 categories; some values are missing."""
    rng = np.random.default_rng(seed)
    pick = rng.choice
    insert(
        con,
        "users",
        [
            {
                "user_id": f"u{n}",
                "signup_at": at(-60 * 24 * 30 * n) if n else None,
                "country": ["DE", "FR", None][n % 3],
                "language": "de",
                "age_bucket": "25-34",
                "gender": None,
            }
            for n in range(5)
        ],
    )
    insert(con, "advertisers", [{"advertiser_id": f"v{n}", "vertical": f"t{n % 2}"} for n in range(3)])
    insert(
        con,
        "campaigns",
        [{"campaign_id": f"c{n}", "advertiser_id": f"v{n % 3}", "starts_at": at(-900)} for n in range(5)],
    )
    insert(
        con,
        "ads",
        [
            {
                "ad_id": f"a{n}",
                "campaign_id": f"c{n % 6}",  # c5 is unknown
                "title": " ".join(pick(WORDS, 3)),
                "description": " ".join(pick(WORDS, 2)),
                "category": [None, "k0", "k1", "k2", "k3"][int(rng.integers(5))],
                "price": None if n % 4 == 3 else round(float(rng.uniform(0, 90)), 2),
                "format": "standard",
                "created_at": at(float(rng.uniform(-900, 200))),
            }
            for n in range(ads)
        ],
    )
    insert(
        con,
        "pins",
        [
            {
                "pin_id": f"p{n}",
                "title": " ".join(pick(WORDS, 2)),
                "category": f"k{n % 4}",
                "created_at": at(-2000),
            }
            for n in range(pins)
        ],
    )


def random_events(rng: np.random.Generator, count: int, ads: int = 12, pins: int = 6) -> list[Event]:
    """Impressions and actions with ties in time, missing requests, orphans and unknown users."""
    actions = ["impression"] * 6 + ["click", "click", "save", "hide", "closeup"]
    events = []
    for number in range(count):
        kind = "ad" if rng.random() < 0.7 else "pin"
        size = ads if kind == "ad" else pins
        item = int(rng.integers(size + 1))  # one beyond the catalogue: an orphan
        surface = [None, "home", "search", "related"][int(rng.integers(4))]
        events.append(
            {
                "event_id": f"e{number}",
                "ts": at(float(rng.integers(0, 60 * 24 * 4)) if rng.random() < 0.8 else 60.0 * number),
                "user_id": f"u{int(rng.integers(7))}",  # u5, u6 are in no catalogue
                "item_type": kind,
                "item_id": f"{kind[0]}{item}",
                "action": actions[int(rng.integers(len(actions)))],
                "request_id": None if rng.random() < 0.4 else f"r{int(rng.integers(12))}",
                "surface": surface,
                "position": int(rng.integers(5)) if rng.random() < 0.7 else None,
                "value": float(rng.uniform(0, 9)) if rng.random() < 0.5 else None,
                "propensity": float(rng.uniform(0.1, 1)) if rng.random() < 0.5 else None,
                "query": " ".join(rng.choice(WORDS, 2)).upper() if surface == "search" else None,
            }
        )
    return events


def random_conversions(rng: np.random.Generator, count: int) -> list[Event]:
    """Off-site conversions, some reported late."""
    rows = []
    for number in range(count):
        minute = float(rng.integers(0, 60 * 24 * 4))
        rows.append(
            {
                "conversion_id": f"x{number}",
                "ts": at(minute),
                "reported_at": at(minute + float(rng.integers(0, 2000))) if rng.random() < 0.7 else None,
                "user_id": f"u{int(rng.integers(6))}",
                "advertiser_id": f"v{int(rng.integers(4))}",
                "kind": "checkout",
            }
        )
    return rows


def semantic_ids(con: duckdb.DuckDBPyConnection) -> SemanticIds:
    """Codebooks of two levels of three codes over `vectors`, as run r1."""
    points = np.concatenate([array for _, array in vectors(con).values()])
    return SemanticIds("r1", Codebooks(tuple(residual_kmeans(points, [3] * 2, 0))))


def vectors(con: duckdb.DuckDBPyConnection, width: int = 8) -> dict[str, tuple[list[str], np.ndarray]]:
    """A unit vector for every item but the last of each type."""
    found = {}
    for kind, table in (("ad", "ads"), ("pin", "pins")):
        ids = [row[0] for row in con.execute(f"select {kind}_id from {table} order by 1").fetchall()][:-1]
        array = np.random.default_rng(len(ids)).normal(size=(len(ids), width)).astype(np.float32)
        found[kind] = (ids, array / np.linalg.norm(array, axis=1, keepdims=True))
    return found
