"""Named queries: every statement longer than a line is a file of the sql package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from adstool.errors import AdstoolError


@cache
def load_sql(name: str) -> str:
    """The text of sql/<name>.sql. Raises AdstoolError when the installation has no such query."""
    resource = files("adstool.sql").joinpath(f"{name}.sql")
    if not resource.is_file():
        raise AdstoolError(f"The query '{name}' is missing from this installation.", "Install adstool again.")
    return resource.read_text(encoding="utf-8")


def migrations() -> list[tuple[int, str]]:
    """(version, name) of every migration, in the order in which they apply."""
    names = [entry.name.removesuffix(".sql") for entry in files("adstool.sql").iterdir()]
    return sorted((int(name.split("_")[1]), name) for name in names if name.startswith("migration_"))
