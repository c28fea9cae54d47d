"""Slates: the logged propensity is the exact chance of the draw."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from world.conftest import Made

from adstool.world import catalogue, population
from adstool.world.config import WorldConfig
from adstool.world.policies import CANDIDATES, EXPLORE, POLICIES, Shop, slot_probabilities

CONFIG = WorldConfig(users=20, ads=40, pins=40, days=2)


@pytest.fixture(scope="module")
def shop() -> Shop:
    market = catalogue.build(CONFIG, catalogue.synthetic_items(CONFIG), CONFIG.ads)
    return Shop(CONFIG, market, population.build(CONFIG, market))


def test_slot_probabilities_are_a_distribution_over_the_able() -> None:
    rng = np.random.default_rng(0)
    able = rng.random((500, 12)) < 0.6
    able[:, 0] = True
    found = slot_probabilities(rng.exponential(size=(500, 12)), able, able.sum(axis=1))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    assert (found[~able] == 0).all()
    assert (found >= EXPLORE * able / able.sum(axis=1, keepdims=True) - 1e-15).all()


def test_slot_probabilities_by_hand() -> None:
    found = slot_probabilities(np.array([[1.0, 2.0, 5.0]]), np.array([[True, True, False]]), np.array([2]))
    np.testing.assert_allclose(found, [[0.9 / 3 + 0.05, 0.9 * 2 / 3 + 0.05, 0.0]])


def test_draws_come_as_often_as_their_propensity_says(shop: Shop) -> None:
    draws = 60_000
    rng = np.random.default_rng(1)
    candidates = np.full((draws, 2 * CANDIDATES), -1)
    candidates[:, :4] = [0, 1, 2, 3]
    scores = np.zeros((draws, 2 * CANDIDATES))
    scores[:, :4] = [0.0, 1.0, -0.5, 2.0]
    choice = shop.fill(candidates, scores, np.ones((draws, 2), dtype=bool), rng)
    for slot in range(2):
        counted: dict[tuple[int, ...], list[float]] = defaultdict(list)
        for row in range(draws):
            counted[tuple(choice.item[row, : slot + 1])].append(choice.propensity[row, slot])
        above = defaultdict(int)
        for path, seen in counted.items():
            above[path[:-1]] += len(seen)
        for path, seen in counted.items():
            share = len(seen) / above[path[:-1]]
            assert len({round(p, 12) for p in seen}) == 1
            assert share == pytest.approx(seen[0], abs=4.5 * math.sqrt(seen[0] / above[path[:-1]]))


def test_a_kind_that_runs_out_leaves_the_slot_empty_and_nothing_is_shown_twice(shop: Shop) -> None:
    candidates = np.full((50, 2 * CANDIDATES), -1)
    candidates[:, :2] = [5, 9]
    candidates[:, CANDIDATES : CANDIDATES + 1] = 60
    choice = shop.fill(
        candidates,
        np.zeros_like(candidates, dtype=float),
        np.ones((50, 4), dtype=bool),
        np.random.default_rng(2),
    )
    assert (np.sort(choice.item[:, :2], axis=1) == [5, 9]).all()
    assert (choice.item[:, 2:] == -1).all()
    assert (choice.propensity[:, 2:] == 0).all()


def test_candidates_run_at_the_time_and_are_distinct(shop: Shop) -> None:
    rng = np.random.default_rng(3)
    user, seconds = rng.integers(0, 20, 400), rng.integers(0, 2 * 86_400, 400)
    interest = shop.people.interest(user, seconds)
    found = shop.candidates(user, seconds, np.full(400, -1), interest, rng)
    for row in range(400):
        there = found[row][found[row] >= 0]
        assert len(set(there.tolist())) == len(there)
        assert (shop.items.opens[there] <= seconds[row]).all()
        assert (shop.items.closes[there] > seconds[row]).all()
        ads = found[row, :CANDIDATES]
        assert (ads[ads >= 0] < CONFIG.ads).all()


def test_inverse_propensities_average_to_the_number_of_candidates(committed: Made) -> None:
    """E[1 / p(drawn)] is the number of things that could be drawn: it holds only if p is exact."""
    shown = [e for e in committed.events if e["action"] == "impression"]
    choices = {(row["request_id"], row["item_id"]): row["candidates"] for row in committed.truth}
    for policy in POLICIES:
        chosen = [e for e in shown if e["source"] == policy]
        inverse = np.array([1 / e["propensity"] for e in chosen])
        number = np.array([choices[e["request_id"], e["item_id"]] for e in chosen])
        error = (inverse - number).std() / math.sqrt(len(chosen))
        assert abs(inverse.mean() - number.mean()) < 4 * error + 1e-3, policy


def test_logged_policies_evaluate_the_random_one(committed: Made) -> None:
    """Importance weights from a biased policy to the uniform draw give its true click rate at the top."""
    truth = [row for row in committed.truth if row["position"] == 0 and row["item_type"] == "ad"]
    logged = {(e["request_id"], e["item_id"]): e["propensity"] for e in committed.events if "propensity" in e}
    uniform = [row["p_click"] for row in truth if row["policy"] == "random"]
    target = float(np.mean(uniform))
    for policy in ("popular", "personal", "revenue"):
        rows = [row for row in truth if row["policy"] == policy]
        weight = np.array([1 / row["candidates"] / logged[row["request_id"], row["item_id"]] for row in rows])
        value = weight * np.array([row["p_click"] for row in rows])
        error = math.hypot(value.std() / math.sqrt(len(rows)), np.std(uniform) / math.sqrt(len(uniform)))
        assert weight.mean() == pytest.approx(1, abs=4 * weight.std() / math.sqrt(len(rows)))
        assert abs(value.mean() - target) < 4 * error
        # And the weights matter: without them the personal policy's rate is higher.
        if policy == "personal":
            assert np.mean([row["p_click"] for row in rows]) > target + 2 * error
