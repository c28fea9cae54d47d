"""Conversions credited to clicks and views: hand-worked logs, and a brute force over random ones."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import duckdb
import numpy as np
import pytest
from features.conftest import Built
from features.logs import MINUTE, START, at, catalogue, clear, insert, random_events
from features.oracle import Oracle, Record
from features.test_labels import event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adstool.config import ConversionSettings, FeatureSettings, Settings
from adstool.errors import DataError, UsageError
from adstool.features.conversions import HOUR, NEVER, ConversionLabels, build_conversions
from adstool.features.dataset import Dataset, build_dataset
from adstool.features.items import build_items
from adstool.features.state import microseconds
from adstool.workspace import Workspace

Scratch = tuple[Workspace, duckdb.DuckDBPyConnection]
DAY = 24 * 60.0  # minutes
PLAIN = Settings(features=FeatureSettings(valid_fraction=0.0, test_fraction=0.5, min_count=1))
Cell = tuple[int, str]  # example and kind


def conversion(number: int, minutes: float, **more: Any) -> Record:
    """A checkout of user u1 at v1, the advertiser of ads a1 and a4; reported when it happened."""
    return {
        "conversion_id": f"x{number}",
        "ts": at(minutes),
        "reported_at": None,
        "user_id": "u1",
        "advertiser_id": "v1",
        "kind": "checkout",
        "value": None,
        "channel": "online",
        **more,
    }


def build(
    scratch: Scratch, events: list[Record], conversions: list[Record], **changes: Any
) -> tuple[Dataset, ConversionLabels]:
    """The labels of a log."""
    ws, con = scratch
    clear(con)
    catalogue(con, ads=6)
    insert(con, "events", events)
    insert(con, "conversions", conversions)
    chosen = dataclasses.replace(PLAIN, conversion=ConversionSettings(**changes))
    dataset = build_dataset(con, ws, chosen, build_items(con, {}))
    return dataset, build_conversions(con, ws, chosen, dataset)


def credits_of(labels: ConversionLabels, until: int = NEVER) -> list[float]:
    """The credit of every example, of kind checkout alone."""
    assert labels.kinds == ("checkout",)
    return [round(float(one), 6) for one in labels.as_of(until).credit[:, 0]]


# Three impressions of one advertiser an hour apart; clicked a minute after each.
THREE = [
    event(0, 0, "impression"),
    event(1, 60, "impression", item_id="a4"),
    event(2, 120, "impression"),
]
CLICKS = [event(10, 1, "click"), event(11, 61, "click", item_id="a4"), event(12, 121, "click")]
OTHER = event(20, 300, "impression", item_id="a0")  # another advertiser's, so that there is a test split


@pytest.mark.parametrize(
    ("attribution", "wanted"),
    [
        ("last_touch", [0, 0, 1, 0]),
        ("linear", [1 / 3, 1 / 3, 1 / 3, 0]),
        ("position", [0.4, 0.2, 0.4, 0]),
    ],
)
def test_credit_of_clicks(scratch: Scratch, attribution: str, wanted: list[float]) -> None:
    events = [*THREE, *CLICKS, OTHER]
    _, labels = build(scratch, events, [conversion(0, 200, value=30.0)], attribution=attribution)
    assert credits_of(labels) == pytest.approx(wanted, abs=1e-6)
    assert labels.as_of(NEVER).value[:, 0].tolist() == pytest.approx([30 * w for w in wanted])
    assert (labels.counted, labels.attributed) == (1, 1)


@pytest.mark.parametrize(("attribution", "wanted"), [("position", [0.5, 0.5]), ("last_touch", [0, 1])])
def test_of_two_clicks(scratch: Scratch, attribution: str, wanted: list[float]) -> None:
    _, labels = build(
        scratch, [*THREE[:2], *CLICKS[:2], OTHER], [conversion(0, 200)], attribution=attribution
    )
    assert credits_of(labels)[:2] == wanted


def test_views_have_credit_only_without_a_click_and_within_their_window(scratch: Scratch) -> None:
    one = [conversion(0, 200)]
    assert credits_of(build(scratch, [*THREE, OTHER], one)[1]) == [0, 0, 1, 0]
    assert credits_of(build(scratch, [*THREE, CLICKS[0], OTHER], one)[1]) == [1, 0, 0, 0]
    assert credits_of(build(scratch, [*THREE, OTHER], one, view_window_hours=1.0)[1]) == [0, 0, 0, 0]
    assert credits_of(build(scratch, [*THREE, OTHER], one, view_window_hours=0)[1]) == [0, 0, 0, 0]
    labels = build(scratch, [*THREE, OTHER], one)[1]
    assert labels.as_of(NEVER, clicks_only=True).credit.sum() == 0
    assert (labels.first_reports() == NEVER).all()


def test_nothing_is_credited_to_what_came_later_or_too_long_before(scratch: Scratch) -> None:
    log = [*THREE, *CLICKS, OTHER]
    assert credits_of(build(scratch, log, [conversion(0, 0.5)], view_window_hours=0)[1]) == [0, 0, 0, 0]
    late = [conversion(0, 121 + 7 * DAY), conversion(1, 122 + 7 * DAY)]
    assert credits_of(build(scratch, log, late)[1]) == [0, 0, 1, 0]  # to the minute


def test_a_conversion_is_known_when_it_is_reported(scratch: Scratch) -> None:
    start = microseconds(START.replace(tzinfo=None))
    late = conversion(0, 200, reported_at=at(200 + 2 * DAY), value=5.0)
    prompt = conversion(1, 300, reported_at=at(290), value=7.0)  # a slow clock: known when it happened
    _, labels = build(scratch, [*THREE, *CLICKS, OTHER], [late, prompt])
    for minutes, money in ((299.0, 0.0), (300.0, 7.0), (200 + 2 * DAY - 1, 7.0), (200 + 2 * DAY, 12.0)):
        known = labels.as_of(start + int(minutes * MINUTE))
        assert known.value[2, 0] == money, minutes
    click = start + 121 * MINUTE
    assert labels.click_ts.tolist() == [start + MINUTE, start + 61 * MINUTE, click, NEVER]
    assert labels.first_reports()[:, 0].tolist() == [NEVER, NEVER, start + 300 * MINUTE, NEVER]
    assert labels.as_of(start + 120 * MINUTE).elapsed.tolist() == [119 * MINUTE, 59 * MINUTE, -1, -1]
    assert labels.as_of(NEVER, within=179 * MINUTE).value[2, 0] == 7.0
    assert labels.as_of(NEVER, within=178 * MINUTE).value[2, 0] == 0.0
    assert labels.end_ts == start + int((200 + 2 * DAY) * MINUTE)


def test_matured_examples_are_those_of_which_all_is_known(scratch: Scratch) -> None:
    dataset, labels = build(scratch, [*THREE, *CLICKS, OTHER], [conversion(0, 200)])
    assert labels.horizon == 8 * 24 * HOUR
    end = microseconds(START.replace(tzinfo=None)) + labels.horizon + 61 * MINUTE
    assert labels.matured(slice(0, 4), dataset.ts, end).tolist() == [True, True, False, False]
    assert labels.matured(slice(1, 2), dataset.ts, end - 1).tolist() == [False]
    assert labels.matured(slice(0, 4), dataset.ts, end, HOUR).all()


def test_offline_conversions_count_unless_told_otherwise(scratch: Scratch) -> None:
    both = [conversion(0, 200, channel="offline"), conversion(1, 201, channel=None)]
    log = [*THREE, *CLICKS, OTHER]
    assert credits_of(build(scratch, log, both)[1])[2] == 2
    assert credits_of(build(scratch, log, both, offline=False)[1])[2] == 1


def test_money_without_a_value_and_beyond_the_limit(scratch: Scratch) -> None:
    some = [conversion(0, 200), conversion(1, 201, value=500.0)]
    _, labels = build(scratch, [*THREE, *CLICKS, OTHER], some, default_value=2.0, max_value=100.0)
    assert labels.as_of(NEVER).value[2, 0] == 102.0


def test_kinds_are_those_of_the_log_or_those_asked_for(scratch: Scratch) -> None:
    log = [*THREE, *CLICKS, OTHER]
    some = [conversion(n, 200, kind=kind) for n, kind in enumerate(["lead", "checkout", "checkout"])]
    labels = build(scratch, log, some)[1]
    assert labels.kinds == ("checkout", "lead")
    assert labels.as_of(NEVER).credit[2].tolist() == [2, 1]
    assert build(scratch, log, some, kinds=("lead", "signup"))[1].kinds == ("lead", "signup")


def test_what_cannot_be_credited_is_an_error(scratch: Scratch) -> None:
    log = [*THREE, *CLICKS, OTHER]
    with pytest.raises(DataError, match="no conversions"):
        build(scratch, log, [])
    with pytest.raises(DataError, match="signup"):
        build(scratch, log, [conversion(0, 200)], kinds=("signup",))
    with pytest.raises(UsageError, match="first_touch"):
        build(scratch, log, [conversion(0, 200)], attribution="first_touch")
    with pytest.raises(UsageError, match="click_window_hours"):
        build(scratch, log, [conversion(0, 200)], click_window_hours=0)
    ws, con = scratch
    dataset, _ = build(scratch, log, [conversion(0, 200)])
    insert(con, "events", [event(99, 400, "impression")])
    changed = dataclasses.replace(PLAIN, conversion=ConversionSettings(offline=False))
    with pytest.raises(DataError, match="changed"):
        build_conversions(con, ws, changed, dataset)


def test_labels_are_taken_from_the_cache_until_something_changes(built: Built) -> None:
    args = (built.con, built.ws)
    first = build_conversions(*args, built.settings, built.dataset)
    assert build_conversions(*args, built.settings, built.dataset).fingerprint == first.fingerprint
    other = dataclasses.replace(built.settings, conversion=ConversionSettings(view_window_hours=5.0))
    assert build_conversions(*args, other, built.dataset).fingerprint != first.fingerprint
    (left,) = (built.ws.cache / "conversions").iterdir()
    assert left.name != first.fingerprint, "labels of other settings go away"


def brute(
    oracle: Oracle, chosen: ConversionSettings, catalogue_advertisers: set[str]
) -> tuple[dict[int, Any], list[tuple[Record, int, int, float]]]:
    """First click by example, and (conversion, example, via, credit), by plain loops."""
    examples = oracle.examples()
    clicks = oracle.clicks(examples)
    found = []
    for one in oracle.conversions:
        if one["advertiser_id"] not in catalogue_advertisers:
            continue
        if one["channel"] == "offline" and not chosen.offline:
            continue

        def near(moment: Any, hours: float, one: Record = one) -> bool:
            return 0 <= (one["ts"] - moment).total_seconds() <= hours * 3600

        mine = [
            n
            for n, e in enumerate(examples)
            if e["user_id"] == one["user_id"] and e["advertiser_id"] == one["advertiser_id"]
        ]
        touches = [(clicks[n], n) for n in mine if n in clicks and near(clicks[n], chosen.click_window_hours)]
        via = 1
        if not touches and chosen.view_window_hours:
            via = 2
            touches = [
                (examples[n]["ts"], n) for n in mine if near(examples[n]["ts"], chosen.view_window_hours)
            ]
        touches.sort()
        size = len(touches)
        for place, (_, number) in enumerate(touches):
            if chosen.attribution == "last_touch":
                credit = float(place == size - 1)
            elif chosen.attribution == "linear" or size <= 2:
                credit = 1 / size
            else:
                credit = 0.4 if place in (0, size - 1) else 0.2 / (size - 2)
            if credit:
                found.append((one, number, via, credit))
    return clicks, found


def crowded(rng: np.random.Generator, count: int) -> list[Record]:
    """Conversions of few users at few advertisers, so that many have several touches."""
    rows = []
    for number in range(count):
        minute = float(rng.integers(0, 5 * DAY))
        rows.append(
            conversion(
                number,
                minute,
                reported_at=at(minute + float(rng.integers(0, 3000))) if rng.random() < 0.7 else None,
                user_id=f"u{int(rng.integers(6))}",
                advertiser_id=f"v{int(rng.integers(4))}",  # v3 is in no catalogue
                kind=["checkout", "lead"][int(rng.random() < 0.3)],
                value=float(rng.uniform(1, 50)) if rng.random() < 0.6 else None,
                channel=["online", "offline", None][int(rng.integers(3))],
            )
        )
    return rows


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    attribution=st.sampled_from(["last_touch", "position", "linear"]),
    views=st.sampled_from([0.0, 6.0, 48.0]),
    offline=st.booleans(),
)
def test_random_logs_agree_with_brute_force(
    scratch: Scratch, seed: int, attribution: str, views: float, offline: bool
) -> None:
    rng = np.random.default_rng(seed)
    chosen: dict[str, Any] = {
        "click_window_hours": 60.0,
        "view_window_hours": views,
        "attribution": attribution,
        "offline": offline,
        "kinds": ("checkout", "lead"),
    }
    dataset, labels = build(scratch, random_events(rng, 300, ads=6), crowded(rng, 60), **chosen)
    oracle = Oracle.read(scratch[1], PLAIN, "ad")
    clicks, found = brute(oracle, ConversionSettings(**chosen), {"v0", "v1", "v2"})
    assert {n: int(ts) for n, ts in enumerate(labels.click_ts) if ts != NEVER} == {
        n: microseconds(ts) for n, ts in clicks.items()
    }
    middle = int(np.quantile(np.asarray(dataset.ts), 0.6))
    for until in (NEVER, middle):
        for clicks_only in (False, True):
            credit: dict[Cell, float] = defaultdict(float)
            value: dict[Cell, float] = defaultdict(float)
            for one, number, via, part in found:
                heard = microseconds(max(one["ts"], one["reported_at"] or one["ts"]))
                if heard <= until and not (clicks_only and via == 2):
                    credit[number, one["kind"]] += part
                    value[number, one["kind"]] += part * (one["value"] or 0.0)
            known = labels.as_of(until, clicks_only=clicks_only)
            for table, wanted in ((known.credit, credit), (known.value, value)):
                full = np.zeros((len(dataset), 2))
                for (number, kind), amount in wanted.items():
                    full[number, labels.kinds.index(kind)] = amount
                np.testing.assert_allclose(table, full, rtol=1e-5)
            part_of = labels.as_of(until, slice(5, 40), clicks_only=clicks_only)
            np.testing.assert_array_equal(part_of.credit, known.credit[5:40])
    assert labels.attributed == len({one["conversion_id"] for one, *_ in found})
