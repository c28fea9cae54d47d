"""The rebuilt world: the rates of logged impressions to the last bit where users carry nothing over."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np

from adstool.world.oracle import Asked, Oracle, read_query

WORLD = Path(__file__).resolve().parents[2] / "sample_data" / "world"

LOGGED = """
with asked as (
    select
        request_id, epoch_us(any_value(ts)) as ts, any_value(surface) as surface, any_value("query") as query
    from read_json($events) where action = 'impression' group by 1
)
select i.user_id, i.item_id, p_click, p_hide, p_convert, ts, surface, query
from read_parquet($truth) i join asked using (request_id)
where item_type = 'ad' and position = 0 and signal_recent = 0 and signal_fatigue = 0
"""


def test_the_oracle_says_what_the_world_drew_from() -> None:
    oracle = Oracle.find(WORLD / "truth")
    assert oracle is not None
    files = {"events": f"{WORLD}/events-2026-11-0*.jsonl.gz", "truth": f"{WORLD}/truth/impressions.parquet"}
    rows = duckdb.connect().execute(LOGGED, files).fetchall()
    users, items, click, hide, convert, ts, surfaces, queries = zip(*rows, strict=True)
    assert len(rows) > 300
    assert sum(query is not None for query in queries) > 50
    nothing = np.zeros((len(rows), len(oracle.categories)))
    asked = Asked(users, np.array(ts), surfaces, queries, nothing, nothing)
    chances, conversions, money = oracle.rates(asked, [[item] for item in items])
    np.testing.assert_allclose(chances[:, 0, 0], click, rtol=1e-14)  # the last bit depends on the CPU
    np.testing.assert_allclose(chances[:, 0, 4], hide, rtol=1e-14)
    # A conversion is reported once, less where some are lost, more where carts are seen too.
    reports = conversions[:, 0] / np.array(convert)
    assert (reports > 0.9).all()
    assert (reports < 1.5).all()
    assert money.min() >= 0


def test_queries_are_read_as_they_were_written() -> None:
    oracle = Oracle.find(WORLD / "truth")
    assert oracle is not None
    words = oracle.market.words
    mirrors, glass = words.categories.index("mirrors"), words.attributes.index("glass")
    assert read_query(words, "looking glass") == (mirrors, -1)
    assert read_query(words, "best glass looking glass") == (mirrors, glass)
    assert read_query(words, None) == (-1, -1)
