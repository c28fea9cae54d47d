"""Documents that people write: read whole, or refused with their name and what is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from adstool.errors import DataError


def read_document(path: Path, name: str = "") -> str:
    """The text of a file in UTF-8, a byte order mark left out. `name` is what errors call it.

    Raises DataError when it cannot be read.
    """
    name = name or str(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.", "Name a file that is there.") from None
    except ValueError as error:  # other encodings, and a path that is none
        raise DataError(f"{name} cannot be read: {error}", "Save it as UTF-8.") from None


def read_toml(path: Path, name: str = "") -> dict[str, Any]:
    """The tables of a TOML file. Raises DataError naming the line that is wrong."""
    text = read_document(path, name)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib raises both of its own, and those of numbers
        raise DataError(
            f"{name or path} is not valid TOML: {error}", "Mend the line it names; tables look like [name]."
        ) from None


def user_path(text: str) -> Path:
    """A path as a setting names it, ~ being a home folder. Raises DataError when that is nobody's."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"{text} begins with a home folder that is not there.", "Write the path.") from None
