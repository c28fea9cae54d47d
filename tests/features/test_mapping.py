"""Arrays in files: a large one that is read here and there is read page by page, as the kernel tells."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from adstool.features import mapping


def read_at_random(path: Path) -> bool:
    """Whether the kernel reads no neighbours of the pages of this process's map of the file."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith(str(path)))
    return " rr" in next(line for line in lines[at:] if line.startswith("VmFlags"))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how a file is mapped")
@pytest.mark.parametrize(
    ("available", "scattered", "expected"),
    [(799_000, True, True), (801_024, True, False), (None, True, False), (1, False, False)],
)
def test_what_memory_cannot_keep_is_read_by_the_page(
    available: int | None, scattered: bool, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "array.npy"
    values = np.arange(25_000, dtype=np.float32)  # an eighth of 800,000 bytes
    np.save(path, values)
    monkeypatch.setattr(mapping, "available_bytes", lambda: available)
    array = mapping.mapped(path, scattered=scattered)
    assert type(array) is np.ndarray
    assert np.array_equal(array, values)
    assert read_at_random(path) == expected
