"""What DuckDB may use: limits of container, ulimit and settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adstool.config import load_settings
from adstool.warehouse import memory
from adstool.warehouse.memory import A_THREAD, MB, duckdb_limits

GB = 1000 * MB


def limits(**flags: object) -> dict[str, str | int]:
    return duckdb_limits(load_settings(None, {f"warehouse.{key}": value for key, value in flags.items()}, {}))


@pytest.mark.parametrize(
    ("available", "cores", "limit", "threads"),
    [
        (64 * GB, 2, "1000MB", 2),
        (64 * GB, 32, "8000MB", 32),
        (1 * GB, 2, "250MB", 2),
        (2 * GB, 32, "500MB", 5),
        (200 * MB, 4, "50MB", 1),
        (0, 4, "1MB", 1),
        (None, 4, "1000MB", 4),  # nothing is told
    ],
)
def test_a_quarter_of_what_there_is(
    monkeypatch: pytest.MonkeyPatch, available: int | None, cores: int, limit: str, threads: int
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    monkeypatch.setattr(memory, "_cores", lambda: cores)
    assert limits() == {"memory_limit": limit, "threads": threads}
    assert limits(memory_limit="3GB", threads=7) == {"memory_limit": "3GB", "threads": 7}
    assert limits(memory_limit="3GB")["threads"] == cores
    assert A_THREAD * limits()["threads"] <= max(A_THREAD, int(limit.removesuffix("MB")) * MB)  # type: ignore[operator]


def test_the_least_of_all_groups_counts(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("memory.max", "900000000\n")  # of a root above all, as containers see it
    write("a/memory.max", "max\n")
    write("a/b/memory.max", "700000000\n")
    write("memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("memory/a/memory.limit_in_bytes", "800000000\n")
    mine = tmp_path / "cgroup"
    for text, wanted in (
        ("0::/a/b\n", [700_000_000, 900_000_000]),
        ("0::/not/here\n", [900_000_000]),
        ("5:cpu,memory:/a\n3:cpu:/x\n", [800_000_000]),
        ("", []),
    ):
        mine.write_text(text)
        assert sorted(memory._containers(tmp_path, mine)) == wanted
    assert list(memory._containers(tmp_path, tmp_path / "none")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v limits nothing elsewhere")
def test_ulimit_counts_beside_what_is_mapped() -> None:
    program = (
        "import resource; from adstool.warehouse.memory import available_bytes as free;"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, resource.RLIM_INFINITY));"
        "before = free(); import mmap; held = mmap.mmap(-1, 10**9); print(before - free())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(told.stdout) == pytest.approx(10**9, rel=0.02)
