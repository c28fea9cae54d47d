"""Semantic ids measured: how good they are by method and size, and what they do as features of the rankers.

    python tests/bench/semantic_ids.py sample_data/world [--sizes 16,32,64] [--seeds 3] [--requests 2000]

Run by hand; prints two tables. The first is of the codebooks alone, with `--methods kmeans,rqvae`; the second
of the same models with the columns of semantic ids and without, same log, split and seeds (`--seeds 0` leaves
it out).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from cold_start import arm, shown

from adstool.config import Settings, load_settings
from adstool.content.embedding import embed_items
from adstool.content.semantic_ids import train_semantic
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

KEYS = (
    "relative_mse",
    "cosine",
    "perplexity",
    "dead",
    "prefixes",
    "collisions",
    "purity",
    "popularity_matched",
)


def quality(ws: Workspace, settings: Settings, con: Any, methods: list[str], sizes: list[str]) -> None:
    """Print a row a method, size and level; `new` is the error left of items held out."""
    print(
        f"{'method':8}{'size':>6}{'level':>6}" + "".join(f"{key:>20}" for key in KEYS) + f"{'new':>8}{'s':>7}"
    )
    for method in methods:
        for size in sizes:
            made = train_semantic(ws, settings, con, {"method": method, "size": size})
            for level, figures in made.metrics["train"].items():
                new = made.metrics["test"].get(level, {}).get("relative_mse", float("nan"))
                row = "".join(f"{figures.get(key, float('nan')):>20.4f}" for key in KEYS)
                print(
                    f"{method:8}{made.sizes[0]:>6}{level:>6}{row}{new:>8.3f}{made.seconds:>7.1f}", flush=True
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path)
    parser.add_argument("--methods", default="kmeans,rqvae")
    parser.add_argument("--sizes", default="0", help="0: what the size of the catalogue gives")
    parser.add_argument("--features", type=int, default=1, help="prefixes that the models read")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder))
        (ws.root / "adstool.toml").touch()
        settings = load_settings(ws.config, {"evaluation.requests": given.requests})
        arms = {
            name: dataclasses.replace(
                settings, semantic_ids=dataclasses.replace(settings.semantic_ids, features=features)
            )
            for name, features in (("with", given.features), ("without", 0))
        }
        results: dict[str, dict[str, list[tuple[float, Any]]]] = {name: defaultdict(list) for name in arms}
        with open_warehouse(ws, settings) as con:
            ingest(con, ws, [str(given.world)], IngestOptions())
            embed_items(ws, settings, con)
            quality(ws, settings, con, given.methods.split(","), given.sizes.split(","))
            train_semantic(ws, settings, con)
            for seed in range(given.seeds):
                for name, chosen in arms.items():
                    for label, figure in arm(ws, chosen, con, seed, {}).items():
                        results[name][label].append(figure)
    for label, measured in results["with"].items():
        other = results["without"][label]
        gains = " ".join(f"{a[0] - b[0]:+.4f}" for a, b in zip(measured, other, strict=True))
        print(f"{label:62}{shown(measured):>24}{shown(other):>24}    {gains}")


if __name__ == "__main__":
    main()
