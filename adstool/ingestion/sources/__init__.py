"""Public log formats as they are published: one file each, and one line here."""

from __future__ import annotations

from pathlib import Path

from adstool.errors import DataError, UsageError, choose
from adstool.ingestion.inputs import COMPRESSIONS, Input, recognise
from adstool.ingestion.sources import avazu, criteo, ipinyou, movielens, open_bandit, sequences, taobao_ad
from adstool.ingestion.sources.base import Feed

SOURCES = {
    "movielens": movielens.feeds,
    "open-bandit": open_bandit.feeds,
    "sequences": sequences.feeds,
    "taobao-ad": taobao_ad.feeds,
}
FLAT_SOURCES = {"criteo": criteo.feed, "avazu": avazu.feed}  # files, each into the flat table of that name
LOG_SOURCES = {"ipinyou": (ipinyou.feeds, ipinyou.is_log)}  # logs, each of them into several tables
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")


def source_jobs(name: str, folder: Path) -> list[tuple[Input, Feed]]:
    """Every (file, what to take from it) of the public format `name` in `folder`, catalogues first.

    For a flat format and for logs, `folder` may be a file.

    Raises UsageError for an unknown format, and DataError when the folder does not hold it.
    """
    if name in FLAT_SOURCES:
        found = [recognise(path, name, kind="csv") for path in _flat_files(folder)]
        return [(source, FLAT_SOURCES[name](source)) for source in found]
    if name in LOG_SOURCES:
        feeds, is_log = LOG_SOURCES[name]
        files = [path for path in _flat_files(folder) if folder.is_file() or is_log(path.name)]
        logs = [
            (recognise(path, feed.table, kind="csv"), feed)
            for path in files
            for feed in feeds(recognise(path, name, kind="csv"))
        ]
        if not logs:
            raise DataError(f"{folder} holds no log of {name}.", "Name a file, or unpack the logs there.")
        return sorted(logs, key=lambda job: job[1].table in ("events", "conversions"))
    if name not in SOURCES:
        known = (*SOURCES, *FLAT_SOURCES, *LOG_SOURCES)
        raise UsageError(f"There is no source '{name}'.", choose(name, known))
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", f"Give the folder that holds the {name} files.")
    return [(recognise(_file(folder, feed), feed.table, kind="csv"), feed) for feed in SOURCES[name](folder)]


def _flat_files(path: Path) -> list[Path]:
    """The file itself, or the text files of a folder, in the order of their names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist.", "Check the path; nothing was loaded.")
    found = []
    for file in sorted(path.iterdir()):
        bare = file.with_suffix("") if file.suffix in COMPRESSIONS else file
        if file.is_file() and bare.suffix.lower() in TEXT_SUFFIXES:
            found.append(file)
    if not found:
        raise DataError(f"{path} holds no file ending in {', '.join(TEXT_SUFFIXES)}.", "Name the files.")
    return found


def _file(folder: Path, feed: Feed) -> Path:
    """The feed's file, plain or compressed."""
    for suffix in ("", ".gz", ".zst"):
        path = folder / f"{feed.file}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"{folder} has no {feed.file}.", "Unpack the whole data set there.")
