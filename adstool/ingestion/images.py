"""Image paths of catalogues: inside the catalogue's folder or --images, or refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import duckdb

from adstool.warehouse import load_sql

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


class ImageFolder:
    """Resolves image values against one folder; folders on the way are resolved once."""

    def __init__(self, folder: Path) -> None:
        self.root = os.path.realpath(folder)
        self._parents: dict[str, str] = {}

    def resolve(self, value: str) -> tuple[str | None, str | None]:
        """(absolute path or URL, None), or (None, why the value is refused)."""
        if URL.match(value):
            if value.lower().startswith("file:"):
                return None, f"image '{value[:80]}' is a file: address; give a path"
            return value, None
        if "\0" in value:
            return None, f"image {value[:80]!r} is not a path"
        try:
            real = self._real(os.path.join(self.root, value))
        except (ValueError, OSError) as error:
            return None, f"image '{value[:80]!r}' is not a path: {error}"
        if real != self.root and os.path.commonpath([real, self.root]) == self.root:
            return real, None
        return None, f"image '{value[:80]}' leaves the folder {self.root}"

    def _real(self, path: str) -> str:
        parent, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if parent not in self._parents:
            self._parents[parent] = os.path.realpath(parent)
        joined = os.path.join(self._parents[parent], name)
        return os.path.realpath(joined) if os.path.islink(joined) else joined


def resolve_images(con: duckdb.DuckDBPyConnection, folder: Path, first: int) -> int:
    """Make the images of the stage absolute and move rows whose image leaves `folder` to `refused`.

    `first` is the rowid of the file's first record. Gives how many images do not exist.

    A picture that does not exist is no reason to refuse its row: embedding names it.
    """
    values = con.execute(load_sql("ingest_images")).fetchall()
    if not values:
        return 0
    images = ImageFolder(folder)
    names = [str(row[0]) for row in values]
    resolved = [images.resolve(name) for name in names]
    paths, problems = zip(*resolved, strict=True)
    found = {"names": names, "paths": list(paths), "problems": list(problems)}
    con.execute(load_sql("ingest_found_images"), found)
    con.execute(load_sql("ingest_refused_images"), {"first": first})
    con.execute(load_sql("ingest_remove_refused_images"))
    con.execute(load_sql("ingest_resolved_images"))
    return sum(path is not None and not URL.match(path) and not os.path.exists(path) for path in paths)
