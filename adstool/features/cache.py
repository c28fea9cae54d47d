"""Folders of derived data that are built once and taken from the cache until what they depend on changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adstool.errors import AdstoolError
from adstool.progress import log
from adstool.workspace import alive, write_json

BUILT = "built.json"  # what a folder was made from; written last


def built_folder(home: Path, wanted: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """The folder of `home` that was made from `wanted` (all that the data depend on, as JSON would hold it).

    `write` fills a new one where there is none: a temporary folder that is renamed, so that a killed build
    leaves nothing half. Older ones go away. Raises AdstoolError when the disk does not take it.
    """
    fingerprint = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    target = home / fingerprint
    if not (target / BUILT).is_file():
        _build(target, wanted, write)
    for other in home.iterdir():
        if other.name != fingerprint and not _being_built(other):
            shutil.rmtree(other, ignore_errors=True)
    return target


def _build(target: Path, wanted: dict[str, Any], write: Callable[[Path], None]) -> None:
    partial = target.with_name(f".building-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    log.info("Building the %s.", target.parent.name)
    try:
        write(partial)
        write_json(partial / BUILT, wanted)
        shutil.rmtree(target, ignore_errors=True)  # only there when its built.json is not
        os.replace(partial, target)
    except OSError as error:
        raise AdstoolError(
            f"{target} could not be written: {error}",
            "Free some disk; adstool doctor says how much there is.",
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _being_built(path: Path) -> bool:
    """Whether a folder is the unfinished work of a process that still runs."""
    owner = path.name.removeprefix(".building-")
    return owner != path.name and owner.isdigit() and alive(int(owner))
