"""Counters and the numbers made of them, against plain loops over the log."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest
from features.conftest import SMALL, Built
from features.logs import at, catalogue, clear, insert, random_conversions, random_events, vectors, warehouse
from features.oracle import Oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adstool.features.counters import DAY, count_examples, safe_half_lives
from adstool.features.dataset import build_dataset
from adstool.features.finish import CLIP
from adstool.features.items import build_items
from adstool.features.log import coded_log
from adstool.features.spec import Counter, default_spec
from adstool.features.state import microseconds
from adstool.warehouse import load_sql
from adstool.workspace import Workspace


def expected_columns(oracle: Oracle, counter: Counter, example: dict, until: datetime) -> dict[str, float]:
    """The counter's numerics by their definition: ln(1 + sum), log ratio to the prior, ln(1 + hours)."""
    values = {}
    for half_life in SMALL.features.half_life_days:
        total = oracle.sums(example, counter.keys, half_life)
        for signal in counter.counts:
            values[f"{counter.name}_{signal}_count_{half_life:g}d"] = math.log1p(total(signal))
        for prefixed in counter.rates:
            signal = prefixed.removeprefix("action:")
            prior = oracle.prior(counter.keys, signal, until)
            rate = (total(signal) + counter.strength * prior) / (total("impression") + counter.strength)
            values[f"{counter.name}_{signal}_rate_{half_life:g}d"] = math.log(rate / prior)
    for signal in counter.since:
        hours = oracle.hours_since(example, counter.keys, signal)
        values[f"{counter.name}_hours_since_{signal}"] = math.log1p(hours)
    return values


@pytest.mark.parametrize("name", [counter.name for counter in default_spec(SMALL).counters])
def test_every_column_of_every_counter_is_what_its_definition_says(built: Built, name: str) -> None:
    dataset, oracle = built.dataset, built.oracle
    counter = dataset.encoder.spec.counter(name)
    assert counter is not None
    examples = oracle.examples()
    assert len(examples) == len(dataset)
    until = examples[dataset.splits["train"].stop - 1]["ts"]
    wanted = [expected_columns(oracle, counter, example, until) for example in examples]
    places = {column.name: place for place, column in enumerate(dataset.encoder.numeric_columns)}
    for column in wanted[0]:
        raw = np.asarray([row[column] for row in wanted])
        train = raw[dataset.splits["train"]]
        place = places[column]
        if np.isfinite(train).any():
            assert dataset.encoder.mean[place] == pytest.approx(np.nanmean(train), abs=1e-5)
        scaled = (raw - dataset.encoder.mean[place]) / dataset.encoder.std[place]
        shown = np.nan_to_num(np.clip(scaled, -CLIP, CLIP))
        np.testing.assert_allclose(dataset.numeric[:, place], shown, atol=2e-4, err_msg=column)
        assert np.abs(raw[np.isfinite(raw)]).max(initial=0.0) > 0 or "conversion" in column, column


def test_shares_and_prices_are_what_their_definitions_say(built: Built) -> None:
    dataset, oracle = built.dataset, built.oracle
    places = {column.name: place for place, column in enumerate(dataset.encoder.numeric_columns)}
    longest = max(SMALL.features.half_life_days)
    for number, example in enumerate(oracle.examples()):
        user = oracle.sums(example, ("user",), longest)
        share = oracle.sums(example, ("user", "category"), longest)("engaged") / (user("engaged") + 1)
        mean = user("log_price") / user("priced") if user("priced") else math.nan
        price = math.nan if example["price"] is None else math.log1p(example["price"])
        for name, value in (
            (f"user_category_share_{longest:g}d", share),
            ("user_mean_log_price", mean),
            ("price_against_user", price - mean),
            ("item_price", price),
        ):
            place = places[name]
            scaled = (value - dataset.encoder.mean[place]) / dataset.encoder.std[place]
            wanted = 0.0 if math.isnan(scaled) else min(max(scaled, -CLIP), CLIP)
            assert dataset.numeric[number, place] == pytest.approx(wanted, abs=3e-4), (number, name)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), count=st.integers(30, 90))
def test_sums_of_any_log_agree_with_brute_force(
    scratch: tuple[Workspace, duckdb.DuckDBPyConnection], seed: int, count: int
) -> None:
    con = scratch[1]
    clear(con)
    rng = np.random.default_rng(seed)
    catalogue(con, seed)
    insert(con, "events", random_events(rng, count))
    insert(con, "conversions", random_conversions(rng, 15))
    items, oracle = build_items(con, {}), Oracle.read(con, SMALL, "ad")
    spec = default_spec(SMALL)
    with coded_log(con, spec, items) as log:
        con.execute(f"create or replace temp table feature_examples as {load_sql('features_examples')}")
        examples = oracle.examples()
        for counter in spec.counters:
            sums = np.zeros((len(examples), len(spec.half_lives) * len(counter.signals)), np.float32)
            since = np.full((len(examples), len(counter.since)), np.nan, np.float32)
            count_examples(log, counter, log.last_ts, sums, since)
            signals = [signal.removeprefix("action:") for signal in counter.signals]
            wanted = [
                [oracle.sums(e, counter.keys, h)(s) for h in spec.half_lives for s in signals]
                for e in examples
            ]
            np.testing.assert_allclose(sums, np.reshape(wanted, sums.shape), rtol=1e-5, atol=1e-9)
            hours = [[oracle.hours_since(e, counter.keys, s) for s in counter.since] for e in examples]
            np.testing.assert_allclose(since, np.reshape(hours, since.shape), rtol=1e-5)


def test_the_reference_time_does_not_change_a_sum(built: Built) -> None:
    spec = built.dataset.encoder.spec
    counter = spec.counters[0]
    shape = (len(built.dataset), len(spec.half_lives) * len(counter.signals))
    found = []
    with coded_log(built.con, spec, built.items) as log:
        built.con.execute(f"create or replace temp table feature_examples as {load_sql('features_examples')}")
        for reference in (log.first_ts, log.last_ts, log.last_ts + 700 * DAY):
            sums = np.zeros(shape, np.float32)
            count_examples(
                log, counter, reference, sums, np.zeros((shape[0], len(counter.since)), np.float32)
            )
            found.append(sums)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-6)


def test_a_log_of_decades_raises_short_half_lives_and_stays_finite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warehouse(tmp_path / "shop", SMALL) as (ws, con):
        catalogue(con)
        events = random_events(np.random.default_rng(0), 200)
        for number, event in enumerate(events):
            event["ts"] = at(60 * 24 * 365 * 40 * number / len(events))
        insert(con, "events", events)
        dataset = build_dataset(con, ws, SMALL, build_items(con, vectors(con)))
        assert np.isfinite(np.asarray(dataset.numeric)).all()
        assert dataset.encoder.spec.half_lives[0] > 1.0
        assert dataset.encoder.spec.half_lives[1] == 14.0
        assert "half lives" in caplog.text
        oracle = Oracle.read(con, SMALL, "ad")
        last = oracle.examples()[-1]
        hours = oracle.hours_since(last, ("user",), "impression")
        place = [c.name for c in dataset.encoder.numeric_columns].index("user_hours_since_impression")
        scaled = (math.log1p(hours) - dataset.encoder.mean[place]) / dataset.encoder.std[place]
        assert dataset.numeric[-1, place] == pytest.approx(scaled, abs=1e-4)


def test_half_lives_stay_as_they_are_for_a_log_of_a_year() -> None:
    spec = default_spec(SMALL)
    start = microseconds(datetime(2025, 1, 1, tzinfo=UTC))
    assert safe_half_lives(spec, start, start + 365 * DAY) is spec
