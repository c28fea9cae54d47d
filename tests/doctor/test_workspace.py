"""What doctor finds of a workspace: each problem is made, finding and mend are seen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from findings import is_fault, is_fit, is_odd, of
from support import held_by_another

from adstool.config import ContentSettings, Settings
from adstool.doctor import examine, files, models
from adstool.warehouse import put_aside
from adstool.workspace import Workspace, write_json, write_text

Patch = pytest.MonkeyPatch


class Facts:
    f_files, f_favail = 100_000, 12
    free = 2**20


def test_little_room_in_bytes_and_in_files(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Facts)
    monkeypatch.setattr(os, "statvfs", lambda _: Facts, raising=False)
    found = list(files.space_checks(tmp_path))
    is_fault(of("disk", found), "0.0 GB free", "Free 2 GB")
    is_fault(of("files on disk", found), "12 more files", "du --inodes")


@pytest.mark.parametrize(
    ("kind", "found", "mend"),
    [
        ("nfs4", "locks may not hold", "ADSTOOL_WORKSPACE"),
        ("9p", "locks", "this machine"),
        ("tmpfs", "restarts", "disk"),
    ],
)
def test_a_disk_that_is_not_of_this_machine_or_vanishes(
    monkeypatch: Patch, ws: Workspace, tmp_path: Path, kind: str, found: str, mend: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nserver:/x {ws.root} {kind} rw 0 0\nproc {ws.root}/elsewhere proc rw 0 0\n"
    )
    monkeypatch.setattr(files, "MOUNTS", mounts)
    is_odd(files.file_system(ws), found, mend)
    mounts.write_text("/dev/a / ext4 rw 0 0\n")
    is_fit(files.file_system(ws))


def test_a_workspace_that_may_not_be_written(monkeypatch: Patch, ws: Workspace) -> None:
    ws.models.mkdir()
    shut = {ws.models}
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) not in shut)  # root may write everywhere
    is_fault(files.writable(ws), f"{ws.models} may not be written", "chmod -R u+w")


def test_a_lock_that_another_process_holds(ws: Workspace) -> None:
    with held_by_another(ws.root, "Workspace(path).lock()") as holder:
        is_odd(files.lock(ws), f"process {holder}", "Wait for it to end")
    is_fit(files.lock(ws))


def test_funnel_log_put_aside_and_what_of_it_is_damaged(ws: Workspace) -> None:
    is_fit(files.spool(ws))
    put_aside(ws, {"funnel": pa.table({"request_id": ["q1"]})})
    (folder,) = ws.spool.iterdir()
    assert files.spool(ws).found.endswith("wait for the warehouse: 1")
    kept = folder.rename(folder.with_suffix(".damaged"))
    is_odd(files.spool(ws), str(kept), f"rm -r {kept}")


def test_what_killed_runs_left(ws: Workspace) -> None:
    is_fit(files.leftovers(ws))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, ours = ws.root / f".adstool.toml.{gone.pid}.tmp", ws.root / f".current.{os.getpid()}.tmp"
    left.touch()
    ours.touch()
    is_odd(files.leftovers(ws), f"1 of killed runs: {left.name}", f"rm -r {left}")
    partial = ws.models / "engagement" / ".partial"
    partial.mkdir(parents=True)
    assert "1 of" in files.leftovers(ws).found  # a run of today may still go on
    os.utime(partial, (time.time() - 10 * files.OLD_SECONDS,) * 2)
    is_odd(files.leftovers(ws), "2 of killed runs", "adstool train engagement goes on with it")


@pytest.mark.parametrize(
    ("text", "environment", "found", "mend"),
    [
        ("[funnel]\nretreive = 3\n", {}, "unknown setting 'funnel.retreive'", "funnel.retrieve"),
        ("", {"ADSTOOL_FUNEL_SLATE": "3"}, "ADSTOOL_FUNEL_SLATE", "funnel"),
        ("", {"ADSTOOL_FUNNEL_SLAT": "3"}, "ADSTOOL_FUNNEL_SLAT", "funnel.slate"),
        ("[funnel", {}, "not valid TOML", "Mend"),
    ],
)
def test_settings_and_variables_misspelt(
    monkeypatch: Patch, ws: Workspace, text: str, environment: dict[str, str], found: str, mend: str
) -> None:
    write_text(ws.config, text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("adstool.doctor.machine_checks", lambda: iter(()))
    checks = examine(ws.root)
    is_fault(of("settings", checks), found, mend)
    assert [check.name for check in checks if not check.ok] == ["settings"]


def test_runs_that_are_gone_unfinished_or_not_calibrated(ws: Workspace) -> None:
    folder = ws.models / "engagement"
    (folder / ".partial").mkdir(parents=True)
    is_odd(models.one_model(ws, folder), "unfinished", "adstool train engagement")
    (folder / ".partial").rename(folder / "r1")
    is_fault(models.one_model(ws, folder), "no run in use", "adstool train engagement")
    write_text(folder / "current", "r1\n")
    is_odd(models.one_model(ws, folder), "as trained", "adstool calibrate engagement")
    write_json(folder / "r1" / "calibration.json", {})
    is_odd(models.one_model(ws, folder), "full precision", "adstool quantize engagement")
    write_json(folder / "r1" / "quantization.json", {})
    is_fit(models.one_model(ws, folder))
    write_text(folder / "current", "r9\n")
    is_fault(models.one_model(ws, folder), "is gone: r9", "adstool train engagement")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "json", "npy", "parquet", "npz"])
def test_a_damaged_file_of_a_run(shop: Workspace, tmp_path: Path, kind: str) -> None:
    source = next(path for path in sorted(shop.models.rglob(f"*.{kind}")) if path.stat().st_size > 8)
    run = tmp_path / "r1"
    run.mkdir()
    copy = run / source.name
    copy.write_bytes(source.read_bytes())
    (run / f".{kind}.1.tmp").mkdir()  # of a killed verb: no part of the run
    (run / f".{kind}.1.tmp" / f"half.{kind}").write_bytes(b"")
    assert list(models.damaged(run)) == []
    cut(copy)
    assert [str(copy) in found for found in models.damaged(run)] == [True]


def test_an_index_of_other_models(shop_copy: Workspace) -> None:
    is_fit(of("index", models.index(shop_copy)))
    old = shop_copy.models / "lightweight" / "r1"
    new = old.with_name("r2")
    old.rename(new)
    is_fault(of("index", models.index(shop_copy)), "lightweight r1, which is gone", "adstool index")
    old.mkdir()
    shop_copy.set_current("lightweight", "r2")
    is_odd(of("index", models.index(shop_copy)), "older than lightweight r2", "adstool index")


def test_vectors_damaged_or_of_another_model(shop_copy: Workspace) -> None:
    is_fit(of("vectors", models.vectors(shop_copy, Settings())))
    other = Settings(content=ContentSettings(model="ViT-B-32", pretrained="x"))
    is_odd(of("vectors", models.vectors(shop_copy, other)), "content.model is ViT-B-32", "adstool embed")
    table = shop_copy.vectors / "ads__by-category.lance"
    for path in (table / "data").iterdir():
        path.unlink()
    is_fault(of("vectors", models.vectors(shop_copy, Settings())), "is damaged", f"rm -r {table}")
