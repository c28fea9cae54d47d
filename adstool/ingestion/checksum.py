"""What is read off a file's bytes while DuckDB reads its records: hash, integrity, number of JSON keys."""

from __future__ import annotations

import hashlib
import threading
import zlib

from adstool.errors import DataError
from adstool.ingestion.inputs import BLOCK, Input, damaged, open_stream

QUOTE, COLON, SPACE, TAB, RETURN, LETTER_N = (ord(mark) for mark in '": \t\rn')
AHEAD = 3  # bytes behind a position that counting looks at


class KeyCounter:
    """An upper bound on how many keys with a value other than null the JSON objects of a stream have.

    Every key ends in a colon behind a quote or white space, so counting those counts every key, and perhaps
    text that looks like one; a colon behind a quote and before an n is a key whose value is null, or again
    such text, which then was counted too. As nothing is missed, a bound equal to the number of values found
    in the known columns proves that there are no other keys, at a tenth of the cost of parsing.
    """

    def __init__(self) -> None:
        self.bound = 0
        self._rest = b""

    def update(self, block: bytes) -> None:
        """Count in the next bytes of the stream."""
        data = self._rest + block
        if len(data) > AHEAD:
            self.bound += _keys(data)
            self._rest = data[-AHEAD:]
        else:
            self._rest = data

    def finish(self) -> int:
        """The bound, at the end of the stream."""
        self.update(b"\n" * AHEAD)
        return self.bound


def _keys(block: bytes) -> int:
    """Possible keys whose last byte is at one of all positions but the last AHEAD ones."""
    import numpy as np  # loaded by the thread that counts, while DuckDB is at work

    data = np.frombuffer(block, np.uint8)
    colon = np.flatnonzero(data[1:-2] == COLON)
    before, after, second = data[colon], data[colon + 2], data[colon + 3]
    quoted = before == QUOTE
    spaced = (before == SPACE) | (before == TAB) | (before == RETURN)
    null = quoted & ((after == LETTER_N) | ((after == SPACE) & (second == LETTER_N)))
    return int(np.count_nonzero(quoted) + np.count_nonzero(spaced) - np.count_nonzero(null))


class Checksum(threading.Thread):
    """Reads a file beside DuckDB: hashes it, proves a compressed stream whole, counts the keys of jsonl.

    The proof is needed because DuckDB takes a truncated zstd stream, and a gzip stream with a wrong checksum,
    for whole ones.
    """

    def __init__(self, source: Input, context: str) -> None:
        super().__init__(daemon=True)
        self._source = source
        self._context = context
        self._fingerprint = ""
        self._keys = 0
        self._error: BaseException | None = None

    def run(self) -> None:
        """Read the file once for its hash and, when compressed, once more for what is in it."""
        counter = KeyCounter() if self._source.format == "jsonl" else None
        compressed = self._source.compression != "none"
        try:
            digest = hashlib.sha256(self._context.encode())
            size = 0
            with open(self._source.path, "rb") as handle:
                while block := handle.read(BLOCK):
                    digest.update(block)
                    size += len(block)
                    if counter and not compressed:
                        counter.update(block)
            self._fingerprint = f"{size}-{digest.hexdigest()[:40]}"
            if compressed:
                with open_stream(self._source.path, self._source.compression) as handle:
                    while block := handle.read(BLOCK):
                        if counter:
                            counter.update(block)
            self._keys = counter.finish() if counter else 0
        except (EOFError, OSError, zlib.error) as error:
            self._error = error

    def fingerprint(self) -> str:
        """The hash. Raises DataError when the file is damaged or changed while it was read."""
        self.join()
        if self._error is not None:
            raise damaged(self._source.name, self._error)
        if not self._fingerprint.startswith(f"{self._source.path.stat().st_size}-"):
            raise DataError(f"{self._source.name} changed while it was read.", "Ingest it when it is whole.")
        return self._fingerprint

    def keys(self) -> int:
        """At most so many keys with a value have the objects of a jsonl file; raises like fingerprint."""
        self.fingerprint()
        return self._keys
