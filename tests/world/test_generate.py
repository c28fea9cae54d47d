"""Worlds on disk: the same bytes for the same seed, whole or not there, nothing of the user's overwritten."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from world.conftest import CONFIG, Made

from adstool.errors import AdstoolError
from adstool.world.config import WorldConfig
from adstool.world.generate import generate

SMALL = WorldConfig(users=40, ads=40, pins=40, days=3, seed=1, requests_per_user_day=0.8, picture_size=16)


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file of a folder with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made: Made, tmp_path: Path) -> None:
    again = generate(CONFIG, tmp_path / "again")
    assert fingerprint(tmp_path / "again") == fingerprint(made.folder)
    assert again.tables["events"] == len(made.events)
    generate(SMALL, tmp_path / "one")
    generate(dataclasses.replace(SMALL, seed=2), tmp_path / "two")
    one, two = fingerprint(tmp_path / "one"), fingerprint(tmp_path / "two")
    assert one["ads.csv"] != two["ads.csv"]
    assert one["events-2026-11-02.jsonl.gz"] != two["events-2026-11-02.jsonl.gz"]


def assert_same_but_for_the_last_bits(left: pa.Table, right: pa.Table) -> None:
    assert left.schema == right.schema
    assert len(left) == len(right)
    for name in left.column_names:
        if pa.types.is_floating(left[name].type):
            assert left[name].is_null().equals(right[name].is_null()), name
            old, new = (table[name].to_numpy() for table in (left, right))
            np.testing.assert_allclose(new, old, rtol=1e-14, err_msg=name)
        else:
            assert left[name].equals(right[name]), name


def test_the_committed_world_is_what_its_settings_make(committed: Made, tmp_path: Path) -> None:
    """Contents, not bytes: another zlib or libpng may pack the same rows and pixels otherwise.

    Odds and medians are exponents and logarithms, whose last bit depends on the CPU; no event may.
    """
    generate(WorldConfig(), tmp_path / "world")
    there, here = committed.folder, tmp_path / "world"
    assert fingerprint(there).keys() == fingerprint(here).keys()
    for name in fingerprint(there):
        if name.endswith(".parquet"):
            assert_same_but_for_the_last_bits(pq.read_table(there / name), pq.read_table(here / name))
        elif name.endswith(".gz"):
            left, right = ((root / name).read_bytes() for root in (there, here))
            assert gzip.decompress(left) == gzip.decompress(right), name
        elif name.endswith(".png"):
            old, new = (np.asarray(Image.open(root / name).convert("RGB")) for root in (there, here))
            assert np.array_equal(old, new), name
        else:
            assert (there / name).read_bytes() == (here / name).read_bytes(), name
    assert sum(path.stat().st_size for path in there.rglob("*") if path.is_file()) < 8_000_000


def test_parquet_holds_the_same_log(tmp_path: Path) -> None:
    from world.conftest import load

    generate(SMALL, tmp_path / "lines")
    generate(dataclasses.replace(SMALL, log_format="parquet"), tmp_path / "columns")
    lines = load(tmp_path / "lines", SMALL).events
    columns = [
        row
        for p in sorted((tmp_path / "columns").glob("events-*.parquet"))
        for row in pq.read_table(p).to_pylist()
    ]
    assert len(lines) == len(columns) > 100
    for left, right in zip(lines, columns, strict=True):
        right["ts"] = right["ts"].strftime("%Y-%m-%dT%H:%M:%SZ")
        assert left == {key: value for key, value in right.items() if value is not None}


def test_again_is_nothing_and_other_settings_replace(tmp_path: Path) -> None:
    first = generate(SMALL, tmp_path / "world")
    before = fingerprint(tmp_path / "world")
    second = generate(SMALL, tmp_path / "world")
    assert second.unchanged
    assert second.tables == first.tables
    assert fingerprint(tmp_path / "world") == before
    third = generate(dataclasses.replace(SMALL, days=2), tmp_path / "world")
    assert not third.unchanged
    assert not (tmp_path / "world" / "events-2026-11-04.jsonl.gz").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(AdstoolError, match="was not made by adstool sample"):
        generate(SMALL, mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    generate(SMALL, tmp_path / "world")
    (tmp_path / "world" / "notes.md").write_text("mine too")
    with pytest.raises(AdstoolError, match=r"also notes\.md"):
        generate(dataclasses.replace(SMALL, seed=9), tmp_path / "world")
    assert (tmp_path / "world" / "notes.md").read_text() == "mine too"
    with pytest.raises(AdstoolError, match="is a file"):
        generate(SMALL, mine / "thesis.txt")
    (tmp_path / "empty").mkdir()
    assert generate(SMALL, tmp_path / "empty").tables["users"] == 40


def test_killed_in_the_middle_leaves_nothing_half_and_the_next_call_is_as_if_undisturbed(
    tmp_path: Path,
) -> None:
    code = (
        "from pathlib import Path; from adstool.world.config import WorldConfig\n"
        "from adstool.world.generate import generate\n"
        "import sys; generate(WorldConfig(users=400, ads=400, pins=400, days=4), Path(sys.argv[1]))"
    )
    target, partial = tmp_path / "world", tmp_path / ".world.partial"
    process = subprocess.Popen([sys.executable, "-c", code, str(target)])
    deadline = time.monotonic() + 60
    while not (partial / "images").is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert partial.is_dir()
    assert not target.exists()
    config = WorldConfig(users=400, ads=400, pins=400, days=4)
    generate(config, target)
    assert not partial.exists()
    generate(config, tmp_path / "other")
    assert fingerprint(target) == fingerprint(tmp_path / "other")


def test_a_day_without_requests_is_an_empty_file(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, users=10, days=2, requests_per_user_day=0.0)
    made = generate(config, tmp_path / "quiet")
    assert made.tables["events"] == 0
    assert len(list((tmp_path / "quiet").glob("events-*"))) == 2
