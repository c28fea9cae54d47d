"""The ranker without a history, with its mean, and with it read as a sequence, beside LightGBM.

    python tests/bench/sequences.py sample_data/world [--seeds 3] [--variants none,hstu,lightgbm]
    python tests/bench/sequences.py /path/to/ml-100k --source movielens

Run by hand; prints one table of the test split: NE and AUC of a head as mean and standard deviation over
seeds, training's epochs and rows a second, and the milliseconds of a request: 200 candidates of one user
through the exported graph, one thread, median of 200. `truth` is what no model can beat. ml-100k: see
movielens_peers.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from movielens_peers import examples_of, lightgbm_scores
from trunks import judged, line, truth_scores

from adstool.config import Settings
from adstool.features.dataset import Dataset
from adstool.models.engagement import EngagementConfig
from adstool.models.inputs import InputSpec, input_spec
from adstool.serving.export import export_run
from adstool.serving.scorer import Scorer, as_served
from adstool.training.engagement import PRESETS, EngagementTaskConfig, train_examples
from adstool.training.metrics import sigmoid
from adstool.training.options import TrainOptions, make_plan

# Name -> (preset, --set overrides).
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "no history": ("small", {"history_used": "0"}),
    "none": ("small", {}),  # the history as a mean weighted by the candidate
    "hstu": ("hstu", {}),
    "transact": ("transact", {}),
    "transact+long": ("transact", {"long_history": "16"}),
}
PEERS = ("truth", "lightgbm")
CANDIDATES, REQUESTS = 200, 200


def request_ms(data: Dataset, run: Path) -> float:
    """The median milliseconds of the exported model on the candidates of one request."""
    scorer = Scorer(run)
    start = data.splits["test"].start
    inputs = as_served(data.batch(slice(start, start + CANDIDATES), scorer.needs))
    seconds = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        scorer.raw(inputs)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)) * 1e3


def trained(
    data: Dataset, spec: InputSpec, settings: Settings, preset: str, overrides: dict[str, str], seed: int
) -> tuple[list[np.ndarray], tuple[float, float, float]]:
    """Test probabilities a head, and epochs, rows a second and milliseconds a request."""
    options = TrainOptions(preset=preset, seed=seed, overrides=overrides)
    plan = make_plan(settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        result = train_examples("engagement", spec, plan, data, data.encoder, run, options)
        export_run(run)
        with np.load(run / "predictions.npz") as stored:
            scores = list(sigmoid(stored["test_logits"]).T)
        return scores, (result.epochs, result.rows_per_second, request_ms(data, run))


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
        names = "".join(f"{name + ' NE, AUC':>33}" for name in spec.actions)
        print(f"{'':<16}{names}  epochs  rows/s  ms a request")
        if "truth" in wanted and (scores := truth_scores(root, settings, data, spec)):
            line("truth", [judged(data, spec, scores)])
        if "lightgbm" in wanted:
            peers = [lightgbm_scores(data, spec, head, "no ids")[0] for head in range(len(spec.actions))]
            line("lightgbm", [judged(data, spec, peers)])
        for name in [name for name in VARIANTS if name in wanted]:
            runs = [trained(data, spec, settings, *VARIANTS[name], seed) for seed in range(given.seeds)]
            epochs, rate, milliseconds = np.mean([facts for _, facts in runs], axis=0)
            rest = f"{epochs:>8.1f}{rate:>8,.0f}{milliseconds:>8.2f}"
            line(name, [judged(data, spec, scores) for scores, _ in runs], rest)


if __name__ == "__main__":
    main()
