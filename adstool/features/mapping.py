"""Arrays in files, memory-mapped."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from adstool.warehouse.memory import available_bytes

LARGE = 8  # an array of more than this part of memory is read page by page


def mapped(path: Path, *, scattered: bool = False) -> np.ndarray:
    """The array of a .npy file, memory-mapped; a plain array, whose indexing costs less than np.memmap's.

    scattered: as `read_scattered` has it.
    """
    array = np.load(path, mmap_mode="r")
    if scattered:
        read_scattered(array)
    return np.asarray(array)


def read_scattered(array: np.memmap) -> None:
    """Tell the system that rows are read here and there, where memory is too small to keep the array.

    For each it then reads the page that is asked for, not 32 of which the others are dropped unread.
    """
    available = available_bytes()
    if available is not None and array.nbytes > available // LARGE and hasattr(mmap, "MADV_RANDOM"):
        array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
