"""`train engagement --engine ray`: two workers end where one process ends."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from support import cli_json, run_cli

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is an extra: adstool[ray]"
)


def write(path: Path, rows: int, seed: int) -> Path:
    """Clicks that follow site, device and a number."""
    rng = np.random.default_rng(seed)
    site, device, age = rng.integers(0, 30, rows), rng.integers(0, 3, rows), rng.normal(size=rows)
    taste = np.random.default_rng(99).normal(size=(30, 3))
    clicked = rng.random(rows) < 1 / (1 + np.exp(0.8 - taste[site, device] - 0.7 * age))
    lines = [f"s{s},d{d},{a:.4f},{int(c)}" for s, d, a, c in zip(site, device, age, clicked, strict=True)]
    path.write_text("\n".join(["site,device,age,clicked", *lines]) + "\n")
    return path


@needs_ray
def test_two_workers_reach_what_one_process_reaches(tmp_path: Path) -> None:
    files = (write(tmp_path / "train.csv", 5000, 0), write(tmp_path / "test.csv", 3000, 1))
    assert run_cli("init", tmp_path / "ws").returncode == 0
    words = ["--workspace", tmp_path / "ws", "train", "engagement", "--train", files[0], "--test", files[1]]
    words += ["--label", "clicked", "--epochs", "3", "--batch-size", "250"]
    for setting in ("hidden=16", "dropout=0", "id_dropout=0", "precision=fp32", "learning_rate=0.005"):
        words += ["--set", setting]
    local = cli_json(*words)
    spread = cli_json(*words, "--engine", "ray", "--workers", "2")
    assert spread.keys() == local.keys()
    assert spread["epochs"] == local["epochs"]
    for figure in ("auc", "log_loss"):
        expected = local["metrics"]["test"]["clicked"][figure]
        assert spread["metrics"]["test"]["clicked"][figure] == pytest.approx(expected, abs=1e-4)
    assert local["metrics"]["test"]["clicked"]["auc"] > 0.7
    runs = [tmp_path / "ws" / "models" / "flat" / name for name in ("r1", "r2")]
    assert {p.name for p in runs[0].iterdir()} == {p.name for p in runs[1].iterdir()}
    curves = [json.loads((run / "run.json").read_text())["curve"] for run in runs]
    for one, other in zip(*curves, strict=True):
        # Without dropout the two runs differ by the order of sums and by Adam's answer to it.
        assert other["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)
        assert other["valid_loss"] == pytest.approx(one["valid_loss"], abs=1e-4)
