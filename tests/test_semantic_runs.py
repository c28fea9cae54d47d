"""Runs of codebooks: the verb, when they are kept and when they are made again, pairs from the log."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from support import cli_json, run_cli

from adstool.config import SemanticIdsSettings, Settings
from adstool.content.codebooks import Codebooks, load_semantic_ids
from adstool.content.semantic_ids import refresh_semantic
from adstool.content.semantic_quality import engaged_pairs
from adstool.content.vectors import ActiveModel, ItemVectors, VectorTable, load_vectors, set_active_model
from adstool.errors import AdstoolError
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def test_the_verb_makes_a_run_and_says_how_good_it_is(shop_copy: Workspace) -> None:
    made = cli_json("--workspace", shop_copy.root, "train", "semantic", "--set", "size=8", "--seed", "3")
    assert {"model", "run_id", "metrics", "parameters", "rows_per_second", "seconds"} <= set(made)
    assert (made["model"], made["run_id"], made["sizes"]) == ("semantic", "r2", [8, 8, 8])
    assert set(made["metrics"]["train"]["2"]) >= {"relative_mse", "cosine", "perplexity", "dead", "purity"}
    run = shop_copy.require_run("semantic", "")
    assert {path.name for path in run.iterdir()} == {
        "codebooks.npz",
        "config.json",
        "metrics.json",
        "run.json",
    }
    assert json.loads((run / "metrics.json").read_text()) == made["metrics"]
    assert made["parameters"] == Codebooks.load(run).parameters == 3 * 8 * 16
    shown = run_cli("--workspace", shop_copy.root, "train", "semantic")
    assert shown.returncode == 0
    assert "perplexity" in shown.stdout
    assert "Next: adstool train retrieval" in shown.stdout
    wrong = run_cli("--workspace", shop_copy.root, "train", "semantic", "--epochs", "3")
    assert wrong.returncode == 2
    assert "--preset kmeans or rqvae" in wrong.stderr


def test_without_vectors_the_verb_names_what_is_missing(tmp_path: Path) -> None:
    run_cli("init", tmp_path / "shop")
    done = run_cli("--workspace", tmp_path / "shop", "train", "semantic")
    assert done.returncode == 1
    assert "adstool ingest" in done.stderr
    with open_warehouse(Workspace(tmp_path / "shop"), Settings()):
        pass  # an empty one
    done = run_cli("--workspace", tmp_path / "shop", "train", "semantic")
    assert done.returncode == 1
    assert "adstool embed" in done.stderr


def test_codebooks_stay_while_they_fit(shop_copy: Workspace, settings: Settings) -> None:
    _, array = load_vectors(shop_copy, "ad")
    table = VectorTable.open(shop_copy, "ad", "by-category")
    assert table is not None

    def add(prefix: str, vectors: np.ndarray) -> None:
        rows = [
            ItemVectors(f"{prefix}{n}", f"{prefix}{n}", f"{prefix}{n}", None, None, None, v, v)
            for n, v in enumerate(vectors)
        ]
        table.write(rows, replacing=False)

    with open_warehouse(shop_copy, settings) as con:
        assert refresh_semantic(shop_copy, settings, con).kept
        add("like", array[:20])  # more of the same
        again = refresh_semantic(shop_copy, settings, con)
        assert (again.kept, again.run_id) == (True, "r1")
        off = dataclasses.replace(settings, semantic_ids=SemanticIdsSettings(features=0))
        assert refresh_semantic(shop_copy, off, con).kept  # who reads them does not change them
        deeper = dataclasses.replace(settings, semantic_ids=SemanticIdsSettings(levels=4))
        assert refresh_semantic(shop_copy, deeper, con).run_id == "r2"
        strange = np.random.default_rng(0).normal(size=(60, array.shape[1])).astype(np.float32)
        add("other", strange / np.linalg.norm(strange, axis=1, keepdims=True))
        drifted = refresh_semantic(shop_copy, deeper, con)
        assert (drifted.kept, drifted.run_id) == (False, "r3")
        add("many", np.repeat(array, 6, axis=0))
        assert refresh_semantic(shop_copy, deeper, con).run_id == "r4"


def test_codebooks_of_another_model_are_not_used(
    shop_copy: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_semantic_ids(shop_copy) is not None
    set_active_model(shop_copy, ActiveModel("other", "other", "", 16))
    with caplog.at_level("WARNING", logger="adstool"):
        assert load_semantic_ids(shop_copy) is None
    assert "adstool train semantic" in caplog.text
    with pytest.raises(AdstoolError, match="of vectors of by-category, not of other"):
        load_semantic_ids(shop_copy, "r1")


def test_pairs_are_what_a_user_engaged_with_within_a_day(shop_copy: Workspace, settings: Settings) -> None:
    events = [  # user, item, hour, action
        ("u", "a", 0, "click"),
        ("u", "b", 24, "click"),
        ("u", "c", 25, "save"),
        ("u", "a", 1, "save"),
        ("u", "b", 2, "hide"),
        ("v", "b", 5, "click"),
        ("v", "a", 3, "click"),
        ("v", "gone", 3, "click"),
        ("w", "a", 4, "click"),
    ]
    with open_warehouse(shop_copy, settings) as con:
        con.execute("delete from events")
        for number, (user, item, hour, action) in enumerate(events):
            con.execute(
                "insert into events by name select $id as event_id, $user as user_id, 'ad' as item_type,"
                " timestamp '2026-01-01' + to_hours($hour) as ts, $item as item_id, $action as action",
                {"id": str(number), "hour": hour, "user": user, "item": item, "action": action},
            )
        pairs = engaged_pairs(con, [("ad", "a"), ("ad", "b"), ("ad", "c"), ("pin", "a")], ["click", "save"])
    # u: a (0 h, 1 h) with b (24 h), a (1 h) with c (25 h), b with c; v: a with b. b was hidden, not wanted.
    assert pairs.tolist() == [[0, 1, 2], [0, 2, 1], [1, 2, 1]]
