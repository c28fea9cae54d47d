"""The order in which rows are trained on, and the reading of batches ahead of the arithmetic."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Rows = NDArray[np.int64]

BLOCK = 4096  # neighbouring rows that are read together
WINDOW = 1 << 20  # rows shuffled among each other at a time
LEAST_BLOCKS = 16  # of a window: neighbours in time are much alike, so that fewer would hardly be a shuffle
HELD = 700_000_000  # bytes that torch, a model and its batches take beside the rows
PREDICTED = 8192  # rows predicted at once
FEW = 2_000_000_000  # bytes, below which what a model holds of so many rows counts


def window_rows(rows: int, mapped_bytes: int, available: int | None) -> int:
    """How many rows `epoch_batches` shuffles among each other, WINDOW at most.

    mapped_bytes: of the memory-mapped arrays that the rows are read from; available: bytes this process may
    use, None where nothing tells. A window that the page cache does not hold would be read from disk anew for
    every batch: where less than twice the arrays is left beside HELD, a window takes a quarter of what is.
    """
    if available is None or not mapped_bytes or 2 * mapped_bytes <= available - HELD:
        return WINDOW
    fitting = max(available - HELD, 0) // 4 * rows // mapped_bytes
    return min(max(fitting // BLOCK, LEAST_BLOCKS) * BLOCK, WINDOW)


def predicted_rows(available: int | None) -> int:
    """How many rows are predicted at once: PREDICTED, a quarter of it where `available` bytes are few."""
    return PREDICTED // 4 if available is not None and available < FEW else PREDICTED


def epoch_batches(
    rows: int, batch_size: int, rng: np.random.Generator, block: int = BLOCK, window: int = WINDOW
) -> Iterator[Rows]:
    """Every row once, in random order, as index arrays of `batch_size` (the last may be shorter).

    Blocks of neighbouring rows are permuted, then rows within windows of many blocks: data larger than memory
    is read from disk a window at a time, and up to `window` rows the shuffle is a full one.
    """
    blocks = rng.permutation((rows + block - 1) // block)
    per_window = max(window // block, 1)
    left = np.empty(0, dtype=np.int64)
    for start in range(0, len(blocks), per_window):
        firsts = np.sort(blocks[start : start + per_window]) * block
        index = (firsts[:, None] + np.arange(block)).ravel()
        index = index[index < rows]
        rng.shuffle(index)
        index = np.concatenate([left, index])
        whole = len(index) // batch_size * batch_size
        yield from index[:whole].reshape(-1, batch_size)
        left = index[whole:]
    if len(left):
        yield left


def batch_count(rows: int, batch_size: int) -> int:
    """How many batches `epoch_batches` gives."""
    return (rows + batch_size - 1) // batch_size


def prefetch(jobs: Iterator[Callable[[], T]], ahead: int = 2) -> Iterator[T]:
    """The results of `jobs`, in order, each made in a background thread up to `ahead` before it is asked for.

    An exception of a job is raised here, where its result would have come.
    """
    done: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: tuple[str, T | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                done.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for job in jobs:
                if not put(("item", job())):
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    thread = threading.Thread(target=work, name="adstool-batches", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = done.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
