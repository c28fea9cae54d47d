"""Every trunk and every kind of heads on one data set, beside LightGBM and the true rates of a world.

    python tests/bench/trunks.py sample_data/world [--seeds 3] [--variants dcnv2,wukong,lightgbm]
    python tests/bench/trunks.py /path/to/ml-100k --source movielens

Run by hand; prints one table of the test split: NE and AUC a head as mean and standard deviation over seeds,
the epochs, and rows a second of training. `truth` is what no model can beat: the NE of the rates that the
world drew from. ml-100k: see movielens_peers.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from movielens_peers import examples_of, lightgbm_scores

from adstool.config import Settings
from adstool.evaluation.truth import locate_truth, true_probabilities
from adstool.features.dataset import Dataset
from adstool.models.engagement import EngagementConfig
from adstool.models.inputs import InputSpec, input_spec
from adstool.training.engagement import PRESETS, EngagementTaskConfig, train_examples
from adstool.training.metrics import auc, normalized_entropy, sigmoid
from adstool.training.options import TrainOptions, make_plan
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

# Name -> (preset, --set overrides).
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "dcnv2": ("small", {}),
    "masknet": ("masknet", {}),
    "dhen": ("dhen", {}),
    "wukong": ("wukong", {}),
    "dcnv2+towers": ("small", {"tower_hidden": "32"}),
    "dcnv2+mmoe": ("small", {"multitask": "mmoe", "tower_hidden": "32"}),
    "dcnv2+surfaces": ("small", {"surface_towers": "true"}),
}
PEERS = ("truth", "lightgbm no ids", "lightgbm all")

Scores = list[np.ndarray]  # a head, the probabilities of the test rows; nan where not known


def truth_scores(root: Path, settings: Settings, data: Dataset, spec: InputSpec) -> Scores:
    """The true rates of the test rows; none where the data comes from no world."""
    with open_warehouse(Workspace(root), settings) as con:
        folder = locate_truth(con, settings)
        if folder is None:
            return []
        rates = true_probabilities(con, folder, data, data.splits["test"], spec.actions)
    rows = data.splits["test"].stop - data.splits["test"].start
    return [rates.get(head, np.full(rows, np.nan)) for head in spec.actions]


def trained(data: Dataset, spec: InputSpec, settings: Settings, name: str, seed: int) -> tuple[Scores, Any]:
    """Test probabilities a head of one variant, and the result of its training."""
    preset, overrides = VARIANTS[name]
    options = TrainOptions(preset=preset, seed=seed, overrides=overrides)
    plan = make_plan(settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    with tempfile.TemporaryDirectory() as folder:
        result = train_examples("engagement", spec, plan, data, data.encoder, Path(folder), options)
        with np.load(Path(folder) / "predictions.npz") as stored:
            return list(sigmoid(stored["test_logits"]).T), result


def judged(data: Dataset, spec: InputSpec, scores: Scores) -> list[tuple[float, float]]:
    """NE and AUC a head, on the test rows whose label and score are known."""
    found = []
    for head, probability in enumerate(scores):
        labels = np.asarray(data.labels[data.splits["test"], head])
        known = ~np.isnan(labels) & ~np.isnan(probability)
        y, p = labels[known], probability[known]
        found.append((normalized_entropy(y, p), auc(y, p)) if known.any() else (np.nan, np.nan))
    return found


def line(name: str, runs: list[list[tuple[float, float]]], rest: str = "") -> None:
    """One row of the table: the mean over seeds and, of several, the standard deviation."""
    values = np.asarray(runs)  # [seeds, heads, 2]
    mean, spread = values.mean(axis=0), values.std(axis=0)
    cells = [f"{m[0]:.4f} ±{s[0]:.4f} {m[1]:.4f} ±{s[1]:.4f}" for m, s in zip(mean, spread, strict=True)]
    print(f"{name:<16}" + "".join(f"{cell:>33}" for cell in cells) + rest, flush=True)


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", default="none", help="a public format of ingest, or none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", default=",".join((*PEERS, *VARIANTS)), help="comma-separated")
    given = parser.parse_args()
    wanted = given.variants.split(",")
    unknown = sorted(set(wanted) - set(VARIANTS) - set(PEERS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join((*PEERS, *VARIANTS))}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings, data = examples_of(given.folder, None if given.source == "none" else given.source, root)
        spec = input_spec(data)
        print(f"{len(data.labels):,} examples, test {data.splits['test']}")
        print(f"{'':<16}" + "".join(f"{name + ' NE, AUC':>33}" for name in spec.actions) + "  epochs  rows/s")
        if "truth" in wanted and (scores := truth_scores(root, settings, data, spec)):
            line("truth", [judged(data, spec, scores)])
        for use in ("no ids", "all"):
            if f"lightgbm {use}" in wanted:
                heads = range(len(spec.actions))
                line(
                    f"lightgbm {use}",
                    [judged(data, spec, [lightgbm_scores(data, spec, head, use)[0] for head in heads])],
                )
        runs: dict[str, list[Any]] = defaultdict(list)
        for name in [name for name in VARIANTS if name in wanted]:
            for seed in range(given.seeds):
                runs[name].append(trained(data, spec, settings, name, seed))
            epochs = np.mean([result.epochs for _, result in runs[name]])
            rate = np.mean([result.rows_per_second for _, result in runs[name]])
            line(
                name, [judged(data, spec, scores) for scores, _ in runs[name]], f"{epochs:>8.1f}{rate:>8,.0f}"
            )


if __name__ == "__main__":
    main()
