"""Our engagement model beside LightGBM and popularity: the same examples, features, split and machine.

    python tests/bench/movielens_peers.py /path/to/ml-100k [--seeds 3]
    python tests/bench/movielens_peers.py sample_data/world --source none

Run by hand; prints one table. AUC comes with a 95 % interval from resampling users; LightGBM stops early on
the same validation split. MovieLens: `pip download --no-deps recbole==1.2.1`, dataset_example/ml-100k in it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from adstool.config import Settings, load_settings
from adstool.features.dataset import Dataset
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.models.engagement import EngagementConfig
from adstool.models.inputs import InputSpec, input_spec
from adstool.training.data import load_training_data
from adstool.training.engagement import PRESETS, EngagementTaskConfig, train_examples
from adstool.training.metrics import auc, log_loss, normalized_entropy, sigmoid
from adstool.training.options import TrainOptions, make_plan
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

ROUNDS = 1000
PARAMETERS = {"objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 100}


def examples_of(folder: Path, source: str | None, root: Path) -> tuple[Settings, Dataset]:
    """The examples of a folder, ingested (our own formats: and embedded) into a workspace of its own."""
    actions = '[[actions]]\nname = "click"\n' if source == "movielens" else ""
    (root / "adstool.toml").write_text(actions, encoding="utf-8")
    ws = Workspace(root)
    settings = load_settings(ws.config)
    with open_warehouse(ws, settings) as con:
        ingest(con, ws, [str(folder)], IngestOptions(source=source))
        if source is None:
            from adstool.content.embedding import embed_items

            embed_items(ws, settings, con, images=None)
        return settings, load_training_data(ws, settings, con)


def interval(labels: np.ndarray, scores: np.ndarray, users: np.ndarray, resamples: int = 200) -> str:
    """The 95 % interval of the AUC over resampled users."""
    rng = np.random.default_rng(0)
    order = np.argsort(users, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(users[order])) + 1)
    values = []
    for _ in range(resamples):
        chosen = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        values.append(auc(labels[chosen], scores[chosen]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f"{low:.4f}-{high:.4f}"


def lightgbm_scores(data: Dataset, spec: InputSpec, head: int, use: str) -> tuple[np.ndarray, float]:
    """Test predictions of LightGBM on `all` columns, or on those without `ids`, or on the `numeric` ones."""
    categorical, numeric = np.asarray(data.categorical), np.asarray(data.numeric)
    ids = {"user_id", "item_id", "campaign_id", "advertiser_id"}
    kept = [
        i for i, name in enumerate(spec.categorical) if use == "all" or (use == "no ids" and name not in ids)
    ]
    table = np.ascontiguousarray(np.concatenate([categorical[:, kept], numeric], axis=1))
    labels = np.asarray(data.labels[:, head])
    train, valid, test = (data.splits[name] for name in ("train", "valid", "test"))
    started = time.perf_counter()
    columns: Any = list(range(len(kept))) or "auto"
    model = lightgbm.train(
        {**PARAMETERS, "verbose": -1, "seed": 0},
        lightgbm.Dataset(table[train], labels[train], categorical_feature=columns),
        ROUNDS,
        valid_sets=[lightgbm.Dataset(table[valid], labels[valid])],
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    seconds = time.perf_counter() - started
    return np.asarray(model.predict(table[test])), seconds


def popularity_scores(data: Dataset, head: int) -> np.ndarray:
    """The smoothed rate of every item in the training split, for the rows of the test split."""
    train, test = data.splits["train"], data.splits["test"]
    labels = np.nan_to_num(data.labels[train, head])
    items = data.item_row[train]
    shown = np.bincount(items, minlength=len(data.items.content))
    engaged = np.bincount(items, labels, minlength=len(data.items.content))
    rate = labels.mean()
    return np.asarray(((engaged + 20 * rate) / (shown + 20))[data.item_row[test]])


def ours(
    data: Dataset, spec: InputSpec, settings: Settings, seed: int, preset: str
) -> tuple[np.ndarray, Any]:
    """Test probabilities of every head, and the result of training."""
    options = TrainOptions(preset=preset, seed=seed)
    plan = make_plan(settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    with tempfile.TemporaryDirectory() as folder:
        result = train_examples("engagement", spec, plan, data, data.encoder, Path(folder), options)
        with np.load(Path(folder) / "predictions.npz") as stored:
            return sigmoid(stored["test_logits"]), result


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", default="movielens", help="a public format of ingest, or none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--presets", default="small", help="of our model, comma-separated")
    given = parser.parse_args()
    source = None if given.source == "none" else given.source
    with tempfile.TemporaryDirectory() as root:
        settings, data = examples_of(given.folder, source, Path(root))
        spec = input_spec(data)
        test = data.splits["test"]
        print(
            f"{len(data.labels):,} examples, {len(spec.categorical)} categorical, {len(spec.numeric)} numeric"
        )
        runs = {
            (preset, seed): ours(data, spec, settings, seed, preset)
            for preset in given.presets.split(",")
            for seed in range(given.seeds)
        }
        users = np.asarray(data.user[test])
        print(
            f"{'head':<12}{'model':<24}{'AUC':>8}{'95 %':>16}{'NE':>8}{'log loss':>10}{'rows/s':>10}{'s':>7}"
        )
        for head, name in enumerate(spec.actions):
            labels = np.asarray(data.labels[test, head])
            rows: list[tuple[str, np.ndarray, float, float]] = []
            rows.append(("popularity", popularity_scores(data, head), 0.0, 0.0))
            for use in ("all", "no ids", "numeric"):
                scores, seconds = lightgbm_scores(data, spec, head, use)
                rows.append((f"LightGBM {use}", scores, 0.0, seconds))
            for (preset, seed), (scores, result) in runs.items():
                label = f"adstool {preset} seed {seed}"
                rows.append((label, scores[:, head], result.rows_per_second, result.seconds))
            for label, scores, rate, seconds in rows:
                known = ~np.isnan(labels)
                y, p = labels[known], scores[known]
                print(
                    f"{name:<12}{label:<24}{auc(y, p):>8.4f}{interval(y, p, users[known]):>16}"
                    f"{normalized_entropy(y, p):>8.4f}{log_loss(y, p):>10.4f}{rate:>10,.0f}{seconds:>7.1f}"
                )


if __name__ == "__main__":
    main()
