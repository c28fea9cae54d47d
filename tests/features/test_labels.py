"""Which impression an action belongs to, and what its label is."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pytest
from features.conftest import SMALL, Built
from features.logs import at, catalogue, clear, insert, random_events, vectors
from features.oracle import Oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adstool.config import Action, FeatureSettings, Settings
from adstool.features.dataset import build_dataset
from adstool.features.items import build_items
from adstool.workspace import Workspace

Scratch = tuple[Workspace, duckdb.DuckDBPyConnection]


def event(number: int, minutes: float, action: str, **more: Any) -> dict[str, Any]:
    """An event of user u1 on ad a1."""
    return {
        "event_id": f"e{number}",
        "ts": at(minutes),
        "user_id": "u1",
        "item_type": "ad",
        "item_id": "a1",
        "action": action,
        "request_id": None,
        "value": None,
        **more,
    }


def labels_of(scratch: Scratch, chosen: Settings, events: list[dict[str, Any]]) -> np.ndarray:
    """The labels of a log."""
    ws, con = scratch
    clear(con)
    catalogue(con)
    insert(con, "events", events)
    return np.asarray(build_dataset(con, ws, chosen, build_items(con, vectors(con))).labels)


def test_labels_of_the_shared_log_agree_with_brute_force(built: Built) -> None:
    found = built.oracle.labels(built.oracle.examples())
    wanted = [[float(a.name in row) for a in SMALL.actions] for row in found]
    np.testing.assert_array_equal(built.dataset.labels, wanted)
    assert np.sum(wanted) > 10


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), window=st.sampled_from([0.5, 6.0, 48.0]))
def test_every_kind_of_label_agrees_with_brute_force(scratch: Scratch, seed: int, window: float) -> None:
    ws, con = scratch
    clear(con)
    chosen = Settings(
        actions=(
            Action("click", window_hours=window),
            Action("save", kind="duration", window_hours=window),
            Action("closeup", kind="count"),
        ),
        features=FeatureSettings(min_count=1),
    )
    rng = np.random.default_rng(seed)
    catalogue(con, ads=3)
    insert(con, "events", random_events(rng, 250, ads=3))
    oracle = Oracle.read(con, chosen, "ad")
    dataset = build_dataset(con, ws, chosen, build_items(con, {}))
    wanted = np.zeros((len(dataset), 3))
    for number, row in enumerate(oracle.labels(oracle.examples())):
        wanted[number, 0] = float("click" in row)
        if "save" in row:
            given_values = [value for value in row["save"] if value is not None]
            wanted[number, 1] = sum(given_values) if given_values else np.nan
        wanted[number, 2] = sum(1.0 if value is None else value for value in row.get("closeup", []))
    np.testing.assert_allclose(dataset.labels, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        pytest.param(
            [event(0, 0, "impression"), event(1, 5, "impression"), event(2, 6, "click")],
            [0, 1],
            id="the latest impression",
        ),
        pytest.param(
            [
                event(0, 0, "impression", request_id="r1"),
                event(1, 5, "impression", request_id="r2"),
                event(2, 6, "click", request_id="r1"),
            ],
            [1, 0],
            id="of the same request",
        ),
        pytest.param(
            [
                event(0, 0, "impression", request_id="r1"),
                event(1, 5, "impression"),
                event(2, 6, "click", request_id="r1"),
            ],
            [0, 1],
            id="an impression without a request fits any",
        ),
        pytest.param(
            [
                event(0, 0, "impression"),
                event(1, 5, "impression"),
                event(2, 5, "click", request_id="r9"),
            ],
            [0, 1],
            id="an action at the same instant",
        ),
        pytest.param(
            [event(0, 5, "impression"), event(1, 9, "impression"), event(2, 4, "click")],
            [0, 0],
            id="never one before the impression",
        ),
        pytest.param(
            [event(0, 0, "impression"), event(1, 60 * 30, "impression"), event(2, 60 * 24 + 1, "click")],
            [0, 0],
            id="outside the window",
        ),
    ],
)
def test_an_action_belongs_to(scratch: Scratch, events: list[dict[str, Any]], wanted: list[int]) -> None:
    chosen = Settings(features=FeatureSettings(valid_fraction=0.0, test_fraction=0.5))
    assert labels_of(scratch, chosen, events)[:, 0].tolist() == wanted
