"""What a case is given, how it runs adstool, and the promises that hold whatever the input was."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb

from adstool.commands import _run, hoist_globals

LONGEST_MESSAGE = 4000  # characters of an error: a value from a file is quoted, never copied whole
TABLES = ("users", "pins", "advertisers", "campaigns", "ads", "events", "conversions", "rejects", "files")
HELD = (  # what every workspace holds beforehand, so that a loss of it shows
    ("users-0.jsonl", [{"user_id": "held"}]),
    ("ads-0.jsonl", [{"ad_id": "held", "campaign_id": "held", "title": "Held"}]),
    (
        "events-0.jsonl",
        [
            {
                "event_id": f"held{n}",
                "ts": 1_700_000_000 + n,
                "user_id": "held",
                "item_type": "ad",
                "action": "click",
            }
            for n in range(3)
        ],
    ),
)


class Violation(Exception):
    """A promise that a case found broken."""


def expect(condition: object, what: str) -> None:
    """Raise Violation saying `what` unless the condition holds."""
    if not condition:
        raise Violation(what)


@dataclass(frozen=True)
class Said:
    """What one command said: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str
    words: tuple[str, ...]

    @property
    def json(self) -> Any:
        """The JSON object on stdout."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise Violation(f"stdout is no JSON object: {self.out[:200]!r}") from None


def check_manners(said: Said) -> Said:
    """No traceback, a known exit code, and an error that says what to try and is not endless."""
    text = f"{said.words} -> {said.code}: {said.err[:1500]}"
    expect(said.code in (0, 1, 2, 3), f"exit code: {text}")
    expect("Traceback (most recent call last)" not in said.err + said.out, f"traceback: {text}")
    expect("--debug for the traceback" not in said.err, f"an exception nobody expected: {text}")
    if said.code in (1, 2) and "error: " in said.err:
        message = said.err[said.err.rindex("error: ") :]
        expect(len(message) > len("error: ") + 10, f"an error without a message: {text}")
        expect(said.code == 2 or "\n  try: " in message, f"an error without advice: {text}")
        expect(len(message) < LONGEST_MESSAGE, f"an error of {len(message)} characters: {text}")
        expect("there Train" not in message, f"a sentence without its full stop: {text}")
    elif said.code:
        expect(said.err.strip(), f"failed without a word: {text}")
    expect("\x1b" not in said.err + said.out, f"a control character reached the terminal: {text!r}")
    return said


def run(*words: str | Path, stdin: bytes = b"") -> Said:
    """Run `adstool WORDS` in this process, held to `check_manners`."""
    said = tuple(str(word) for word in words)
    out, err = _Bytes(), _Bytes()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _run(hoist_globals(list(said)))
            out.flush(), err.flush()
    finally:
        sys.stdin = before
    return check_manners(Said(code, out.text, err.text, said))


class _Bytes(io.TextIOWrapper):
    """A text stream as strict about its encoding as a terminal is."""

    def __init__(self) -> None:
        self._raw = io.BytesIO()
        super().__init__(self._raw, encoding="utf-8", errors="backslashreplace", write_through=True)

    @property
    def text(self) -> str:
        return self._raw.getvalue().decode()


@dataclass
class Place:
    """A folder of one case's own: a workspace, files to read, and ground that nobody may touch."""

    root: Path
    shop: Path | None = None  # a workspace with models and an index, shared: read it only
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.root / "ws"

    @property
    def files(self) -> Path:
        return self.root / "files"

    def write(self, name: str, content: bytes | str) -> Path:
        """A file of the case."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return path

    def run(self, *words: str | Path, stdin: bytes = b"") -> Said:
        """Run a verb in the workspace, as JSON; nothing outside it may change."""
        before = _tree(self.files)
        said = run("--json", "--workspace", self.workspace, *words, stdin=stdin)
        expect(_tree(self.files) == before, f"{words} changed what lies outside the workspace")
        expect(
            {entry.name for entry in self.root.iterdir()} <= {"ws", "files"},
            f"{words} wrote beside the workspace",
        )
        return said

    def warehouse(self) -> dict[str, tuple[int, int]]:
        """Rows and a hash of every table."""
        return warehouse_state(self.workspace / "warehouse.duckdb")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(
            duckdb.connect(str(self.workspace / "warehouse.duckdb"), read_only=True)
        ) as con:
            return con.execute(sql).fetchall()


def warehouse_state(path: Path) -> dict[str, tuple[int, int]]:
    """Rows and a hash of every table of a warehouse."""
    with contextlib.closing(duckdb.connect(str(path), read_only=True)) as con:
        names = [
            row[0]
            for row in con.execute(
                "select table_name from duckdb_tables() where table_name <> 'schema_version' order by 1"
            ).fetchall()
        ]
        parts = [f"select '{name}', count(*), bit_xor(hash(t)) from {name} as t" for name in names]
        return {
            name: (count, mixed) for name, count, mixed in con.execute(" union all ".join(parts)).fetchall()
        }


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time and mode of everything below a folder."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            status = os.lstat(os.path.join(parent, name))
            if stat.S_ISFIFO(status.st_mode):
                continue
            size = 0 if name in folders else status.st_size
            found[os.path.join(parent, name)] = (
                size,
                0 if name in folders else status.st_mtime_ns,
                status.st_mode,
            )
    return found


def make_template(folder: Path) -> Path:
    """A workspace with a little data in it, to be copied for each case."""
    workspace, files = folder / "ws", folder / "files"
    workspace.mkdir(parents=True)
    files.mkdir()
    (workspace / "adstool.toml").write_text("[warehouse]\nthreads = 1\nlock_wait_seconds = 5\n")
    paths = []
    for name, rows in HELD:
        paths.append(files / name)
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run("--json", "--workspace", workspace, "ingest", *paths)
    expect(said.code == 0, f"the template cannot be made: {said.err}")
    return workspace


@contextlib.contextmanager
def place_for(base: Path, template: Path | None, shop: Path | None, name: str) -> Iterator[Place]:
    """A fresh Place below `base`, with a copy of the workspace `template`; gone afterwards."""
    root = base / name
    shutil.rmtree(root, ignore_errors=True)
    (root / "files").mkdir(parents=True)
    if template is not None:
        shutil.copytree(template, root / "ws")
    try:
        yield Place(root, shop)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@lru_cache(maxsize=4)
def state_of_template(template: Path) -> dict[str, tuple[int, int]]:
    """The warehouse as every case finds it."""
    return warehouse_state(template / "warehouse.duckdb")


Case = Callable[[random.Random, Place], str]


@dataclass(frozen=True)
class Kind:
    """One kind of bad input: its cases, how often it is drawn, and whether it needs the shop."""

    name: str
    case: Case
    weight: int = 10
    shop: bool = False  # it reads the shop
    bare: bool = False  # it needs no warehouse of its own


def rng_of(kind: str, seed: int, number: int) -> random.Random:
    """The same case for the same kind, seed and number, on every machine."""
    return random.Random(hashlib.blake2b(f"{kind}|{seed}|{number}".encode(), digest_size=8).digest())


def threads_settle() -> int:
    """How many threads are alive: a leak of them shows over many cases."""
    return threading.active_count()


def is_hidden(text: str, pattern: str) -> bool:
    """Whether a text matches a pattern anywhere."""
    return re.search(pattern, text) is not None


def any_of(rng: random.Random, options: Sequence[Any]) -> Any:
    """One of the options; a function among them is called with the generator."""
    chosen = rng.choice(list(options))
    return chosen(rng) if callable(chosen) else chosen
