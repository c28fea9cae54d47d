"""`train` and `calibrate` on a warehouse, as a user runs them: end to end, and killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support import cli_json, run_cli

QUICK = ("--set", "hidden=32", "--set", "history_used=5", "--epochs", "3", "--batch-size", "512")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that holds a small synthetic world."""
    folder = tmp_path_factory.mktemp("world")
    sizes = ("--users", "200", "--ads", "80", "--pins", "60", "--days", "6", "--seed", "3")
    assert run_cli("sample", folder / "files", *sizes).returncode == 0
    assert run_cli("init", folder / "ws").returncode == 0
    done = run_cli("--workspace", folder / "ws", "ingest", folder / "files")
    assert done.returncode == 0, done.stderr
    return folder / "ws"


def test_every_model_trains_and_the_rankers_calibrate(world: Path) -> None:
    where = ("--workspace", world)
    retrieval = cli_json(*where, "train", "retrieval", "--epochs", "3", "--set", "negatives=64")
    assert retrieval["metrics"]["test"]["rows"] > 0
    assert 0 <= retrieval["metrics"]["test"]["popular_recall@10"] <= 1
    result = cli_json(*where, "train", "engagement", *QUICK)
    assert {"model", "run_id", "metrics", "parameters", "rows_per_second", "seconds"} <= result.keys()
    heads = result["metrics"]["test"]
    assert set(heads) == {"click", "long_click", "save", "hide"}
    assert heads["click"]["positives"] > 20
    run = world / "models" / "engagement" / result["run_id"]
    for name in (
        "model.safetensors",
        "config.json",
        "features.json",
        "metrics.json",
        "run.json",
        "model.onnx",
    ):
        assert (run / name).is_file(), name
    assert not (run / "checkpoint.safetensors").exists()
    calibrated = cli_json(*where, "calibrate", "engagement")
    assert calibrated["before"].keys() == calibrated["after"].keys() == heads.keys()
    assert (run / "calibration.json").is_file()
    # The pipeline knows what was done by hand.
    planned = cli_json(*where, "run", "--dry-run")["stages"]
    state = {stage["name"]: stage["reason"] for stage in planned}
    assert "never done" not in (state["retrieval"], state["engagement"], state["calibrate"])
    conversion(world)
    people = run_cli(*where, "train", "lightweight", "--epochs", "1")
    assert people.returncode == 0, people.stderr
    assert "Next: adstool train engagement" in people.stdout


def conversion(world: Path) -> None:
    """Every figure of conversions, on clicks that have matured; calibrated; and its own options."""
    where = ("--workspace", world)
    words = ("--delay", "fnw", "--loss", "escm2-dr", "--epochs", "2")
    result = cli_json(*where, "train", "conversion", *QUICK, *words)
    test = result["metrics"]["test"]
    config = json.loads((world / "models/conversion" / result["run_id"] / "config.json").read_text())
    kinds = set(config["kinds"])
    assert {"checkout", "add_to_cart"} <= kinds
    assert set(test) == {"click", "all kinds", "value"} | kinds | {f"{kind} & click" for kind in kinds}
    assert test["all kinds"]["rows"] == test["click"]["positives"] == test["checkout"]["rows"] > 20
    assert test["all kinds"]["positives"] == sum(test[kind]["positives"] for kind in kinds)
    assert 0.3 < test["all kinds"]["calibration"] < 3
    assert config["task"]["delay"] == "fnw"
    assert len(config["value_scales"]) == len(kinds)
    calibrated = cli_json(*where, "calibrate", "conversion")
    assert set(calibrated["after"]) == {"click"} | kinds
    for wrong in (("engagement", "--delay", "fnw"), ("conversion", "--delay", "soon")):
        refused = run_cli(*where, "train", *wrong)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr


def test_killed_and_repeated_ends_like_undisturbed(world: Path, tmp_path: Path) -> None:
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    for folder in (calm, cut):
        shutil.copytree(world, folder, ignore=shutil.ignore_patterns("models"))
    words = ("train", "engagement", *QUICK, "--set", "checkpoint_seconds=0", "--seed", "4")
    command = [sys.executable, "-m", "adstool", "--workspace", str(cut), *words]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = cut / "models" / "engagement" / ".partial" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file():
        assert time.monotonic() < deadline
        assert victim.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (cut / "models" / "engagement" / "current").exists()
    resumed = cli_json("--workspace", cut, *words)
    undisturbed = cli_json("--workspace", calm, *words)
    assert resumed["resumed"]
    assert not undisturbed["resumed"]
    assert resumed["metrics"] == undisturbed["metrics"]
    weights = [load_file(ws / "models" / "engagement" / "r1" / "model.safetensors") for ws in (calm, cut)]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_an_empty_warehouse_says_what_to_do(tmp_path: Path) -> None:
    assert run_cli("init", tmp_path / "ws").returncode == 0
    done = run_cli("--workspace", tmp_path / "ws", "train", "engagement")
    assert done.returncode == 1
    assert "try:" in done.stderr
    assert "Traceback" not in done.stderr
    missing = run_cli("--workspace", tmp_path / "ws", "calibrate", "engagement")
    assert missing.returncode == 1
    assert "adstool train engagement" in missing.stderr
