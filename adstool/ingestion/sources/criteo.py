"""Criteo's display advertising set as Kaggle published it, into the flat table `criteo`.

A file is tab-separated without names (train.txt: Label, I1-I13, C1-C26), or has a first line of names and
perhaps ids, or commas: https://ailab.criteo.com/ressources/.
"""

from __future__ import annotations

from adstool.errors import DataError
from adstool.ingestion.inputs import Input
from adstool.ingestion.sources.base import Feed, first_line_of
from adstool.warehouse.flat import CRITEO

COLUMNS = CRITEO.names[1:]


def feed(source: Input) -> Feed:
    """How this file is read. Raises DataError when it has neither the names nor the number of columns."""
    line = first_line_of(source)
    delimiter = "\t" if line.count("\t") >= line.count(",") else ","
    cells = [cell.strip() for cell in line.split(delimiter)]
    columns: tuple[str, ...] = ()
    if "Label" not in cells:
        if len(cells) not in (len(COLUMNS), len(CRITEO.names)):
            raise DataError(
                f"{source.name} has {len(cells)} columns and no names in its first line.",
                f"Criteo's training file has {len(COLUMNS)}: Label, I1 to I13, C1 to C26. Its test "
                "file has no labels and cannot be loaded.",
            )
        columns = COLUMNS if len(cells) == len(COLUMNS) else CRITEO.names
    return Feed(
        source.path.name,
        "criteo",
        "source_criteo",
        COLUMNS,
        columns,
        delimiter,
        optional=("Id",),
        quoted=False,
    )
