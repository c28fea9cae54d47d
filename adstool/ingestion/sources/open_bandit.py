"""The Open Bandit Dataset as ZOZO publishes it: https://research.zozo.com/data.html.

<policy>/<campaign>/<campaign>.csv gives impressions with click, propensity and context, item_context.csv the
items; policies are random and bts, campaigns all, men and women. Saito, Aihara, Matsutani and Narita 2021.
The folder may be that of one campaign, of one policy, or the whole set. An item is a pin named
<campaign>-<item_id>, the policy is the event's source, the campaign its surface. Users are not published:
those of equal features count as one. Items have the same ids under both policies, but other hashes: those of
a campaign are read once.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from adstool.errors import DataError
from adstool.ingestion.inputs import recognise
from adstool.ingestion.sources.base import Feed, first_line_of

ITEM = ("item_id", *(f"item_feature_{place}" for place in range(4)))
USER = tuple(f"user_feature_{place}" for place in range(4))
ROUND = ("timestamp", "item_id", "position", "click", "propensity_score", *USER)
AFFINITY = re.compile(r"user-item_affinity_\d+")


def feeds(folder: Path) -> list[Feed]:
    """Items, users and events of every campaign below `folder`, items first.

    Raises DataError when there is none, or a campaign without its log.
    """
    found = sorted(
        {path.parent for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}item_context.csv*")}
    )
    if not found:
        raise DataError(
            f"{folder} holds no item_context.csv.",
            "Give the folder of the Open Bandit Dataset, of one of its policies, or of a campaign.",
        )
    items: dict[str, Feed] = {}
    users, events = [], []
    for campaign in found:
        inside = campaign.relative_to(folder)
        name = campaign.resolve().name
        log = f"{name}.csv"
        context = Feed(str(inside / "item_context.csv"), "pins", "source_open_bandit_pins", ITEM)
        items.setdefault(name, context)
        users.append(Feed(str(inside / log), "users", "source_open_bandit_users", USER))
        needs = (*ROUND, *_affinities(campaign, log))
        events.append(Feed(str(inside / log), "events", "source_open_bandit_events", needs))
    return [*items.values(), *users, *events]


def _affinities(campaign: Path, log: str) -> list[str]:
    """The columns of a log that say how much the user likes each item."""
    path = next((path for end in ("", ".gz", ".zst") if (path := campaign / f"{log}{end}").is_file()), None)
    if path is None:
        raise DataError(f"{campaign} has no {log}.", "The log is named as its folder, as it is published.")
    header = next(csv.reader([first_line_of(recognise(path, "events", kind="csv"))]), [])
    return [name for name in header if AFFINITY.fullmatch(name)]
