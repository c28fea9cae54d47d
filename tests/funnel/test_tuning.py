"""`index --tune`: the measured choice is the right one, is used, and holds as long as the size does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import cli_json, run_cli

from adstool.funnel import ann, tuning
from adstool.funnel.ann import AnnChoice, ExactIndex, LanceIndex, build_ann, open_ann
from adstool.funnel.index import load_index
from adstool.funnel.tuning import Trial, chosen_before, layouts, probe_counts, tune
from adstool.workspace import Workspace, read_json, write_json


def clustered(rows: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in tight, far apart clusters and ten queries of the same, float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    drawn = centres[rng.integers(0, 20, rows + 10)] + 0.3 * rng.normal(size=(rows + 10, dim))
    drawn = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return drawn[:rows], drawn[rows:]


def test_a_small_catalogue_is_searched_exactly_and_the_reason_is_said(tmp_path: Path) -> None:
    vectors, queries = clustered(500, 8)
    found = tune(vectors, queries, 200, tmp_path / "scratch", 0.95)
    assert found.chosen == AnnChoice("exact")
    assert [trial.choice.kind for trial in found.trials] == ["exact"]
    assert found.trials[0].recall == 1.0
    assert "there is nothing to gain" in found.reason
    assert not (tmp_path / "scratch").exists()


def test_the_fastest_way_with_enough_recall_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured times replaced by constructed ones; recall is real."""
    vectors, queries = clustered(4000, 16)
    cost = {"exact": 9.0, "ivf": 8.0, "ivf_flat": 3.0, "ivf_sq": 2.0, "ivf_pq": 1.0, "hnsw_sq": 4.0}
    measure = tuning._measure

    def constructed(choice: AnnChoice, *rest: object) -> Trial:
        trial = measure(choice, *rest)  # type: ignore[arg-type]
        recall = 0.5 if choice.kind == "ivf_pq" else trial.recall  # the fastest, and not good enough
        return Trial(choice, recall, cost[choice.kind] + choice.probes / 1000, 0.0, 0.0)

    monkeypatch.setattr(tuning, "_measure", constructed)
    monkeypatch.setattr(tuning, "_least_time", lambda *_: 0.1)
    monkeypatch.setattr(tuning, "_final", lambda trials, *_: trials)
    found = tune(vectors, queries, 100, tmp_path / "scratch", 0.95)
    kinds = {trial.choice.kind for trial in found.trials}
    assert kinds == set(ann.KINDS)
    enough = [trial for trial in found.trials if trial.recall >= 0.95]
    assert found.chosen == min(enough, key=lambda trial: trial.p50_ms).choice
    assert found.chosen.kind == "ivf_sq"
    document = found.to_json()
    assert [row["kind"] for row in document["table"] if row["chosen"]] == ["ivf_sq"]
    cost.update(exact=2.0)  # an index that saves next to nothing is not worth having
    assert tune(vectors, queries, 100, tmp_path / "again", 0.95).chosen.kind == "exact"


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_sq", "ivf_pq", "hnsw_sq"])
def test_every_kind_finds_what_the_product_finds(tmp_path: Path, kind: str) -> None:
    vectors, queries = clustered(3000, 16)
    choice = AnnChoice(kind, 1 if kind == "hnsw_sq" else 20, 20, 4.0 if kind in ann.ROUGH else 1.0)
    build_ann(vectors, tmp_path, "v", choice)
    index = open_ann(choice, vectors, tmp_path, "v")
    assert isinstance(index, LanceIndex)
    random = np.random.default_rng(2).random(3000)
    far = vectors @ queries[4] < 0  # what the query would find is exactly what is not allowed
    for query, allowed in [*((query, random < 0.6) for query in queries[:4]), (queries[4], far)]:
        wanted, products = ExactIndex(vectors).search(query, 50, allowed)
        positions, scores = index.search(query, 50, allowed)
        assert len(positions) == 50
        assert allowed[positions].all()
        assert np.isin(wanted, positions).mean() >= 0.95
        assert (np.diff(scores) <= 0).all()
        assert scores == pytest.approx(vectors[positions] @ query, abs=1e-5)
        assert scores[:3] == pytest.approx(products[:3], abs=1e-5)
    for few in (random < 0.02, random < 0.002, random < 0.0):  # a very selective filter costs nothing
        positions, _ = index.search(queries[5], 50, few)
        assert positions.tolist() == ExactIndex(vectors).search(queries[5], 50, few)[0].tolist()


def test_times_of_the_finalists_are_of_one_and_the_same_stretch(tmp_path: Path) -> None:
    """A sweep that met a slow machine at one moment does not decide: those with enough recall run again."""
    vectors, queries = clustered(2000, 8)
    choice = AnnChoice("ivf_flat", 8, 8)
    build_ann(vectors, tmp_path, "ivf_flat_8", choice)
    poor = Trial(AnnChoice("ivf_flat", 8, 1), 0.2, 1e6, 1e6, 1.0)
    slow = [Trial(AnnChoice(), 1.0, 1e6, 1e6, 0.0), Trial(choice, 1.0, 1e6, 1e6, 2.0), poor]
    again = tuning._final(slow, vectors, queries, 100, tmp_path, 0.95)
    assert [trial.choice for trial in again] == [trial.choice for trial in slow]
    assert all(0 < trial.p50_ms <= trial.p90_ms < 1e5 for trial in again[:2])
    assert again[1].build_seconds == 2.0
    assert again[2] == poor


def test_what_is_tried_grows_with_the_data() -> None:
    for rows in (600, 20_000, 200_000, 2_000_000):
        for kind, partitions in layouts(rows):
            assert 1 <= partitions <= rows / 39
            counts = probe_counts(kind, partitions)
            assert counts == sorted(set(counts))
            assert counts[-1] == partitions
    assert "hnsw_sq" in dict(layouts(20_000))
    assert "hnsw_sq" not in dict(layouts(200_000))


def test_a_choice_holds_within_twice_the_size() -> None:
    choice = {"kind": "ivf_sq", "partitions": 9, "probes": 3, "refine": 2.0}
    document = {"rows": 1000, "dim": 8, "chosen": choice}
    assert chosen_before(document, 2000, 8) == AnnChoice("ivf_sq", 9, 3, 2.0)
    assert chosen_before(document, 500, 8) is not None
    assert chosen_before(document, 2001, 8) is None
    assert chosen_before(document, 499, 8) is None
    assert chosen_before(document, 1000, 16) is None  # other vectors
    assert chosen_before(None, 1000, 8) is None


def test_the_verb_measures_and_later_indexes_keep_the_choice(shop_copy: Workspace) -> None:
    shown = run_cli("--workspace", shop_copy.root, "index", "--tune")
    assert shown.returncode == 0, shown.stderr
    assert "two_tower: exact, at 60 items the exact product takes" in shown.stdout
    run = shop_copy.current_run("index")
    assert run is not None
    document = read_json(run / "index.json")
    assert document["tuning"]["clip"]["dim"] == 16
    assert document["tuning"]["two_tower"]["min_recall"] == 0.95
    # As if IVF_SQ had won for one source, and the other was measured on far fewer items.
    document["tuning"]["two_tower"]["chosen"] = {
        "kind": "ivf_sq",
        "partitions": 2,
        "probes": 2,
        "refine": 1.0,
    }
    document["tuning"]["clip"]["rows"] = 20
    write_json(run / "index.json", document)
    again = cli_json("--workspace", shop_copy.root, "index")
    assert again["sources"]["two_tower"]["index"] == "ivf_sq"
    assert again["sources"]["clip"]["index"] == "exact"
    assert set(again["tuning"]) == {"two_tower"}
    latest = shop_copy.current_run("index")
    assert latest is not None
    index = load_index(latest)
    query = index.corpus.two_tower[7]
    positions, _ = index.two_tower.search(query, 60, np.ones(60, dtype=bool))
    wanted, _ = ExactIndex(index.corpus.two_tower).search(query, 60, np.ones(60, dtype=bool))
    assert positions.tolist() == wanted.tolist()
