"""The interests stage: NDCG against scikit-learn, truth against the population that made the world."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from adstool.config import Settings
from adstool.evaluation.context import Evaluation
from adstool.evaluation.interests import compare, evaluate_interests, user_ndcg
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace
from adstool.world import catalogue, population
from adstool.world.config import WorldConfig
from adstool.world.generate import generate
from adstool.world.truth import true_interests


def test_ndcg_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    gains, scores = random.random((20, 14)) * (random.random((20, 14)) < 0.6), random.normal(size=(20, 14))
    scores[:5] = np.round(scores[:5])  # ties
    wanted = [ndcg_score(g[None], s[None], k=10) for g, s in zip(gains, scores, strict=True)]
    assert user_ndcg(gains, scores) == pytest.approx(wanted)


def test_truth_is_what_the_population_wants_at_that_moment(tmp_path: Path) -> None:
    config = WorldConfig(users=40, ads=40, pins=30, days=4, seed=5, requests_per_user_day=0.5)
    generate(config, tmp_path, None, None)
    moment = datetime(2026, 11, 4, 12, tzinfo=UTC)
    start = datetime.fromisoformat(str(config.start)).replace(tzinfo=UTC)
    seconds = int((moment - start).total_seconds())
    users, categories, cosine = true_interests(tmp_path / "truth", int(moment.timestamp()) * 1_000_000)
    shop = catalogue.build(config, catalogue.synthetic_items(config), config.ads)
    people = population.build(config, shop)
    assert users == people.ids
    wanted = people.interest(np.arange(40), np.full(40, seconds))
    for number, name in enumerate(categories):
        inside = shop.items.category == shop.words.categories.index(name)
        centre = shop.items.vector[inside].sum(axis=0)
        for user in range(40):
            lengths = np.linalg.norm(wanted[user]) * np.linalg.norm(centre)
            assert cosine[user, number] == pytest.approx(wanted[user] @ centre / lengths, abs=1e-5)


def test_compare_counts_only_users_with_something_to_find(make_evaluation: Any) -> None:
    gains = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [1.0, 0, 0]])
    right = {"with_offsite": gains, "on_site_only": gains[:, ::-1], "interests": gains}
    scores = {**right, "most_engaged": np.zeros((4, 3))}
    found = compare(gains, scores, np.array([True, True, True, False]), make_evaluation())
    assert found["users"] == 2
    assert found["ndcg@10"]["interests"] == 1.0
    # The first user's category shares the last two places with another; the second's stays first.
    backwards = (np.mean([1 / np.log2(3), 1 / np.log2(4)]) + 1.0) / 2
    assert found["ndcg@10"]["on_site_only"] == pytest.approx(backwards)
    assert found["offsite_gain"]["value"] == pytest.approx(1.0 - backwards)
    assert compare(gains, scores, np.zeros(4, dtype=bool), make_evaluation()) == {"users": 0}


def test_interests_beat_the_baselines_in_the_small_world(shop: Workspace, settings: Settings) -> None:
    with open_warehouse(shop, settings, read_only=True) as con:
        found = evaluate_interests(Evaluation(shop, settings, con))
    for judged in ("truth", "later"):
        ndcg = found[judged]["ndcg@10"]
        assert ndcg["interests"] > max(ndcg["most_engaged"], ndcg["last_engaged"], ndcg["chance"])
        assert found[judged]["users"] > 25
        assert set(found[judged]["intervals"]) == set(ndcg)
    assert found["truth"]["ndcg@10"]["interests"] == found["truth"]["ndcg@10"]["with_offsite"]
    assert found["truth"]["ndcg@10"]["on_site_only"] != found["truth"]["ndcg@10"]["with_offsite"]
