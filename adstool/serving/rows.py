"""Matrices row by row in fewer bits: tables of embeddings, and the vectors of an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adstool.workspace import write_array

LEVELS = 15  # steps of four bits
STEPS = 40  # parts of a row's range, by which it shrinks
LEAST = 0.5  # of the range, beyond which it does not
CHUNK = 65_536  # rows at once, so that memory stays flat


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 rows and a float16 scale a row [rows, 1], so that row = q * scale with |error| <= scale / 2."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    # The scale is rounded to float16 first, and up, so that the largest number of a row is not cut off.
    scale = (largest / 127.0).astype(np.float16)
    short = scale.astype(np.float32) * 127.0 < largest
    scale = np.where(short, np.nextafter(scale, np.float16(np.inf)), scale)
    scale = np.where(largest > 0, scale, np.float16(1.0)).astype(np.float16)
    rows = np.rint(table / scale.astype(np.float32))
    return np.clip(rows, -127, 127).astype(np.int8), scale


@dataclass(frozen=True)
class Int8Rows:
    """A float32 matrix [n, d] kept in int8 with a scale a row; what is read of it comes as float32.

    codes: int8 [n, d]; scale: float16 [n, 1]. Both may be memory-mapped.
    """

    codes: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> Int8Rows:
        """The matrix, every number rounded to 127 steps of its row's largest."""
        return cls(*quantize_rows(matrix))

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, d]."""
        return tuple(self.codes.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.codes[rows] * self.scale[rows].astype(np.float32))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        """Products with other [d] or [d, m], some rows at a time."""
        made = np.empty((len(self), *other.shape[1:]), dtype=np.float32)
        for start in range(0, len(self), CHUNK):
            made[start : start + CHUNK] = self[start : start + CHUNK] @ other
        return made

    def take(self, rows: np.ndarray, axis: int = 0) -> Int8Rows:
        """These rows in this order, as they are kept; axis must be 0, as of an array."""
        return Int8Rows(self.codes.take(rows, axis=axis), self.scale.take(rows, axis=axis))


Rows = np.ndarray | Int8Rows  # a matrix [n, d], whichever way it is kept


def save_rows(path: Path, rows: Rows) -> None:
    """Write a matrix as .npy, atomically; of int8 rows the scales first, into <name>.scale.npy beside it."""
    if isinstance(rows, Int8Rows):
        save_rows(path.with_suffix(".scale.npy"), rows.scale)
    write_array(path, rows.codes if isinstance(rows, Int8Rows) else rows)


def load_rows(path: Path) -> Rows:
    """What `save_rows` wrote, memory-mapped; raises OSError, EOFError or ValueError when damaged."""
    matrix = np.asarray(np.load(path, mmap_mode="r"))
    if matrix.dtype != np.int8:
        return matrix
    scale = np.asarray(np.load(path.with_suffix(".scale.npy"), mmap_mode="r"))
    if scale.shape != (len(matrix), 1):
        raise ValueError(f"{path.name} has {len(matrix)} rows and scales of shape {scale.shape}")
    return Int8Rows(matrix, scale)


@dataclass(frozen=True)
class Nibbles:
    """Rows of four bits a number: row = q * scale + offset, q from 0 to 15.

    packed: uint8 [rows, width / 2], number j in the low half of byte j and number width / 2 + j in the high
    half, so that unpacking is two operations and a concatenation. line: float16 [rows, 2], scale and offset.
    """

    packed: np.ndarray
    line: np.ndarray

    def unpack(self) -> np.ndarray:
        """float32 [rows, width]."""
        halves = np.concatenate([self.packed & LEVELS, self.packed >> 4], axis=1)
        scale, offset = np.split(self.line.astype(np.float32), 2, axis=1)
        return np.asarray(halves * scale + offset, dtype=np.float32)


def quantize_rows_to_4_bits(table: np.ndarray) -> Nibbles:
    """Four-bit rows of a table [rows, width], width even, each with the range that loses least.

    A row's range starts at its least and largest number and shrinks greedily: from either end by a step, the
    end whose loss of it is smaller in squared error; the best range on the way is kept (GREEDY of Guan et al.
    2019, "Post-training 4-bit quantization on embedding tables").
    """
    parts = [_greedy(table[start : start + CHUNK]) for start in range(0, max(len(table), 1), CHUNK)]
    return Nibbles(
        np.concatenate([part.packed for part in parts]), np.concatenate([part.line for part in parts])
    )


def _greedy(table: np.ndarray) -> Nibbles:
    table = np.asarray(table, dtype=np.float32)
    low, high = table.min(axis=1, keepdims=True), table.max(axis=1, keepdims=True)
    step = (high - low) / STEPS
    best_low, best_high = low.copy(), high.copy()
    best = _loss(table, low, high)
    for _ in range(int(STEPS * (1.0 - LEAST))):
        from_low, from_high = _loss(table, low + step, high), _loss(table, low, high - step)
        upward = from_low < from_high
        low, high = np.where(upward, low + step, low), np.where(upward, high, high - step)
        loss = np.where(upward, from_low, from_high)
        better = loss < best
        best = np.where(better, loss, best)
        best_low, best_high = np.where(better, low, best_low), np.where(better, high, best_high)
    codes, line = _coded(table, best_low, best_high)
    half = table.shape[1] // 2
    return Nibbles(codes[:, :half] | (codes[:, half:] << 4), line)


def _coded(table: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes uint8 [rows, width] and the float16 lines [rows, 2] that undo them."""
    scale = np.where(high > low, (high - low) / LEVELS, 1.0).astype(np.float16)
    scale = np.maximum(scale, np.float16(6e-8))  # the least that float16 knows
    line = np.concatenate([scale, low.astype(np.float16)], axis=1)
    wide = line.astype(np.float32)
    codes = np.rint((table - wide[:, 1:]) / wide[:, :1])
    return np.clip(codes, 0, LEVELS).astype(np.uint8), line


def _loss(table: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The squared error of every row within this range, float32 [rows, 1]."""
    codes, line = _coded(table, low, high)
    wide = line.astype(np.float32)
    return np.asarray(np.square(codes * wide[:, :1] + wide[:, 1:] - table).sum(axis=1, keepdims=True))
