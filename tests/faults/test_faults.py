"""A seeded sample of tests/bench/faults.py: cheap verbs killed, signalled, out of disk, without rights."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from faults import harness, state
from faults.harness import Blow, Ended, Limits, Verbs

from adstool.workspace import Workspace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness counts changes by inotify")

WORLD = ("--users", "40", "--ads", "30", "--pins", "30", "--days", "3", "--seed", "3")


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    return Verbs(tmp_path / "printed")


def events(count: int, start: int = 0) -> str:
    event = {"ts": "2026-11-11T10:00:00Z", "user_id": "u1", "item_type": "ad", "item_id": "a1"}
    rows = [{**event, "event_id": f"e{start + i}", "action": "click"} for i in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows) + "{no json\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two catalogues and two logs, a row of each log refused."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "users.csv").write_text("user_id,country\nu1,DE\n,FR\n")
    (folder / "ads.csv").write_text("ad_id,campaign_id,title\na1,c1,Lamp\n")
    (folder / "events-1.jsonl").write_text(events(2000))
    (folder / "events-2.jsonl").write_text(events(2000, start=1000))
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "adstool.toml").write_text("")
    return root


def explained(done: Ended, *words: str) -> None:
    """One message with what to try, and no traceback."""
    assert done.code == 1, done.err
    assert done.err.count("error: ") == 1
    assert "\n  try: " in done.err
    assert "Traceback" not in done.err
    assert "--debug" not in done.err
    for word in words:
        assert word in done.err


def kill_often(
    verbs: Verbs, words: list[str | Path], root: Path, times: int, undisturbed: Ended, seed: int = 0
) -> int:
    """Kill a verb at seeded changes of its folder, one after another; how often it was still at work."""
    rng, struck = random.Random(seed), 0
    for _ in range(times):
        blow = Blow(signal.SIGKILL, change=rng.randint(1, undisturbed.changes))
        struck += verbs.run(words, root, blow=blow, watch=root).code == -signal.SIGKILL
    return struck


def test_ingest_killed_again_and_again_ends_as_undisturbed(
    verbs: Verbs, logs: Path, empty: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(empty, tmp_path / "other"))
    undisturbed = verbs.run(["ingest", logs], other, watch=other)
    assert undisturbed.code == 0, undisturbed.err
    assert kill_often(verbs, ["ingest", logs], empty, 4, undisturbed) >= 2
    assert verbs.run(["ingest", logs], empty).code == 0
    assert state.differences(state.state_of(empty), state.state_of(other)) == []
    assert state.rows_of(empty)["events"] == 3000
    assert state.rows_of(empty)["rejects"] == 3
    assert state.leftovers(empty) == []


def test_a_warehouse_cut_off_at_its_birth_is_born_again(verbs: Verbs, logs: Path, empty: Path) -> None:
    done = verbs.run(["ingest", logs], empty, blow=Blow(signal.SIGKILL, change=3), watch=empty)
    assert done.code == -signal.SIGKILL
    assert not (empty / "warehouse.duckdb").exists()
    assert verbs.run(["ingest", logs], empty).code == 0
    assert state.leftovers(empty) == []


def test_sample_and_init_killed_leave_nothing_half(verbs: Verbs, tmp_path: Path) -> None:
    for words, name in ((["sample", "made", *WORLD], "made/world.json"), (["init", "."], "adstool.toml")):
        root, other = tmp_path / f"{words[0]}-1", tmp_path / f"{words[0]}-2"
        root.mkdir()
        other.mkdir()
        undisturbed = verbs.run(words, other, watch=other)
        assert undisturbed.code == 0, undisturbed.err
        rng = random.Random(1)
        for _ in range(2):
            blow = Blow(signal.SIGKILL, change=rng.randint(1, undisturbed.changes))
            verbs.run(words, root, blow=blow, watch=root)
            assert not (root / name).exists() or state.state_of(root) == state.state_of(other)
        assert verbs.run(words, root).code == 0
        assert state.differences(state.state_of(root), state.state_of(other)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_interruption_with_a_word(
    number: signal.Signals, verbs: Verbs, logs: Path, empty: Path
) -> None:
    done = verbs.run(["ingest", logs], empty, blow=Blow(number, change=5), watch=empty)
    assert done.code == 130, done.err
    assert done.err == "error: Interrupted.\n  try: The same command goes on from here.\n"
    assert state.leftovers(empty) == []
    assert (empty / ".lock").read_text() == ""


def test_a_full_disk_is_explained_and_nothing_half_stays(verbs: Verbs, logs: Path, empty: Path) -> None:
    """A limit of the size of files stands for a small disk, which only root could make."""
    for size in (20_000, 200_000):
        explained(verbs.run(["ingest", logs], empty, limits=Limits(file_bytes=size)), "The disk took no more")
    assert verbs.run(["ingest", logs], empty).code == 0
    assert state.leftovers(empty) == []
    assert state.rows_of(empty)["events"] == 3000
    target = empty / "events.csv"
    words = ["sql", "select * from events", "--output", target]
    explained(verbs.run(words, empty, limits=Limits(file_bytes=5_000)), "events.csv")
    assert not target.exists()


def test_a_forbidden_file_is_named(verbs: Verbs, logs: Path, empty: Path) -> None:
    assert verbs.run(["ingest", logs / "users.csv"], empty).code == 0
    for target in (empty / "warehouse.duckdb", empty / ".lock"):
        with harness.read_only(target):
            done = verbs.run(["ingest", logs], empty, limits=Limits(powerless=True))
        explained(done, str(target), "Permission denied")
    assert verbs.run(["ingest", logs], empty, limits=Limits(powerless=True)).code == 0
    assert state.rows_of(empty)["events"] == 3000


def test_a_writer_takes_away_what_a_killed_one_left(shop_copy: Workspace) -> None:
    ws = shop_copy
    gone = [ws.root, ws.models / "engagement" / ".partial", ws.cache / "examples", ws.reports]
    ours = []
    for folder in gone:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".file.json.99999999.tmp").touch()
        (folder / ".quantize-ab.99999999.tmp").mkdir()
        ours.append(folder / f".file.json.{os.getpid()}.tmp")
        ours[-1].touch()
    (ws.models / "engagement" / ".partial" / ".tmp0qkr53").touch()
    lance = next(ws.vectors.glob("*.lance/data"))
    (lance / ".tmpAbC123").touch()
    stranger = ws.root / ".tmp-notes"
    stranger.touch()
    with ws.lock(0.0):
        pass
    assert not list(ws.root.rglob(".*.99999999.tmp"))
    assert not (lance / ".tmpAbC123").exists()
    assert not list(ws.models.rglob(".tmp0qkr53"))
    assert all(path.exists() for path in [*ours, stranger])  # of a process that lives, and not of ours


def test_a_training_killed_at_its_checkpoint_ends_with_the_same_weights(
    verbs: Verbs, shop_copy: Workspace
) -> None:
    """What `run` and `demo` rest on; they are killed whole by tests/bench/faults.py --only run (or demo)."""
    words = ["train", "lightweight", "--epochs", "6", "--seed", "5"]
    partial = shop_copy.models / "lightweight" / ".partial"
    pid, printed = verbs.start(words, shop_copy.root)
    deadline = time.monotonic() + 100
    while not (partial / "checkpoint.safetensors").exists():
        assert time.monotonic() < deadline, printed[1].read_text()
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (shop_copy.models / "lightweight" / "current").read_text() == "r1\n"
    again = verbs.run(["--verbose", *words], shop_copy.root)
    assert again.code == 0, again.err
    assert "Going on with lightweight" in again.err
    assert verbs.run(words, shop_copy.root).code == 0
    weights = [run / "model.safetensors" for run in shop_copy.runs("lightweight")[1:]]
    assert len(weights) == 2
    assert weights[0].read_bytes() == weights[1].read_bytes()
