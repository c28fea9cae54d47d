"""Flat tables of the warehouse under the name that `train engagement --train NAME` gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adstool.config import Settings
from adstool.errors import DataError, UsageError
from adstool.progress import log
from adstool.training.flat_table import FlatRequest
from adstool.warehouse import open_warehouse
from adstool.warehouse.flat import FLAT_TABLES, TEST_SHARE, export_flat, flat_rows
from adstool.workspace import Workspace


def is_name(path: Path | None) -> bool:
    """Whether an option names a flat table: it is no file, and has neither folder nor suffix."""
    return path is not None and not path.is_file() and not path.suffix and path.name == str(path)


def resolve(ws: Workspace, settings: Settings, request: FlatRequest) -> FlatRequest:
    """The request with files for its names; a table without a test set gives its last tenth for it.

    "Last" is by time where the rows have one, else as they were loaded. Raises DataError for a name that is
    neither a file nor a flat table, naming those there are, and UsageError when one table is both sides.
    """
    named = {
        side: path for side in ("train", "test", "valid") if (path := getattr(request, side)) is not None
    }
    names = {side: path.name for side, path in named.items() if is_name(path)}
    if len(set(names.values())) < len(names):
        raise UsageError(
            f"The table {next(iter(names.values()))} is given twice: a model would be judged by rows it saw.",
            "Leave out --test: its last tenth is then held out.",
        )
    if not names:
        return request
    if not ws.warehouse.is_file():
        raise unknown(next(iter(names.values())), [])
    folder = ws.cache / "flat-tables"
    with open_warehouse(ws, settings, read_only=True) as con:
        held = flat_rows(con)
        files: dict[str, Path] = {}
        for side, name in names.items():
            if name not in held:
                raise unknown(name, list(held))
            rows = held[name]
            label = request.label or FLAT_TABLES[name].label
            if not FLAT_TABLES[name].table.names.count(label):
                columns = ", ".join(FLAT_TABLES[name].table.names)
                raise DataError(f"The flat table {name} has no column {label!r}.", f"It has: {columns}.")
            kept = rows
            if side == "train" and request.test is None:
                kept = rows - max(int(rows * TEST_SHARE), 1)
                files["test"] = export_flat(con, name, kept, rows - kept, folder, label)
                log.info(f"The last {rows - kept:,} of {rows:,} rows of {name} are the test set.")
            files[side] = export_flat(con, name, 0, kept, folder, label)
    label = request.label or next(FLAT_TABLES[name].label for name in names.values())
    return replace(
        request,
        label=label,
        train=files.get("train", request.train),
        test=files.get("test", request.test),
        valid=files.get("valid", request.valid),
    )


def unknown(name: str, held: list[str]) -> DataError:
    """The error that there is neither a file nor a flat table of this name, with those that there are."""
    there = f"Flat tables: {', '.join(held)}." if held else "There are no flat tables yet."
    return DataError(
        f"There is no file and no flat table '{name}'.",
        f"{there} Load one: adstool ingest --source {' or '.join(FLAT_TABLES)} FILE.",
    )
