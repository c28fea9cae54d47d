"""What content does for ads of their first day: the same world with content features and without.

    python tests/bench/cold_start.py sample_data/world [--seeds 3] [--requests 2000] [--set key=value]

Run by hand; prints one table. Both arms have the same log, split and seeds; without content, models have no
vectors, no similarity and no source of neighbours. Intervals resample users; the mean is over seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from adstool.config import Settings, load_settings
from adstool.content.embedding import embed_items
from adstool.evaluation.context import Evaluation
from adstool.evaluation.engagement import evaluate_engagement
from adstool.evaluation.retrieval import evaluate_retrieval
from adstool.funnel.index import build_index
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.serving.export import export_run
from adstool.training.calibration import calibrate_run
from adstool.training.train import TrainOptions, train_model
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

SLICES = ("item created in the last day", "item first shown in the last day", "item never shown in training")
Figures = dict[str, tuple[float, Any]]


def arm(ws: Workspace, settings: Settings, con: Any, seed: int, overrides: dict[str, str]) -> Figures:
    """Train, index and evaluate once; figures by name with their intervals."""
    for model in ("retrieval", "lightweight", "engagement"):
        chosen = overrides if model == "engagement" else {}
        train_model(ws, settings, con, model, TrainOptions(overrides=chosen, seed=seed), export=export_run)
    calibrate_run(ws.require_run("engagement", ""))
    with ws.new_run("index") as run:
        build_index(ws, settings, con, run)
    evaluation = Evaluation(ws, settings, con)
    found: Figures = {}
    stage = evaluate_engagement(evaluation)
    named = [("all", stage["heads"])] + [
        (name, stage["slices"].get(name, {}).get("heads", {})) for name in SLICES
    ]
    for name, heads in named:
        if "click" in heads:
            head = heads["click"]
            found[f"click AUC, {name} ({head['rows']:,} rows)"] = head["auc"], head["intervals"]["auc"]
            found[f"click NE, {name}"] = head["ne"], head["intervals"]["ne"]
    retrieval = evaluate_retrieval(evaluation)
    for source in ("two_tower", "merged"):
        figures = retrieval["merged"] if source == "merged" else retrieval["sources"][source]
        for k in (10, 50, 100):
            for kind, count in (("recall", "wanted"), ("fresh_recall", "fresh_wanted")):
                name = f"{kind}@{k}"
                if name in figures:
                    label = f"{source} {name} ({retrieval[count]:,} wanted)"
                    found[label] = figures[name], figures["intervals"].get(name)
    return found


def main() -> None:
    """Measure both arms and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[], help="key=value of the engagement model")
    given = parser.parse_args()
    overrides = dict(pair.split("=", 1) for pair in given.set)
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder))
        (ws.root / "adstool.toml").touch()
        settings = load_settings(ws.config, {"evaluation.requests": given.requests})
        bare = dataclasses.replace(settings, features=dataclasses.replace(settings.features, content=False))
        results: dict[str, dict[str, list[tuple[float, Any]]]] = {
            "with": defaultdict(list),
            "without": defaultdict(list),
        }
        with open_warehouse(ws, settings) as con:
            ingest(con, ws, [str(given.world)], IngestOptions())
            embed_items(ws, settings, con)
            for seed in range(given.seeds):
                for name, chosen in (("with", settings), ("without", bare)):
                    for label, figure in arm(ws, chosen, con, seed, overrides).items():
                        results[name][label].append(figure)
    print(f"{'':62}{'with content':>24}{'without':>24}{'difference, by seed':>28}")
    for label, measured in results["with"].items():
        other = results["without"][label]
        gains = [a[0] - b[0] for a, b in zip(measured, other, strict=True)]
        print(
            f"{label:62}{shown(measured):>24}{shown(other):>24}   ",
            " ".join(f"{gain:+.4f}" for gain in gains),
        )


def shown(figures: list[tuple[float, Any]]) -> str:
    """The mean over seeds, with the interval of the first."""
    mean = float(np.mean([value for value, _ in figures]))
    low, high = figures[0][1] or (float("nan"), float("nan"))
    return f"{mean:.4f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main()
