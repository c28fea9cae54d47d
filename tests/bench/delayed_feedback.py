"""What conversions that are yet to be reported do to a model, by how they are allowed for.

    adstool sample w5 --users 3000 --ads 600 --pins 300 --days 42 --seed 5      (and w6, w7)
    python tests/bench/delayed_feedback.py w5 w6 w7 [--delays none,es-dfm] [--work DIR] [--set key=value]

Run by hand. Worlds: trains the conversion model at the same cut-off with each method, a training seed a
world, and prints calibration (predicted over observed conversions of the matured clicks after the cut-off),
AUC and NE of the kinds' mean, weighed by positives. oracle is told what became of every click before the
cut-off: no method can do better.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from adstool.config import load_settings
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.training.conversion import train_conversion
from adstool.training.options import TrainOptions
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, write_text

DELAYS = ("none", "fnw", "es-dfm", "dfm", "elapsed", "oracle")
FIGURES = ("calibration", "auc", "ne", "ctcvr", "value")


def figures_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of one run on its test part; the kinds' mean weighs by positives."""
    test = metrics["test"]
    kinds = [name.removesuffix(" & click") for name in test if name.endswith(" & click")]
    kinds = [kind for kind in kinds if test[kind]["positives"]]
    weights = np.array([test[kind]["positives"] for kind in kinds])
    found = {
        name: float(np.dot([test[kind][name] for kind in kinds], weights) / weights.sum())
        for name in ("auc", "ne")
    }
    joint = [test[f"{kind} & click"] for kind in kinds]
    predicted = sum(one["calibration"] * one["positives"] for one in joint)
    return {
        "calibration": test["all kinds"]["calibration"],
        "ctcvr": predicted / weights.sum(),
        "value": test["value"]["calibration"],
        **found,
    }


def run_world(
    world: Path, seed: int, delays: list[str], overrides: dict[str, str], root: Path
) -> dict[str, Any]:
    """Figures by delay of one world."""
    ws = Workspace(root)
    if not ws.config.is_file():
        write_text(ws.config, "")
    settings = load_settings(ws.config, environment={})
    found: dict[str, Any] = {}
    with open_warehouse(ws, settings) as con:
        ingest(con, ws, [str(world)], IngestOptions())  # nothing new where the folder was kept
        for delay in delays:
            clock = time.perf_counter()
            options = TrainOptions(seed=seed, overrides={**overrides, "delay": delay})
            with tempfile.TemporaryDirectory() as folder:
                result = train_conversion(ws, settings, con, Path(folder), options)
            found[delay] = figures_of(result.metrics)
            whole = result.metrics["test"]["all kinds"]
            shown = "  ".join(f"{name} {found[delay][name]:.3f}" for name in FIGURES)
            print(
                f"{world.name:>10} {delay:>7}  {shown}  clicks {whole['rows']:,}  conversions "
                f"{whole['positives']:,}  epochs {result.best_epoch}/{result.epochs}  "
                f"{time.perf_counter() - clock:.0f} s",
                flush=True,
            )
    return found


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Mean and standard deviation over worlds."""
    print(f"\n{'delay':>8}" + "".join(f"{name:>20}" for name in FIGURES))
    for delay, runs in found.items():
        columns = [np.array([run[name] for run in runs]) for name in FIGURES]
        print(f"{delay:>8}" + "".join(f"{c.mean():>12.3f} ± {c.std():.3f}" for c in columns))


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("worlds", nargs="*", type=Path, help="folders that adstool sample wrote")
    parser.add_argument("--delays", default=",".join(DELAYS))
    parser.add_argument("--work", type=Path, help="keep workspaces here, to go on with them")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    overrides = dict(word.split("=", 1) for word in args.set)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed, world in enumerate(args.worlds):
        with tempfile.TemporaryDirectory() as folder:
            root = args.work / world.name if args.work else Path(folder)
            figures = run_world(world, seed, args.delays.split(","), overrides, root)
            for delay, one in figures.items():
                found[delay].append(one)
    if found:
        show(found)


if __name__ == "__main__":
    main()
