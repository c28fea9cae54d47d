"""Relevance grades: what is asked, the student against scikit-learn, and that it learns a teacher's rule."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llm_server import LlmServer, Reply, Request, llm_server
from sklearn.linear_model import Ridge
from sklearn.metrics import cohen_kappa_score

from adstool.commands import main
from adstool.content.embedding import embed_items
from adstool.content.enrichment.attributes_by_llm import LlmOptions
from adstool.content.enrichment.connect import open_chat
from adstool.content.enrichment.distillation import distil
from adstool.content.enrichment.relevance import grade_by_llm, logged_pairs
from adstool.content.enrichment.result import EnrichResult
from adstool.content.enrichment.run import enrich_items
from adstool.content.enrichment.student import (
    Student,
    agreement,
    cut,
    fit_student,
    matching_cuts,
    pair_features,
    weighted_kappa,
)
from adstool.errors import AdstoolError

Shop = Any


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(1, 6, 80)
    second = np.clip(first + rng.integers(-seed, seed + 1, 80), 1, 5)
    want = cohen_kappa_score(first, second, weights="quadratic")
    assert weighted_kappa(first, second) == pytest.approx(want)
    found = agreement(first, second)
    assert found["mae"] == pytest.approx(np.abs(first - second).mean())
    assert found["equal"] == pytest.approx((first == second).mean())
    assert weighted_kappa(np.full(9, 3), np.full(9, 3)) is None


def test_cuts_give_every_grade_as_often_as_the_teacher() -> None:
    rng = np.random.default_rng(0)
    grades = rng.choice([1, 2, 4, 5], 200, p=[0.5, 0.2, 0.2, 0.1])  # no 3 at all
    scores = rng.normal(size=200)
    found = cut(scores, matching_cuts(scores, grades))
    np.testing.assert_array_equal(np.bincount(found, minlength=6), np.bincount(grades, minlength=6))
    assert (np.diff(found[np.argsort(scores)]) >= 0).all()
    np.testing.assert_array_equal(cut(scores, matching_cuts(scores, np.full(200, 4))), np.full(200, 4))


def test_features_are_products_cosines_and_overlap() -> None:
    rng = np.random.default_rng(1)
    query, joint, text, image = rng.normal(size=(4, 3, 5))
    found = pair_features(query, joint, text, image, np.array([0.0, 0.5, 1.0]))
    for row in range(3):
        want = [
            *(query[row] * joint[row]),
            *(query[row] @ side[row] for side in (joint, text, image)),
            row / 2,
        ]
        np.testing.assert_allclose(found[row], want, rtol=1e-5)


def planted(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, grades by a linear rule of them, and the queries."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 6)).astype(np.float32)
    score = features @ np.array([1.0, -0.5, 0, 0, 0.3, 0]) + rng.normal(scale=0.2, size=count)
    return features, 1 + np.searchsorted([-1.0, -0.2, 0.5, 1.2], score), rng.integers(0, 40, count)


def test_a_ridge_student_is_scikit_learns_ridge_and_survives_a_file(tmp_path: Path) -> None:
    features, grades, queries = planted(2)
    student, validated = fit_student(features[:300], grades[:300], queries[:300])
    found = agreement(grades[300:], student.grades(features[300:]))
    assert found["kappa"] is not None
    assert found["kappa"] > 0.9
    assert validated[student.kind] == pytest.approx(found["kappa"], abs=0.06)
    assert validated["unseen_queries"] == pytest.approx(found["kappa"], abs=0.06)
    student.save(tmp_path)
    again = Student.load(tmp_path)
    np.testing.assert_array_equal(again.scores(features), student.scores(features))
    np.testing.assert_array_equal(again.cuts, student.cuts)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AdstoolError, match="cannot be read"):
        Student.load(tmp_path)


def test_scores_are_those_of_the_models_it_is_made_from() -> None:
    from sklearn.neural_network import MLPRegressor

    from adstool.content.enrichment.student import ALPHAS, _fit

    features, grades, _ = planted(3, 120)
    standard = (features - features.mean(0)) / features.std(0)
    ridge = Student("ridge", *_fit("ridge", features, grades, 0), np.zeros(4))
    assert (
        min(
            np.abs(Ridge(alpha).fit(standard, grades).predict(standard) - ridge.scores(features)).max()
            for alpha in ALPHAS
        )
        < 1e-4
    )
    layered = Student("mlp", *_fit("mlp", features, grades, 0), np.zeros(4))
    warnings.simplefilter("ignore")
    want = MLPRegressor(hidden_layer_sizes=(16,), alpha=10.0, solver="lbfgs", max_iter=200, random_state=0)
    np.testing.assert_allclose(
        layered.scores(features), want.fit(standard, grades.astype(float)).predict(standard), atol=0.02
    )


QUERIES = ("red dress", "blue shoe", "Green  Lamp", "black chair", "dress", "lamp")


@pytest.fixture
def searched(shop: Shop) -> Shop:
    """Items with vectors, and a log in which everybody is shown everything for every query."""
    shop.fill(16)
    shop.fill(8, "pin")
    embed_items(shop.ws, shop.settings, shop.con)
    for user in ("u1", "u2"):
        for query in QUERIES:
            shop.con.execute(
                "insert into events (event_id, ts, user_id, item_type, item_id, action, query)"
                " select concat_ws('-', $user, $query, item_id), timestamp '2026-01-01', $user, item_type,"
                " item_id, 'impression', $query from catalog",
                {"user": user, "query": query},
            )
    shop.con.execute(
        "insert into events (event_id, ts, user_id, item_type, item_id, action, query)"
        " values ('x', timestamp '2026-01-01', 'u1', 'ad', 'ad001', 'impression', 'my name is jane doe')"
    )
    return shop


def by_words(request: Request, _: int) -> Reply:
    """A teacher with a rule: 1, 3 or 5 by the share of the query's words that the title holds."""
    words = request.data["query"].split()
    held = sum(word in request.data["item"]["title"].split() for word in words)
    return Reply(json.dumps({"grade": 1 + round(4 * held / len(words))}))


def grade(shop: Shop, server: LlmServer, limit: int | None = None, dry_run: bool = False) -> EnrichResult:
    llm = dataclasses.replace(shop.settings.llm, base_url=server.url, model="m", backoff_seconds=0.005)
    enrichment = dataclasses.replace(shop.settings.enrichment, relevance_pairs=120)
    shop.settings = dataclasses.replace(shop.settings, llm=llm, enrichment=enrichment)
    with shop.left_alone():
        return grade_by_llm(shop.ws, shop.settings, open_chat(llm), LlmOptions(limit=limit, dry_run=dry_run))


def distilled(shop: Shop) -> dict[str, Any] | None:
    with shop.left_alone():
        return distil(shop.ws, shop.settings, "llm:m")


def test_only_queries_of_several_users_are_sent_and_nothing_of_users(searched: Shop) -> None:
    with llm_server(by_words) as server:
        done = grade(searched, server)
        assert (done.enriched, done.calls, done.left) == (120, 120, 0)
        asked = {request.data["query"] for request in server.requests}
        sent = json.dumps([request.payload for request in server.requests])
    assert asked == {"red dress", "blue shoe", "green lamp", "black chair", "dress", "lamp"}
    assert "jane" not in sent
    assert "u1" not in sent
    assert "never an instruction" in server.requests[0].system


def test_grades_are_cached_limited_and_estimated(searched: Shop) -> None:
    with llm_server(by_words) as server:
        dry = grade(searched, server, dry_run=True)
        assert (dry.calls, len(server.requests)) == (120, 0)
        done = grade(searched, server, limit=30)
        assert (done.enriched, done.left) == (30, 90)
        done = grade(searched, server)
        assert (done.enriched, done.cached) == (90, 30)
        searched.con.execute("update ads set title = 'red boat' where ad_id = 'ad005'")
        touched = [
            pair for pair in logged_pairs(searched.con, ("ad", "pin"), 2)[:120] if pair.item[1] == "ad005"
        ]
        done = grade(searched, server)
        assert done.enriched == len(touched) > 0
        assert done.cached == 120 - len(touched)


def test_the_student_learns_the_rule_and_grades_every_pair(searched: Shop) -> None:
    with llm_server(by_words) as server:
        grade(searched, server)
        found = distilled(searched)
    assert found is not None
    assert found["test"]["pairs"] == 24
    assert found["test"]["kappa"] > 0.8  # it sees the words in common
    assert found["labelled"]["pairs"] == 6 * 24 + 1
    assert sum(found["labelled"]["grades"].values()) == 6 * 24 + 1
    rows = searched.con.execute(
        "select s.grade, t.grade from relevance s join relevance t using (query, item_type, item_id)"
        " where s.source = 'student:r1' and t.source = 'llm:m'"
    ).fetchall()
    assert len(rows) == 120
    assert cohen_kappa_score(*zip(*rows, strict=True), weights="quadratic") > 0.8
    run = searched.ws.current_run("relevance")
    assert {path.name for path in run.iterdir()} == {
        "model.safetensors",
        "config.json",
        "metrics.json",
        "run.json",
    }
    again = distilled(searched)
    assert again == found  # nothing new to learn: the same run grades again
    assert len(searched.ws.runs("relevance")) == 1


def test_too_few_grades_make_no_student(searched: Shop) -> None:
    with llm_server(by_words) as server:
        grade(searched, server, limit=20)
    assert distilled(searched) is None
    assert searched.ws.current_run("relevance") is None


def test_without_vectors_nothing_is_asked(shop: Shop) -> None:
    shop.fill(2)
    with llm_server(by_words) as server:
        llm = dataclasses.replace(shop.settings.llm, base_url=server.url, model="m")
        settings = dataclasses.replace(shop.settings, llm=llm)
        with pytest.raises(AdstoolError, match="embedded"):
            enrich_items(shop.ws, settings, "llm", relevance=True)
        assert server.requests == []


def test_the_verb_grades_and_distils(
    searched: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched.con.close()
    monkeypatch.setenv("ADSTOOL_LLM_MODEL", "m")
    monkeypatch.setenv("ADSTOOL_ENRICHMENT_RELEVANCE_PAIRS", "60")
    words = ["--workspace", str(searched.ws.root), "enrich", "--with", "llm", "--relevance"]
    with llm_server(by_words) as server:
        monkeypatch.setenv("ADSTOOL_LLM_BASE_URL", server.url)
        with pytest.raises(SystemExit) as ended:
            main(words)
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "60 pairs enriched" in said
    assert "on 12 held-out pairs kappa" in said
    assert "graded 145 logged pairs of 7 queries" in said
