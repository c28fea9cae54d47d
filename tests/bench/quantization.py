"""Every way of quantizing, for the lightweight, engagement and conversion models, at two sizes.

    python tests/bench/quantization.py WORKSPACE [--seeds 3] [--models engagement] [--sizes demo,production]

Run by hand on a finished workspace, such as `adstool demo` makes; it is copied, not changed. Prints a table a
model and size: size and speed against ONNX Runtime in float32 (200 candidates, one thread, its own time), and
what is lost of normalized entropy, calibration and order on held-out rows; the mean over seeds of training,
with the largest loss of any seed. Then what int8 vectors of an index cost and save.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from adstool.config import Settings, load_settings
from adstool.errors import GateNotPassed
from adstool.funnel.index import build_index
from adstool.funnel.rank import Ranker
from adstool.serving.export import export_run
from adstool.serving.quantization import quantize_run
from adstool.serving.rows import Int8Rows
from adstool.training.train import TrainOptions, train_model
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

TRUNK = {"hidden": "1024,512,256", "cross_layers": "3", "cross_rank": "0"}  # over some 480 inputs
# Model -> size -> the preset ("": the default), and what is set beside it. The demo's own sizes train to
# their end. Of the lightweight ranker both sides are quantized: all there is of two towers ("small").
SIZES: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "lightweight": {
        "demo": ("", {}),
        "production": ("small", {"hidden": "512,256", "dim": "64", "mask_blocks": "0"}),
    },
    "engagement": {"demo": ("", {}), "production": ("", TRUNK)},
    "conversion": {"demo": ("", {}), "production": ("base", TRUNK)},
}
EPOCHS = {"demo": None, "production": 2}


def quantized(ws: Workspace, settings: Settings, model: str, size: str, seed: int) -> list[dict[str, Any]]:
    """The table of one trained run."""
    preset, overrides = SIZES[model][size]
    options = TrainOptions(preset, overrides, EPOCHS[size], None, seed, False)
    with open_warehouse(ws, settings) as con:
        train_model(ws, settings, con, model, options, export=export_run)
        try:
            result = quantize_run(ws, settings, con, model, compare=True)
        except GateNotPassed as refused:
            result = refused.result
    return list(result["table"])


def show(model: str, size: str, tables: list[list[dict[str, Any]]]) -> None:
    """One line a technique."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for table in tables:
        for row in table:
            rows[row["technique"]].append(row)
    print(f"\n{model}, {size}, {rows['fp32'][0]['bytes'] / 1e6:.2f} MB in float32, {len(tables)} seeds")
    print(f"{'technique':27}  size  ms p50   p99  speed      NE   worst  calib.  order  passes")
    for name, some in rows.items():
        mean = {key: float(np.mean([one[key] for one in some])) for key in some[0] if key in NUMBERS}
        worst = max(one["delta_ne"] for one in some)
        passes = f"{sum(one['passes'] for one in some)}/{len(some)}"
        print(
            f"{name:27} {mean['size_ratio']:5.0%} {mean['p50_ms']:7.2f} {mean['p99_ms']:5.2f} "
            f"{mean['speedup']:5.2f}x {mean['delta_ne']:+8.3%} {worst:+7.3%} "
            f"{mean['delta_calibration']:7.2%} {mean['topk_overlap']:6.1%} {passes:>7}"
        )


NUMBERS = ("size_ratio", "p50_ms", "p99_ms", "speedup", "delta_ne", "delta_calibration", "topk_overlap")


def vectors(ws: Workspace, settings: Settings) -> None:
    """The funnel with int8 vectors beside the same with float32, and the gathering of 2,000 among many."""
    kept: dict[str, list[set[int]]] = {}
    for form in ("float32", "int8"):
        index = dataclasses.replace(settings.index, vectors=form)
        chosen = dataclasses.replace(settings, index=index)
        with open_warehouse(ws, chosen) as con, ws.new_run("index") as run:
            made = build_index(ws, chosen, con, run)
        ranker = Ranker(ws, chosen, strict=True)
        users = ranker.index.state.users.column("user_id").to_pylist()[::5]
        requests = [ranker.parse({"user_id": user}) for user in users]
        ranked = [ranker.stages(request) for request in requests]
        kept[form] = [set(one.rows(ranker.index)[one.kept].tolist()) for one in ranked]
        size = sum((ranker.index.directory / f"{n}.npy").stat().st_size for n in ("two_tower", "lightweight"))
        light = float(np.median([one.latency_ms["lightweight"] for one in ranked]))
        print(f"\n{form}: {size / 1e3:.0f} kB of vectors, lightweight {light:.2f} ms, {made['vectors']}")
    same = [len(a & b) / max(len(a), 1) for a, b in zip(*kept.values(), strict=True)]
    print(f"kept by the lightweight ranker in both: {np.mean(same):.1%} of {len(same)} requests' candidates")
    rng = np.random.default_rng(0)
    for rows in (200_000, 1_000_000):
        whole = rng.standard_normal((rows, 64), dtype=np.float32)
        small = Int8Rows.of(whole)
        positions = [rng.choice(rows, 2000, replace=False) for _ in range(100)]
        for name, table, size in (("float32", whole, whole.nbytes), ("int8", small, bytes_of(small))):
            seconds = []
            for some in positions:
                started = time.thread_time()
                table[some]
                seconds.append(time.thread_time() - started)
            ms = np.median(seconds) * 1e3
            print(f"{rows:9,} rows of 64, {name}: {size / 1e6:.0f} MB, 2,000 in {ms:.2f} ms")


def bytes_of(rows: Int8Rows) -> int:
    """Bytes of codes and scales."""
    return rows.codes.nbytes + rows.scale.nbytes


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", default=",".join(SIZES))
    parser.add_argument("--sizes", default="demo,production")
    parser.add_argument("--no-vectors", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(shutil.copytree(asked.workspace, Path(folder) / "workspace")))
        settings = load_settings(ws.config)
        if not asked.no_vectors:
            vectors(ws, settings)
        for model in asked.models.split(","):
            for size in asked.sizes.split(","):
                tables = [quantized(ws, settings, model, size, seed) for seed in range(asked.seeds)]
                show(model, size, tables)


if __name__ == "__main__":
    main()
