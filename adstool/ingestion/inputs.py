"""What there is to read: files found and recognised, streams copied, contents hashed and checked."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adstool.errors import AdstoolError, DataError, UsageError, choose, refused_by_disk
from adstool.progress import log
from adstool.warehouse.schema import TABLES
from adstool.workspace import Workspace, alive

FORMATS = ("jsonl", "csv", "parquet")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SKIPPED_FOLDERS = {"truth", "images"}
SKIPPED_FILES = {"world.json"}
STDIN = "-"
LONGEST_LINE = 1 << 24  # bytes of a line that are read at all
BLOCK = 1 << 18  # what fits a core's cache: counting keys in blocks of 1 MiB takes five times as long


@dataclass(frozen=True)
class Input:
    """One file to read: where its bytes are, what it is called, what it holds."""

    path: Path
    name: str  # what the user calls it: an absolute path, or - for standard input
    table: str
    format: str  # jsonl | csv | parquet
    compression: str  # none | gzip | zstd
    folder: Path  # relative image paths start here unless --images is given
    byte_order_mark: bool = False

    @property
    def pattern(self) -> str:
        """The path with DuckDB's wildcards made literal."""
        return literal(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The decompressed bytes. Raises DataError when the compressed stream is damaged."""
        try:
            with open_stream(self.path, self.compression) as handle:
                yield handle
        except (EOFError, OSError, zlib.error) as error:
            raise damaged(self.name, error) from None


@dataclass(frozen=True)
class Dialect:
    """How a csv file is written; of no meaning for other formats."""

    delimiter: str = ","
    width: int = 0  # columns
    header: bool = True
    encoding: str = "utf-8"
    quoted: bool = True  # values may stand in double quotes


class RowsDisagree(Exception):
    """DuckDB and we count different numbers of records in a file, so its row numbers are no line numbers."""


def literal(path: Path) -> str:
    """A path as DuckDB's functions take it, its own wildcards standing for themselves."""
    return "".join(f"[{mark}]" if mark in "*?[" else mark for mark in str(path))


def damaged(name: str, error: BaseException) -> AdstoolError:
    """The error of a file whose bytes do not make sense, unless it is the disk that refuses."""
    return refused_by_disk(error) or DataError(
        f"{name} is damaged or incomplete: {first_line(error)}",
        "Fetch the file again; nothing of it was loaded.",
    )


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def find_inputs(paths: Sequence[str], table: str | None, kind: str | None, scratch: Path) -> list[Input]:
    """The files behind `paths` (files, folders, `-`), in the order in which they should be loaded.

    `table` and `kind` override what file names say. Raises DataError for a path that is missing or cannot be
    read, before anything is loaded, and UsageError when a table is unknown.
    """
    if table is not None and table not in TABLES:
        raise UsageError(f"There is no table '{table}'.", choose(table, TABLES))
    if kind is not None and kind not in FORMATS:
        raise UsageError(f"There is no format '{kind}'.", choose(kind, FORMATS))
    found: list[Input] = []
    for text in paths:
        path = Path(text)
        # Of os.path, for which a name too long to exist does not: that of pathlib raises.
        if text == STDIN or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)):
            found.append(_copied(text, table, kind, scratch))
        elif os.path.isdir(path):
            found += _folder(path, table, kind)
        elif os.path.isfile(path):
            found.append(recognise(path, table or _required_table(path), kind))
        else:
            raise DataError(f"{text} does not exist.", "Check the path; nothing was loaded.")
    return found


def table_of(name: str) -> str | None:
    """The table that a file name starts with: events-2026-10.jsonl.gz is events, adserver.csv is none."""
    for table in TABLES:
        if re.match(rf"{table}([^A-Za-z]|$)", name):
            return table
    return None


def recognise(path: Path, table: str, kind: str | None = None, name: str | None = None) -> Input:
    """The Input of one file: compression by its first bytes, format by its suffix or first bytes."""
    try:
        with open(path, "rb") as handle:
            magic = handle.read(8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    name = name or os.path.abspath(path)
    if os.fsencode(name) != name.encode("utf-8", "replace"):  # DuckDB takes no other
        raise DataError(
            f"The name of {os.fsencode(name)!r} is not UTF-8.", "Rename it, then ingest it again."
        )
    compression = "none"
    if magic.startswith(b"\x1f\x8b"):
        compression = "gzip"
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        compression = "zstd"
    elif magic.startswith((b"BZh", b"\xfd7zXZ", b"PK\x03\x04")):
        raise DataError(
            f"{name} is compressed in a way adstool does not read.", "Unpack it, or use .gz or .zst."
        )
    elif magic and path.suffix in COMPRESSIONS:
        raise DataError(f"{name} is not a {path.suffix} file.", "Fetch it again, or rename it.")
    probe = Input(path, name, table, "jsonl", compression, Path(os.path.abspath(path)).parent)
    with probe.open() as handle:
        head = handle.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name} is UTF-16.", f"Convert it: iconv -f UTF-16 -t UTF-8 {name} > FILE")
    stem = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    chosen = kind or SUFFIXES.get(stem.suffix.lower()) or sniff(head)
    if chosen == "parquet" and compression != "none":
        raise DataError(f"{name} is a compressed parquet file.", f"Unpack it first: gunzip or zstd -d {name}")
    if chosen == "jsonl" and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise DataError(
            f"{name} is one JSON array, not one object a line.",
            f"Convert it: jq -c '.[]' {name} > FILE.jsonl",
        )
    return Input(
        path, name, table, chosen, compression, probe.folder, byte_order_mark=head.startswith(b"\xef\xbb\xbf")
    )


def sniff(head: bytes) -> str:
    """jsonl, csv or parquet, from the first bytes of the content."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return "jsonl"
    return "csv"


def _required_table(path: Path) -> str:
    table = table_of(path.name)
    if table is None:
        raise UsageError(
            f"{path} does not say which table it is.",
            f"Start its name with one of {', '.join(TABLES)}; or give --table.",
        )
    return table


def _folder(folder: Path, table: str | None, kind: str | None) -> list[Input]:
    """The data files below a folder: catalogues before logs, then by name."""
    chosen: list[tuple[int, str, Path, str]] = []
    order = {name: index for index, name in enumerate(TABLES)}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS]
        for name in names:
            bare = Path(name).with_suffix("") if Path(name).suffix in COMPRESSIONS else Path(name)
            if name.startswith(".") or name in SKIPPED_FILES or bare.suffix.lower() not in SUFFIXES:
                continue
            owner = table or table_of(name)
            path = Path(parent) / name
            if owner is None:
                log.warning("%s skipped: its name starts with no table's name.", path)
                continue
            chosen.append((order[owner], str(path), path, owner))
    if not chosen:
        raise DataError(
            f"{folder} holds no file to load.",
            f"Files end in {', '.join(sorted(SUFFIXES))} and start with a table's name; or give --table.",
        )
    return [recognise(path, owner, kind) for _, _, path, owner in sorted(chosen)]


def _copied(text: str, table: str | None, kind: str | None, scratch: Path) -> Input:
    """Standard input or a pipe, copied to a file so that it can be read more than once."""
    if table is None:
        raise UsageError(f"{text} does not say which table it is.", "Give --table.")
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / f"stream-{len(list(scratch.iterdir()))}"
    with open(copy, "wb") as target:
        if text == STDIN:
            shutil.copyfileobj(sys.stdin.buffer, target, BLOCK)
        else:
            with open(text, "rb") as source:
                shutil.copyfileobj(source, target, BLOCK)
    given = recognise(copy, table, kind, name=text)
    return Input(copy, text, table, given.format, given.compression, Path.cwd(), given.byte_order_mark)


@contextmanager
def scratch_folder(ws: Workspace) -> Iterator[Path]:
    """Where copies of streams and of damaged files may go; gone at the end, also those of killed runs.

    The folder is made by who needs it: a run that copies nothing leaves no trace.
    """
    parent = ws.cache / "ingest"
    for old in parent.iterdir() if parent.is_dir() else ():
        if not old.name.isdigit() or not alive(int(old.name)):
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / str(os.getpid())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another run may be at work there
            parent.rmdir()
            ws.cache.rmdir()


def physical_lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of every line; of a line that is too long, one byte more than LONGEST_LINE.

    So a stream without line ends, such as gigabytes of zeros out of a small .gz, fits into memory.
    """
    number = 0
    while raw := handle.readline(LONGEST_LINE + 1):
        number += 1
        yield number, raw
        while len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
            raw = handle.readline(LONGEST_LINE + 1)


def open_stream(path: Path, compression: str) -> Any:
    """The decompressed bytes of a file, as a binary stream."""
    if compression == "gzip":
        return gzip.open(path, "rb")
    if compression == "zstd":
        import pyarrow as pa

        # Arrow's stream has no lines; it has what a buffered reader asks of a raw one.
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), BLOCK)
    return open(path, "rb")
