"""Interests in the report: the measured orders, and what a few users want with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from adstool.config import Settings
from adstool.evaluation.sections_interests import interests_section
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

NASTY = "<b>vases</b>"
JUDGED = {
    "users": 12,
    "ndcg@10": {"interests": 0.8251, "most_popular": 0.6315},
    "intervals": {"interests": [0.81, 0.83], "most_popular": None},
}
STAGE: dict[str, Any] = {
    "as_of": "2026-11-13T00:00:00Z",
    "categories": 16,
    "offsite": False,
    "later": JUDGED,
    "truth_newcomers": {"users": 0},
}


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse with one active user."""
    with open_warehouse(Workspace(tmp_path), Settings()) as con:
        for number in range(3):
            con.execute(
                "insert into events (event_id, ts, user_id, item_type, item_id, action)"
                " values (?, ?, 'u1', 'pin', 'p', 'click')",
                [f"e{number}", datetime(2026, 11, 12)],
            )
        yield con


def stored(con: duckdb.DuckDBPyConnection) -> None:
    """What `interests --refresh` would leave of this user."""
    con.execute("insert into interest_build (as_of, offsite) values (timestamp '2026-11-13', false)")
    con.execute("insert into interest_profiles values ('u1', 1)")
    con.execute("insert into interest_priors values (1, 'category', 0, 'lamps', .5, .5)")
    con.execute(
        """insert into interests values ('u1', 'category', 0, ?, .6, 2.5, .4, timestamp '2026-11-12', [
            {source: 'on_site', action: 'click', count: 3, last_ts: timestamp '2026-11-12', contribution: .7},
            {source: 'on_site', action: 'hide', count: 1, last_ts: timestamp '2026-11-11', contribution: -.1}
        ])""",
        [NASTY],
    )


def test_measured_orders_are_shown_where_somebody_could_be_judged(con: duckdb.DuckDBPyConnection) -> None:
    assert interests_section(Settings(), con, None) == ""
    html = interests_section(Settings(), con, STAGE)
    assert "0.825" in html
    assert "most popular" in html
    assert "12 users who engaged after the cut" in html
    assert "Newcomers" not in html
    assert "Off-site data are switched off." in html
    assert 'class="user"' not in html  # nothing is stored of anybody


def test_users_are_shown_with_reasons_for_and_against(con: duckdb.DuckDBPyConnection) -> None:
    stored(con)
    html = interests_section(Settings(), con, None)
    own, expected = html.split("<tr>")[2:]
    assert "&lt;b&gt;vases" in own
    assert "60.0%" in own
    assert "2.5 ×" in own
    assert "3 × click (on site, last 2026-11-12)" in own
    assert "1 × hide (on site, last 2026-11-11) against it" in own
    assert "30.0%" in expected  # (1 - .4) · .5
    assert "habits of people alike" in expected
    assert NASTY not in html
    con.execute("delete from interest_profiles")  # a user who came after the refresh
    assert interests_section(Settings(), con, None) == ""
