"""Workspaces: finding one, the write lock, whole model runs and atomic files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adstool.errors import AdstoolError, WorkspaceLocked, refused_by_disk
from adstool.workspace import (
    Workspace,
    find_workspace,
    mapped_array,
    read_json,
    whole_file,
    write_json,
    write_text,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "adstool.toml").write_text("")
    return Workspace(tmp_path)


def test_the_nearest_folder_upward_is_found(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = workspace.root / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.delenv("ADSTOOL_WORKSPACE", raising=False)
    assert find_workspace().root == workspace.root.resolve()


def test_the_environment_names_a_workspace_and_a_flag_beats_it(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "adstool.toml").write_text("")
    monkeypatch.setenv("ADSTOOL_WORKSPACE", str(workspace.root))
    assert find_workspace().root == workspace.root.resolve()
    assert find_workspace(other).root == other.resolve()


def test_no_workspace_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADSTOOL_WORKSPACE", raising=False)
    with pytest.raises(AdstoolError, match=r"adstool\.toml") as caught:
        find_workspace()
    assert "adstool init" in caught.value.hint


HOLD = """
import sys, time
from pathlib import Path
from adstool.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock(5):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_writes_and_a_killed_one_leaves_no_lock(workspace: Workspace) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkspaceLocked, match=f"process {holder.pid}"), workspace.lock(0.2):
            pass
    finally:
        holder.kill()
        holder.wait()
    begun = time.monotonic()
    with workspace.lock(5):
        assert time.monotonic() - begun < 4


def _write_and_fail(run: Path) -> None:
    write_text(run / "config.json", "{}")
    write_text(run / "metrics.json", 3)  # type: ignore[arg-type]


def test_a_run_is_published_whole_or_not_at_all(workspace: Workspace) -> None:
    with workspace.new_run("engagement") as run:
        write_text(run / "config.json", "{}")
    assert workspace.current_run("engagement") == workspace.models / "engagement" / "r1"
    with pytest.raises(TypeError), workspace.new_run("engagement") as run:
        _write_and_fail(run)
    current = workspace.current_run("engagement")
    assert current is not None
    assert current.name == "r1"
    assert [path.name for path in workspace.runs("engagement")] == ["r1"]
    with workspace.new_run("engagement") as run:
        assert list(run.iterdir()), "an unfinished run waits for the next attempt"
    assert [path.name for path in workspace.runs("engagement")] == ["r1", "r2"]


def test_runs_are_listed_oldest_first_beyond_nine(workspace: Workspace) -> None:
    for _ in range(11):
        with workspace.new_run("index"):
            pass
    assert [run.name for run in workspace.runs("index")] == [f"r{n}" for n in range(1, 12)]


def test_json_without_numbers_that_json_lacks(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert read_json(tmp_path / "x.json") == {"a": None, "b": [None, 1.5]}
    (tmp_path / "x.json").write_text("{broken")
    with pytest.raises(AdstoolError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def _write_half(path: Path) -> None:
    path.write_bytes(b"sec")
    raise OSError("the disk is full")


def test_a_file_whose_writing_fails_stays_as_it_was_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"first")
    with pytest.raises(OSError, match="full"), whole_file(path) as temporary:
        _write_half(temporary)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="blocks cannot be reserved here")
def test_a_mapped_array_that_the_disk_does_not_take_is_an_error_and_no_death(tmp_path: Path) -> None:
    array = mapped_array(tmp_path / "a.npy", "float32", (3, 2))
    assert (array == 0).all()
    array[1] = 5
    assert mapped_array(tmp_path / "none.npy", "int8", (0,)).shape == (0,)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    with pytest.raises(OSError, match=r"too large|No space|Cannot allocate|Invalid"):
        mapped_array(tmp_path / "b.npy", "float32", (1 << 50,))


@pytest.mark.parametrize("words", ["7680 requested and 4064 written", "IO Error: No space left on device"])
def test_a_full_disk_is_known_by_whatever_words(words: str) -> None:
    refused = refused_by_disk(OSError(words))
    assert refused is not None
    assert refused.message.startswith(f"The disk took no more: {words}")
    assert refused_by_disk(ValueError("no such column")) is None
