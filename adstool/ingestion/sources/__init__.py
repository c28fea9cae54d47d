"""Public log formats as they are published: one file each, and one line here."""

from __future__ import annotations

from pathlib import Path

from adstool.errors import DataError, UsageError
from adstool.ingestion.inputs import Input, recognise
from adstool.ingestion.sources import movielens, taobao_ad
from adstool.ingestion.sources.base import Feed

SOURCES = {
    "movielens": movielens.feeds,
    "taobao-ad": taobao_ad.feeds,
}


def source_jobs(name: str, folder: Path) -> list[tuple[Input, Feed]]:
    """Every (file, what to take from it) of the public format `name` in `folder`, catalogues first.

    Raises UsageError for an unknown format, and DataError when the folder does not hold it.
    """
    if name not in SOURCES:
        raise UsageError(f"There is no source '{name}'.", f"Known: {', '.join(SOURCES)}.")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", f"Give the folder that holds the {name} files.")
    return [(recognise(_file(folder, feed), feed.table, kind="csv"), feed) for feed in SOURCES[name](folder)]


def _file(folder: Path, feed: Feed) -> Path:
    """The feed's file, plain or compressed."""
    for suffix in ("", ".gz", ".zst"):
        path = folder / f"{feed.file}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"{folder} has no {feed.file}.", "Unpack the whole data set there.")
