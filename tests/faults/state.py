"""What a folder of adstool holds, as hashes that two ways to the same end have in common.

Tables are compared as sets of rows, vectors as numbers, settings and metrics as JSON; run ids, moments and
durations are left out, since no two runs share them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adstool.config import load_settings
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

# Columns that say when and by which run a row was made.
MADE = {"finished_at", "started_at", "rejected_at", "applied_at", "made_at", "metrics", "run_id"}
MADE_TABLES = {"enrichments": {"created_at"}, "relevance": {"created_at"}}
VOLATILE = re.compile(
    r"(^|_)(seconds|ms|at|p50|p99|speedup|latency|when|duration|written|date)$|per_second|latency|^timed|^trials$"
)
RUN = re.compile(r"\br\d+\b")
TEMPORARY = re.compile(r"^\.(?!lock$)|\.tmp$|\.partial$|\.old$|\.wal$")
KEPT_WORK = {".partial"}  # an unfinished run, kept to go on from


def state_of(root: Path) -> dict[str, str]:
    """Everything below `root` by name: hash. Runs that are not in use are judged by `broken_runs`."""
    found: dict[str, str] = {}
    _take_in(root)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        parts = name.split("/")
        if not path.is_file() or any(TEMPORARY.search(part) for part in parts) or name == ".lock":
            continue
        if path.suffix == ".duckdb":
            found |= {f"{name}:{table}": text for table, text in _tables(path)}
        elif parts[0] == "vectors.lance" and len(parts) > 2:
            found[f"vectors.lance/{parts[1]}"] = ""  # read as a table, below
        elif parts[0] == "models":
            if len(parts) > 3 and parts[2] == _current(root / "models" / parts[1]):
                found[f"models/{parts[1]}/" + "/".join(parts[3:])] = _file(path)
        elif parts[0] == "cache":
            found[f"cache/{parts[1]}"] = "there"  # can always be made again
        elif parts[0] == "reports" and path.suffix != ".json":
            found[f"reports/*{path.suffix}"] = _text(
                re.sub(r"[-\d.,:]+(e[-+]?\d+)?", "#", path.read_text("utf-8"))
            )
        else:
            found[name] = _file(path)
    for name in [name for name in found if name.startswith("vectors.lance/") and not found[name]]:
        found[name] = _vectors(root / name)
    return found


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """Names whose hash differs or that only one side has."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def leftovers(root: Path) -> list[str]:
    """Files and folders that only a work under way may have."""
    return [name for name in _temporaries(root) if name.rsplit("/", 1)[-1] not in KEPT_WORK]


def _temporaries(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if TEMPORARY.search(parts[-1]) and not any(TEMPORARY.search(part) for part in parts[:-1]):
            yield "/".join(parts)


def broken_runs(root: Path, whole: dict[str, str]) -> list[str]:
    """Runs, in use or not, that lack a file which the run in use of the undisturbed workspace has."""
    broken = []
    for run in sorted((root / "models").glob("*/*")):
        if not run.is_dir() or run.name.startswith("."):
            continue
        start = f"models/{run.parent.name}/"
        wanted = {name.removeprefix(start) for name in whole if name.startswith(start)}
        # Post-training steps add files to a run that is whole without them.
        late = {"calibration.json", "quantization.json"}
        for name in sorted(wanted - late):
            if ".int8." not in name and ".int4." not in name and not (run / name).is_file():
                broken.append(f"{start}{run.name} lacks {name}")
                break
    return broken


def rows_of(root: Path) -> dict[str, int]:
    """Rows by table of the warehouse of a workspace; nothing where there is none."""
    path = root / "warehouse.duckdb"
    if not path.is_file():
        return {}
    _take_in(root)
    with duckdb.connect(str(path), read_only=True) as con:
        names = [name for (name,) in con.execute("select table_name from duckdb_tables()").fetchall()]
        return {name: con.execute(f'select count(*) from "{name}"').fetchall()[0][0] for name in names}


def _take_in(root: Path) -> None:
    """What was put aside counts as logged: whoever comes next takes it in."""
    if (root / "spool").is_dir():
        with open_warehouse(Workspace(root), load_settings(None, {}, {})):
            pass


def _current(folder: Path) -> str:
    pointer = folder / "current"
    return pointer.read_text().strip() if pointer.is_file() else ""


def _text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tables(path: Path) -> Iterator[tuple[str, str]]:
    with duckdb.connect(str(path), read_only=True) as con:
        listed = con.execute(
            "select table_name, list((column_name, data_type) order by column_index) from duckdb_columns()"
            " where table_name in (select table_name from duckdb_tables()) group by all"
        ).fetchall()
        for table, columns in listed:
            left_out = MADE | MADE_TABLES.get(table, set())
            # Sums of numbers depend in their last digits on the order in which threads brought them.
            kept = ", ".join(
                f"printf('%.7g', \"{name}\")" if kind == "DOUBLE" else f'"{name}"'
                for name, kind in columns
                if name not in left_out
            )
            if table in ("funnel", "auctions"):  # slates printed before an interruption are logged, too
                kept = "request_id"
            # A stage that was done twice is noted twice.
            rows = "distinct " if table in ("runs", "funnel", "auctions") else ""
            query = (
                f"select count(*), coalesce(sum(hash(row_)), 0)::varchar"
                f' from (select {rows}row({kept})::varchar as row_ from "{table}")'
            )
            count, total = con.execute(query).fetchall()[0]
            yield table, f"{count} rows {total}"


def _file(path: Path) -> str:
    if path.suffix == ".json":
        text = json.dumps(_stable(json.loads(path.read_text("utf-8"))), sort_keys=True)
        return _text(text)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            parts = [name.encode() + stored[name].tobytes() for name in sorted(stored.files)]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    if path.suffix == ".safetensors":
        return hashlib.sha256(b"".join(_tensors(path))).hexdigest()[:16]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _tensors(path: Path) -> Iterator[bytes]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as handle:
        for name in sorted(handle.keys()):
            yield name.encode() + handle.get_tensor(name).tobytes()


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(inner) for key, inner in value.items() if not VOLATILE.search(key)}
    if isinstance(value, list):
        return [_stable(inner) for inner in value]
    return RUN.sub("r", value) if isinstance(value, str) else value


def _vectors(folder: Path) -> str:
    import lancedb

    table = lancedb.connect(str(folder.parent)).open_table(folder.name.removesuffix(".lance"))
    rows = table.search().limit(None).to_arrow()
    return _text(
        f"{rows.num_rows} rows " + str(sorted(json.dumps(row, default=str) for row in rows.to_pylist()))
    )
