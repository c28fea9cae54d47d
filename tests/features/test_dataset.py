"""The data set: its columns, splits, histories and cache, and that it never knows the future."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from features.conftest import SMALL, Built
from features.logs import at, catalogue, clear, insert, random_conversions, random_events, vectors, warehouse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adstool.config import FeatureSettings, Settings
from adstool.errors import AdstoolError
from adstool.features.build import split_by_time
from adstool.features.dataset import INPUTS, Dataset, build_dataset
from adstool.features.engagements import SequenceNeeds
from adstool.features.items import build_items
from adstool.features.state import microseconds
from adstool.workspace import Workspace

Scratch = tuple[Workspace, duckdb.DuckDBPyConnection]


def test_plain_columns_are_those_of_the_logged_impressions(built: Built) -> None:
    dataset, examples = built.dataset, built.oracle.examples()
    users = dataset.users.column("user_id").to_pylist()
    requests: dict[object, int] = {}
    for number, example in enumerate(examples):
        assert dataset.ts[number] == microseconds(example["ts"])
        assert users[dataset.user[number]] == example["user_id"]
        row = int(dataset.item_row[number])
        assert (dataset.items.types[row], dataset.items.ids[row]) == ("ad", example["item_id"])
        surface = dataset.surface[number]
        assert (dataset.surfaces[surface] if surface >= 0 else None) == example["surface"]
        assert dataset.position[number] == (0 if example["position"] is None else 1 + example["position"])
        propensity = dataset.propensity[number]
        assert (
            math.isnan(propensity)
            if example["propensity"] is None
            else propensity == pytest.approx(example["propensity"])
        )
        key = example["request_id"] or (example["user_id"], example["ts"])
        assert requests.setdefault(key, int(dataset.request[number])) == dataset.request[number]
    assert len(set(requests.values())) == len(requests)
    assert (np.asarray(dataset.sample_weight) == 1).all()


def test_histories_agree_with_brute_force(built: Built) -> None:
    dataset, oracle = built.dataset, built.oracle
    length = SMALL.features.history_length
    vocabularies = dataset.encoder.vocabularies
    order = {action.name: number for number, action in enumerate(SMALL.actions, 1)}
    read = dataset.batch(slice(0, len(dataset)))
    assert read["history_item"].shape == (len(dataset), length)
    longest = 0
    for number, example in enumerate(oracle.examples()):
        history = oracle.history(example)
        longest = max(longest, len(history))
        shown = history[:length]
        pad = [0] * (length - len(shown))
        codes = [vocabularies["item_id"].code(f"{e['item_type']}:{e['item_id']}") for e in shown]
        assert read["history_item"][number].tolist() == codes + pad
        categories = [vocabularies["category"].code(e["category"]) for e in shown]
        assert read["history_category"][number].tolist() == categories + pad
        assert read["history_action"][number].tolist() == [order[e["action"]] for e in shown] + pad
        ages = [math.log1p((example["ts"] - e["ts"]).total_seconds() / 3600) for e in shown]
        np.testing.assert_allclose(read["history_age"][number], ages + pad, rtol=1e-5)
        last = vocabularies["last_category"].code(history[0]["category"]) if history else 0
        place = [column.name for column in dataset.encoder.categorical_columns].index("last_category")
        assert dataset.categorical[number, place] == last
    assert longest > length


def test_user_content_is_the_weighted_mean_of_the_last_engaged_items(built: Built) -> None:
    dataset, spec = built.dataset, built.dataset.encoder.spec
    summaries = dataset.batch(slice(0, len(dataset)))["user_content"]
    for number, example in enumerate(built.oracle.examples()):
        total = np.zeros(dataset.content_dim)
        for rank, event in enumerate(built.oracle.history(example)[: spec.content_recent]):
            row = int(dataset.items.rows([event["item_id"]], event["item_type"])[0])
            total += spec.content_decay**rank * dataset.items.content[row]
        norm = np.linalg.norm(total)
        wanted = total / norm if norm > 0 else total
        np.testing.assert_allclose(summaries[number], wanted, atol=1e-5)
        similarity = float(wanted @ dataset.items.content[dataset.item_row[number]])
        place = [c.name for c in dataset.encoder.numeric_columns].index("content_similarity")
        scaled = (
            (similarity - dataset.encoder.mean[place]) / dataset.encoder.std[place] if similarity else 0.0
        )
        assert dataset.numeric[number, place] == pytest.approx(scaled, abs=1e-4)


def test_history_content_is_the_vectors_of_the_last_engagements(built: Built) -> None:
    dataset = built.dataset
    found = dataset.batch(slice(0, len(dataset)), SequenceNeeds(content=3))["history_content"]
    for number, example in enumerate(built.oracle.examples()):
        wanted = np.zeros((3, dataset.content_dim))
        for place, event in enumerate(built.oracle.history(example)[:3]):
            wanted[place] = dataset.items.content[
                dataset.items.rows([event["item_id"]], event["item_type"])[0]
            ]
        np.testing.assert_array_equal(found[number], wanted)
    assert found[:, 2].any()


def test_batches_by_slice_and_by_rows_are_the_same(built: Built) -> None:
    dataset = built.dataset
    rows = np.asarray([17, 3, 3, 40])
    picked, sliced = dataset.batch(rows), dataset.batch(slice(0, 50))
    assert tuple(picked) == INPUTS == tuple(sliced)
    for name in INPUTS:
        np.testing.assert_array_equal(picked[name], sliced[name][rows])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), place=st.floats(0.0, 1.0))
def test_nothing_that_happens_at_or_after_an_example_changes_its_features(
    scratch: Scratch, seed: int, place: float
) -> None:
    """Actions and conversions at or after a moment are dropped and others added: inputs up to it stay."""
    ws, con = scratch
    clear(con)
    rng = np.random.default_rng(seed)
    catalogue(con, seed)
    insert(con, "events", random_events(rng, 250))
    insert(con, "conversions", random_conversions(rng, 30))
    items = build_items(con, vectors(con))
    first = build_dataset(con, ws, SMALL, items)
    before = first.batch(slice(0, len(first)))
    held_out = np.arange(first.splits["valid"].start, len(first))
    moment = int(first.ts[held_out[min(int(place * len(held_out)), len(held_out) - 1)]])
    con.execute(
        "delete from events where epoch_us(ts) >= $moment and action != 'impression'", {"moment": moment}
    )
    con.execute("delete from conversions where epoch_us(coalesce(reported_at, ts)) >= $m", {"m": moment})
    shift = (moment - microseconds(at(0))) / 60e6
    late = [e for e in random_events(np.random.default_rng(seed + 1), 120) if e["action"] != "impression"]
    for number, event in enumerate(late):
        # the ids are new, users and surfaces are not: who exists is no feature, and changes no number here
        event |= {"event_id": f"late{number}", "ts": at(shift + number), "surface": "home"}
        event["user_id"] = f"u{number % 5}"
    insert(con, "events", late)
    bought = random_conversions(np.random.default_rng(seed + 2), 20)
    for number, conversion in enumerate(bought):
        conversion |= {"conversion_id": f"late{number}", "reported_at": at(shift + number)}
    insert(con, "conversions", bought)
    second = build_dataset(con, ws, SMALL, items)
    assert second.fingerprint != first.fingerprint
    after = second.batch(slice(0, len(second)))
    known = np.asarray(second.ts) <= moment
    assert known[held_out].any()
    for name in INPUTS:
        np.testing.assert_allclose(after[name][known], before[name][known], atol=1e-5, err_msg=name)


def test_splits_are_by_time_and_never_inside_an_instant(built: Built) -> None:
    ts, splits = np.asarray(built.dataset.ts), built.dataset.splits
    assert (np.diff(ts) >= 0).all()
    assert splits["train"].start == 0
    assert splits["train"].stop == splits["valid"].start
    assert splits["valid"].stop == splits["test"].start
    assert splits["test"].stop == len(ts)
    for boundary in (splits["valid"].start, splits["test"].start):
        assert ts[boundary - 1] < ts[boundary]


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda times: len(set(times)) > 1),
    st.floats(0.0, 0.4),
    st.floats(0.0, 0.4),
)
def test_split_by_time_keeps_instants_together_and_close_to_the_fractions(
    times: list[int], valid: float, test: float
) -> None:
    ts = np.sort(np.asarray(times))
    try:
        splits = split_by_time(ts, valid, test)
    except AdstoolError:
        assert ts[0] == ts[min(int(len(ts) * (1 - valid - test)), len(ts) - 1)]
        return
    parts = [set(ts[part].tolist()) for part in splits.values()]
    assert sum(len(part) for part in parts) == len(set(times))
    assert splits["train"].stop <= int(len(ts) * (1 - valid - test))
    assert splits["test"].stop == len(ts)
    if test == 0.0:
        assert splits["test"].start == len(ts)


def test_a_log_at_one_instant_cannot_be_split() -> None:
    with pytest.raises(AdstoolError, match="cannot be split"):
        split_by_time(np.zeros(9, dtype=np.int64), 0.1, 0.2)


def test_an_empty_log_and_a_log_without_catalogue_say_what_is_missing(scratch: Scratch) -> None:
    ws, con = scratch
    clear(con)
    with pytest.raises(AdstoolError, match="no impression of a catalogue pin"):
        build_dataset(con, ws, SMALL, build_items(con, {}))
    insert(con, "events", random_events(np.random.default_rng(0), 50))
    with pytest.raises(AdstoolError, match="no impression of a catalogue ad") as caught:
        build_dataset(con, ws, SMALL, build_items(con, {}))
    assert "catalogue" in caught.value.hint


def test_the_cache_answers_until_something_changes(tmp_path: Path) -> None:
    with warehouse(tmp_path / "shop", SMALL) as (ws, con):
        catalogue(con)
        insert(con, "events", random_events(np.random.default_rng(2), 150))
        items = build_items(con, vectors(con))
        first = build_dataset(con, ws, SMALL, items)
        made = (first.directory / "built.json").stat().st_mtime_ns
        again = build_dataset(con, ws, SMALL, items)
        assert (again.directory, again.fingerprint) == (first.directory, first.fingerprint)
        assert (again.directory / "built.json").stat().st_mtime_ns == made
        insert(con, "events", random_events(np.random.default_rng(3), 10))
        grown = build_dataset(con, ws, SMALL, items)
        longer = replace(SMALL, features=replace(SMALL.features, history_length=9))
        other = build_dataset(con, ws, longer, items)
        unembedded = build_dataset(con, ws, longer, build_items(con, {}))
        assert len({first.fingerprint, grown.fingerprint, other.fingerprint, unembedded.fingerprint}) == 4
        assert [path.name for path in (ws.cache / "examples").iterdir()] == [unembedded.fingerprint]
        assert unembedded.content_dim == 1
        assert not np.asarray(unembedded.batch(slice(0, 9))["item_content"]).any()


def test_a_killed_build_is_not_taken_for_a_whole_one(built: Built, tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    home = ws.cache / "examples"
    half = home / built.dataset.fingerprint
    half.mkdir(parents=True)
    shutil.copy(built.dataset.directory / "ts.npy", half)
    dead = home / ".building-99999999"
    dead.mkdir()
    alive = home / f".building-{os.getppid()}"
    alive.mkdir()
    dataset = build_dataset(built.con, ws, SMALL, built.items)
    assert isinstance(dataset, Dataset)
    np.testing.assert_array_equal(dataset.numeric, built.dataset.numeric)
    assert sorted(path.name for path in home.iterdir()) == sorted([alive.name, dataset.fingerprint])
    assert not list(dataset.directory.glob("raw_*"))


def test_a_corpus_of_pins_has_no_columns_of_ads(scratch: Scratch) -> None:
    ws, con = scratch
    clear(con)
    catalogue(con, ads=0)
    events = [e for e in random_events(np.random.default_rng(5), 300, pins=6) if e["item_type"] == "pin"]
    insert(con, "events", events)
    chosen = Settings(features=FeatureSettings(min_count=1))
    dataset = build_dataset(con, ws, chosen, build_items(con, vectors(con)))
    names = {c.name for c in (*dataset.encoder.categorical_columns, *dataset.encoder.numeric_columns)}
    assert dataset.encoder.spec.corpus == "pin"
    assert not {name for name in names if "advertiser" in name or "price" in name or "campaign" in name}
    assert {dataset.items.types[row] for row in dataset.item_row[:]} == {"pin"}


def test_the_query_of_a_request_is_found_on_its_query_event(scratch: Scratch) -> None:
    ws, con = scratch
    clear(con)
    catalogue(con)
    shown = random_events(np.random.default_rng(6), 120)
    for event in shown:
        event["query"] = None
    asked = {**shown[0], "event_id": "q", "item_type": "query", "item_id": None, "action": "query"}
    shown += [
        {**asked, "event_id": "q1", "request_id": "r1", "ts": at(-5), "query": "Linen  LAMP"},
        {**asked, "event_id": "q2", "request_id": "r2", "ts": at(60 * 24 * 9), "query": "too late"},
    ]
    insert(con, "events", shown)
    chosen = Settings(features=FeatureSettings(min_count=1))
    dataset = build_dataset(con, ws, chosen, build_items(con, vectors(con)))
    place = [c.name for c in dataset.encoder.categorical_columns].index("query")
    codes = set(np.asarray(dataset.categorical[:, place]).tolist())
    assert codes == {0, dataset.encoder.vocabularies["query"].code("linen lamp")}
