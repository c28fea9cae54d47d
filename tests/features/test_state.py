"""The serving side: the same inputs as training for logged requests, and requests nobody has logged."""

from __future__ import annotations

import itertools
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from features.conftest import SMALL, Built
from features.logs import START, at

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError
from adstool.features.cross import GROUPS, CrossFeatures, cross_columns
from adstool.features.dataset import INPUTS
from adstool.features.encoder import FeatureEncoder
from adstool.features.engagements import SHARED_INPUTS, SequenceNeeds
from adstool.features.spec import default_spec
from adstool.features.state import ServingState, microseconds


@pytest.fixture(scope="module")
def now(built: Built) -> ServingState:
    """The state after the whole log."""
    spec = built.dataset.encoder.spec
    return ServingState.build(built.con, built.ws, built.settings, spec, built.items)


@pytest.mark.parametrize("query", [None, "red shoes"])
def test_cross_columns_alone_are_those_of_all_inputs(
    now: ServingState, built: Built, query: str | None
) -> None:
    encoder = built.dataset.encoder
    names = [column.name for column in encoder.numeric_columns]
    rows = np.concatenate([now.eligible(), now.eligible()[:3]])  # in any number, twice or not at all
    users = [*now.users.column("user_id").to_pylist()[:3], "nobody"]
    for groups in (tuple(GROUPS), ("price",), ("category", "content"), ("query", "advertiser")):
        columns = cross_columns(names, groups)
        cross = CrossFeatures(encoder, columns)
        for some, user in itertools.product((rows, rows[:2]), users):
            context = now.request(user, None, "home", query)
            wanted = now.inputs(encoder, context, some)["numeric"][:, columns]
            np.testing.assert_array_equal(cross.of(now, context, some), wanted)
    every = [place for place, column in enumerate(encoder.numeric_columns) if column.side == "cross"]
    assert sorted(cross_columns(names, tuple(GROUPS))) == every
    with pytest.raises(UsageError, match="no group of features"):
        cross_columns(names, ("colour",))


def moment_of(ts: int) -> datetime:
    """The moment of so many microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts)


def test_a_logged_request_gets_the_inputs_that_its_example_was_trained_on(built: Built) -> None:
    dataset, oracle = built.dataset, built.oracle
    examples = oracle.examples()
    train_end = dataset.splits["train"].stop
    sampled = sorted({0, 1, train_end, len(examples) - 1, *range(5, len(examples), 8)})
    for number in sampled:
        example = examples[number]
        state = ServingState.build(
            built.con, built.ws, SMALL, dataset.encoder.spec, built.items, moment_of(int(dataset.ts[number]))
        )
        context = state.request(
            example["user_id"], example["ts"], surface=example["surface"], query=example["query"]
        )
        needs = SequenceNeeds(content=4)
        found = state.inputs(dataset.encoder, context, dataset.item_row[number : number + 1], needs)
        wanted = dataset.batch(slice(number, number + 1), needs)
        assert tuple(found) == (*INPUTS, "history_content") == tuple(wanted)
        for name in found:
            assert found[name].dtype == wanted[name].dtype, name
            if name != "position":
                np.testing.assert_allclose(
                    found[name], wanted[name], atol=1e-5, err_msg=f"{name} of example {number}"
                )
    assert len(sampled) > 15


def test_a_user_without_profile_is_known_from_the_first_event_on(built: Built) -> None:
    first = min(e["ts"] for e in built.oracle.events if e["user_id"] == "u6")
    spec = built.dataset.encoder.spec
    for as_of, known in ((first, False), (first + timedelta(microseconds=1), True)):
        state = ServingState.build(built.con, built.ws, SMALL, spec, built.items, as_of)
        assert state.request("u6").known is known
        assert state.request("u1").known is True


def test_candidates_of_one_request_get_what_each_gets_alone(built: Built, now: ServingState) -> None:
    encoder, rows = built.dataset.encoder, np.asarray([3, 0, 11, 3, 7])
    context = now.request("u2", at(60 * 24 * 5), surface="search", query="red linen")
    together = now.inputs(encoder, context, rows)
    for name in INPUTS:
        assert together[name].flags.c_contiguous
        alone = [now.inputs(encoder, context, np.asarray([row]))[name][0] for row in rows]
        values = together[name]
        assert len(values) == (1 if name in SHARED_INPUTS else 5)
        np.testing.assert_allclose(
            np.broadcast_to(values, (5, *values.shape[1:])), np.stack(alone), atol=1e-6
        )
    assert (together["position"] == 1).all()
    assert len(np.unique(together["numeric"], axis=0)) == 4


def test_a_user_nobody_has_seen_gets_whole_inputs(built: Built, now: ServingState) -> None:
    encoder = built.dataset.encoder
    context = now.request("somebody", None, surface="a new surface", query="unheard words")
    assert not context.known
    found = now.inputs(encoder, context, now.eligible())
    names = [column.name for column in encoder.categorical_columns]
    code = found["categorical"][:, names.index("user_id")]
    assert set(code.tolist()) <= set(range(1, 1 + SMALL.features.unknown_buckets))
    assert (found["categorical"][:, names.index("country")] == 0).all()
    assert (found["categorical"].max(axis=0) < np.asarray(encoder.cardinalities)).all()
    assert not found["history_item"].any()
    assert not found["user_content"].any()
    assert np.isfinite(found["numeric"]).all()
    assert now.last_engaged(context, 5).tolist() == []


def test_a_saved_state_answers_as_the_one_in_memory(built: Built, now: ServingState, tmp_path: Path) -> None:
    now.save(tmp_path)
    loaded = ServingState.load(tmp_path)
    assert loaded.spec == now.spec
    for user, query in (("u1", None), ("u3", "Lamp"), ("nobody", "red")):
        rows = now.eligible()
        wanted = now.inputs(built.dataset.encoder, now.request(user, None, "home", query), rows)
        found = loaded.inputs(built.dataset.encoder, loaded.request(user, None, "home", query), rows)
        for name in INPUTS:
            np.testing.assert_array_equal(found[name], wanted[name])
    np.testing.assert_array_equal(loaded.popularity(), now.popularity())
    shutil.copy(tmp_path / "state.json", tmp_path / "counter_user_sums.npy")
    with pytest.raises(AdstoolError, match="no whole state"):
        ServingState.load(tmp_path)


def test_popularity_is_the_decayed_engagement_of_an_item(built: Built, now: ServingState) -> None:
    popularity = now.popularity()
    end = moment_of(now.as_of).replace(tzinfo=None)
    for row, (kind, item) in enumerate(zip(built.items.types, built.items.ids, strict=True)):
        probe = {"item_type": kind, "item_id": item, "known": True, "ts": end}
        wanted = built.oracle.sums(probe, ("item",), 14.0)("engaged") if kind == "ad" else 0.0
        assert popularity[row] == pytest.approx(wanted, rel=1e-5)
    assert popularity.max() > 0


def test_last_engaged_items_are_distinct_and_newest_first(built: Built, now: ServingState) -> None:
    context = now.request("u1")
    probe = {"user_id": "u1", "ts": moment_of(now.as_of).replace(tzinfo=None)}
    history = [(e["item_type"], e["item_id"]) for e in built.oracle.history(probe)]
    wanted = list(dict.fromkeys(history))[:4]
    found = [(built.items.types[row], built.items.ids[row]) for row in now.last_engaged(context, 4)]
    assert found == wanted
    assert len(history) > len(set(history))


def test_only_running_ads_are_eligible(built: Built, now: ServingState) -> None:
    early = START + timedelta(minutes=-950)
    assert now.eligible(early).tolist() == []
    catalog = built.con.execute("select item_id, created_at from catalog where item_type = 'ad'").fetchall()
    created = dict(catalog)
    running = {item for item, made in created.items() if made <= at(0)}
    assert {built.items.ids[row] for row in now.eligible(START)} == running
    assert 0 < len(running) < len(created)


def test_campaigns_end(built: Built, now: ServingState) -> None:
    table = built.items.table
    place = table.column_names.index("ends_at")
    ends = [at(60 * 24 * 4) if name == "c1" else None for name in table.column("campaign_id").to_pylist()]
    items = type(built.items)(
        table.set_column(place, table.schema.field(place), [ends]), np.asarray(built.items.content)
    )
    state = ServingState(
        now.spec,
        items,
        now.users,
        now.engagements,
        now.counters,
        now.interests,
        now.off_site,
        now.queries,
    )
    late = at(60 * 24 * 5)
    gone = set(now.eligible(late).tolist()) - set(state.eligible(late).tolist())
    assert {built.items.column("campaign_id")[row].as_py() for row in gone} == {"c1"}
    assert state.eligible(at(5)).tolist() == now.eligible(at(5)).tolist()


def test_a_model_of_other_features_is_refused(built: Built, now: ServingState) -> None:
    encoder = built.dataset.encoder
    other = FeatureEncoder(
        default_spec(Settings()), encoder.vocabularies, encoder.priors, encoder.mean, encoder.std, 8
    )
    with pytest.raises(AdstoolError, match="other features than") as caught:
        now.inputs(other, now.request("u1"), np.asarray([0]))
    assert "adstool index" in caught.value.hint


def test_counters_fade_after_the_state_was_built(built: Built, now: ServingState) -> None:
    names = [column.name for column in built.dataset.encoder.numeric_columns]
    place = names.index("item_impression_count_1d")
    rows = now.eligible()
    soon = now.inputs(built.dataset.encoder, now.request("u1", now.as_of), rows)["numeric"][:, place]
    later = now.inputs(built.dataset.encoder, now.request("u1", now.as_of + 10**12), rows)["numeric"][
        :, place
    ]
    assert (later <= soon).all()
    assert (later < soon).any()


def test_microseconds_take_a_moment_without_a_zone_as_utc() -> None:
    assert microseconds(datetime(1970, 1, 2)) == 86_400_000_000
    assert microseconds(datetime(1970, 1, 1, 1, tzinfo=UTC)) == 3_600_000_000
