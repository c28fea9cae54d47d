"""Sequences: a text file of `user item` a line, every user's items in time order, without times.

The form in which SASRec (Kang and McAuley 2018) and those after it publish Amazon, Steam and MovieLens. An
item is a pin. A line is an impression and a click of it on the surface `home`. Times are made up, since there
are none: one day between the actions of a user, and the last action of everybody on 31 December 1999, so that
a split by time keeps the last actions of every user for the test.
"""

from __future__ import annotations

from pathlib import Path

from adstool.errors import DataError
from adstool.ingestion.sources.base import Feed

COLUMNS = ("user_id", "item_id")


def feeds(folder: Path) -> list[Feed]:
    """The text file of `folder` as pins and events. Raises DataError when it holds none, or several."""
    found = sorted(path.name for path in folder.glob("*.txt*") if path.name.lower() != "readme.txt")
    names = sorted({name.removesuffix(".gz").removesuffix(".zst") for name in found})
    names = [name for name in names if name.endswith(".txt")]
    if len(names) != 1:
        what = f"several: {', '.join(names[:5])}" if names else "no .txt file"
        raise DataError(
            f"{folder} holds {what}.", "Give a folder with one file of lines `user item` in time order."
        )
    return [
        Feed(names[0], "pins", "source_sequences_pins", COLUMNS, COLUMNS, " ", quoted=False),
        Feed(names[0], "events", "source_sequences_events", COLUMNS, COLUMNS, " ", quoted=False),
    ]
