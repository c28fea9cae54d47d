"""Small files that unpack to gigabytes: memory and time of a whole process, beside a plain file."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fuzz.containers import HEADER, event, jsonl
from fuzz.pictures import png_bomb

BLOCK = 1 << 20


def _pieces(head: bytes, block: bytes, size: int, tail: bytes = b"") -> Iterator[bytes]:
    """`head`, then at least `size` bytes made of `block`, then `tail`."""
    yield head
    for _ in range(-(-size // len(block))):
        yield block
    yield tail


def _packed(path: Path, pieces: Iterator[bytes]) -> Path:
    """A .gz or .zst file of the pieces."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as target:
            target.writelines(pieces)
    else:
        with pa.output_stream(str(path), compression="zstd") as stream:
            for piece in pieces:
                stream.write(piece)
    return path


def _line(number: int, text: str) -> bytes:
    return json.dumps(event(number, query=text)).encode() + b"\n"


# Name -> how the file is made in a folder, of `size` bytes unpacked.
BOMBS: dict[str, Callable[[Path, int], Path]] = {
    "zeros .jsonl.gz": lambda at, n: _packed(at / "events.jsonl.gz", _pieces(b"", bytes(BLOCK), n)),
    "zeros .csv.gz": lambda at, n: _packed(at / "events.csv.gz", _pieces(b"", bytes(BLOCK), n)),
    "zeros .jsonl.zst": lambda at, n: _packed(at / "events.jsonl.zst", _pieces(b"", bytes(BLOCK), n)),
    "one line of json .gz": lambda at, n: _packed(
        at / "events.jsonl.gz", _pieces(jsonl(1) + b'{"event_id": "', b"a" * BLOCK, n, b'"}\n' + jsonl(3))
    ),
    "a quote never closed .csv.gz": lambda at, n: _packed(
        at / "events.csv.gz", _pieces(f'{HEADER}\n"'.encode(), b"a" * BLOCK, n)
    ),
    "quotes over lines .csv.gz": lambda at, n: _packed(
        at / "events.csv.gz",
        _pieces(f'{HEADER}\ne1,bad,u,ad,a,c,,,,"'.encode(), b"a\n" * (BLOCK // 2), n // 64),
    ),
    "brackets .jsonl.gz": lambda at, n: _packed(at / "events.jsonl.gz", _pieces(jsonl(1), b"[" * BLOCK, n)),
    "long refused lines .jsonl.gz": lambda at, n: _packed(
        at / "events.jsonl.gz", _pieces(jsonl(1), b'{"event_id": "' + b"b" * BLOCK + b'"}\n', n // 4)
    ),
}


@dataclass(frozen=True)
class Burst:
    """What a process made of a file."""

    name: str
    packed: int  # bytes
    unpacked: int  # bytes, about
    code: int
    peak_mib: int
    seconds: float
    said: str


def plain(workspace: Path, folder: Path) -> Burst:
    """A plain file, for comparison: 20,000 events."""
    path = folder / "events.jsonl"
    path.write_bytes(b"".join(_line(n, "q") for n in range(20_000)))
    return measure("plain file", workspace, path, path.stat().st_size)


def bombs(workspace: Path, folder: Path, size: int) -> Iterator[Burst]:
    """Every bomb of `size` bytes unpacked, ingested by a process of its own; gone afterwards."""
    for name, make in BOMBS.items():
        path = make(folder, size)
        yield measure(name, workspace, path, size)
        path.unlink()


def picture_bomb(workspace: Path, folder: Path) -> Burst:
    """Pins whose pictures unpack to 900 million pixels each, embedded."""
    (folder / "bomb.png").write_bytes(png_bomb(30_000, 30_000))
    rows = [{"pin_id": f"b{n}", "title": "x", "image": "bomb.png"} for n in range(3)]
    path = folder / "pins.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    measure("", workspace, path, 0)
    return measure(
        "pictures of 900 Mpixel", workspace, folder / "bomb.png", 900_000_000 // 8, "embed", "pins"
    )


def measure(name: str, workspace: Path, path: Path, unpacked: int, *words: str) -> Burst:
    """Run a verb (else ingest of `path`) as a process whose address space is limited."""
    command = [
        sys.executable,
        "-m",
        "adstool",
        "--json",
        "--workspace",
        str(workspace),
        *(words or ("ingest", str(path))),
    ]
    limits = {**os.environ, "OMP_NUM_THREADS": "1", "ADSTOOL_WAREHOUSE_THREADS": "1"}
    most = (32 if words else 4) << 30  # torch maps more than it uses
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=limits,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    assert process.stdout is not None
    said = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Burst(
        name,
        path.stat().st_size,
        unpacked,
        process.returncode,
        usage.ru_maxrss // 1024,
        round(time.monotonic() - started, 1),
        said[-300:],
    )
