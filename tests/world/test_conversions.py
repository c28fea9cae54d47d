"""Conversions: after their click, with the advertiser's own delay, and known only when reported."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from world.conftest import Made, read_lines

from adstool.world import catalogue, population
from adstool.world.catalogue import median_delay
from adstool.world.config import WorldConfig
from adstool.world.conversions import OffSite


def test_none_comes_before_its_click_or_view(committed: Made) -> None:
    at = {
        (e["request_id"], e["item_id"], e["action"]): datetime.fromisoformat(e["ts"])
        for e in committed.events
        if e["action"] in ("impression", "click")
    }
    causes = Counter()
    for row in committed.conversions():
        causes[row["cause"]] += 1
        assert row["reported_at"] > row["ts"]
        if row["cause"] == "organic":
            assert row["request_id"] is None
            assert row["delay_seconds"] is None
            continue
        anchor = at[row["request_id"], row["item_id"], "click" if row["cause"] == "click" else "impression"]
        assert row["ts"] - anchor == timedelta(seconds=row["delay_seconds"])
        assert row["delay_seconds"] >= 1
        clicked = (row["request_id"], row["item_id"], "click") in at
        assert clicked == (row["cause"] == "click")
    assert min(causes["click"], causes["view"], causes["organic"]) > 100


def test_the_log_holds_what_was_reported_in_time_and_not_lost(committed: Made) -> None:
    end = datetime(2026, 11, 16, tzinfo=UTC)
    truth = committed.conversions()
    logged = {row["conversion_id"]: row for row in read_lines(committed.folder / "conversions.jsonl.gz")}
    known = {row["conversion_id"] for row in truth if row["reported_at"] < end and not row["lost"]}
    assert set(logged) == known == {row["conversion_id"] for row in truth if row["in_log"]}
    for row in truth:
        if row["in_log"]:
            told = logged[row["conversion_id"]]
            assert (told["user_id"], told["kind"], told.get("value")) == (
                row["user_id"],
                row["kind"],
                row["value"],
            )
            assert told["channel"] == ("offline" if row["offline"] else "online")
    assert any(row["lost"] for row in truth)
    online = [row for row in truth if not row["offline"]]
    late = [row for row in online if row["reported_at"] - row["ts"] > timedelta(hours=2)]
    assert 0.02 < len(late) / len(online) < 0.12
    assert sum(row["lost"] for row in online) / len(online) == pytest.approx(0.05, abs=0.025)


def test_some_advertisers_are_offline_only_and_values_have_a_heavy_tail(committed: Made) -> None:
    share = defaultdict(list)
    for row in committed.conversions():
        if row["cause"] == "click":
            share[row["advertiser_id"]].append(row["offline"])
    only = [name for name, rows in share.items() if all(rows) and len(rows) >= 5]
    assert only
    table = pq.read_table(committed.folder / "truth/advertisers.parquet").to_pylist()
    assert {row["advertiser_id"] for row in table if row["offline_share"] == 1} >= set(only)
    values = np.array([row["value"] for row in committed.conversions() if row["kind"] == "checkout"])
    assert np.quantile(values, 0.995) > 8 * np.median(values)
    assert {row["kind"] for row in committed.conversions()} == {"checkout", "add_to_cart", "signup", "lead"}


def test_delays_have_the_median_that_truth_says() -> None:
    """20,000 draws an advertiser against the median of the mixture, which bisection finds."""
    config = WorldConfig(users=20, ads=120, pins=20, days=2)
    market = catalogue.build(config, catalogue.synthetic_items(config), config.ads)
    off_site = OffSite(config, market, population.build(config, market))
    medians = median_delay(market.advertisers)
    rng = np.random.default_rng(5)
    for advertiser, median in enumerate(medians):
        drawn = off_site._delays(rng, np.full(20_000, advertiser))
        below = float((drawn <= median).mean())
        assert below == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(20_000) + 0.002)
    assert medians.max() / medians.min() > 20


def test_delays_in_the_world_are_those_of_its_advertisers(committed: Made) -> None:
    table = pq.read_table(committed.folder / "truth/advertisers.parquet").to_pylist()
    median = {row["advertiser_id"]: row["median_delay_seconds"] for row in table}
    # An add_to_cart on the way to a checkout comes earlier than the drawn delay: leave shops' carts out.
    sides = [
        row["delay_seconds"] <= median[row["advertiser_id"]]
        for row in committed.conversions()
        if row["cause"] != "organic" and row["kind"] != "add_to_cart"
    ]
    assert len(sides) > 500
    assert np.mean(sides) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(sides)))


def test_conversions_happen_at_their_true_rate(committed: Made) -> None:
    clicked = {(e["request_id"], e["item_id"]) for e in committed.events if e["action"] == "click"}
    chances = np.array([
        row["p_convert"] if (row["request_id"], row["item_id"]) in clicked else row["p_view_convert"]
        for row in committed.truth
        if row["item_type"] == "ad"
    ])  # fmt: skip
    happened = len({
        (row["request_id"], row["item_id"]) for row in committed.conversions() if row["cause"] != "organic"
    })  # fmt: skip
    assert abs(happened - chances.sum()) < 4 * math.sqrt(float((chances * (1 - chances)).sum()))
