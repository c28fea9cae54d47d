"""iPinYou's real-time bidding logs as published for its contest: bids, impressions, clicks and conversions.

A line has 24 columns separated by tabs; 21 in logs of bids as they came, which know neither kind of log nor
paid price nor landing page; 27 where make-ipinyou-data has put click, weekday and hour before them
(https://github.com/wnzhang/make-ipinyou-data, schema.txt), whose files begin with a line of names.

A creative is an ad, an advertiser has one campaign. A bid, an impression and a click are events of the
request `bidid`, with floor, bid and paid price in `attributes` as they stand in the log, money a thousand
views. Files that begin with conv become conversions. Times are China's and become UTC. A user without an
id is known by his address.
"""

from __future__ import annotations

import re

from adstool.errors import DataError
from adstool.ingestion.inputs import Input
from adstool.ingestion.sources.base import Feed, first_line_of

BIDS = (
    *("bidid", "timestamp", "ipinyouid", "useragent", "IP", "region", "city", "adexchange", "domain", "url"),
    *("urlid", "slotid", "slotwidth", "slotheight", "slotvisibility", "slotformat", "slotprice", "creative"),
    *("bidprice", "advertiser", "usertag"),
)
COLUMNS = (*BIDS[:2], "logtype", *BIDS[2:19], "payprice", "keypage", *BIDS[19:])
CLICKED = ("click", "weekday", "hour", *COLUMNS)
NEEDS = ("bidid", "timestamp", "ipinyouid", "creative", "bidprice", "advertiser")
LOGS = re.compile(r"(bid|imp|clk|conv|train|test)\b", re.IGNORECASE)  # how the names of logs begin
FEEDS = ("advertisers", "campaigns", "ads", "users")


def is_log(name: str) -> bool:
    """Whether a file of that name is one of the logs, and no list of regions or tags beside them."""
    return LOGS.match(name) is not None


def feeds(source: Input) -> list[Feed]:
    """What one file becomes. Raises DataError when it has neither the names nor the number of columns."""
    cells = [cell.strip() for cell in first_line_of(source).split("\t")]
    columns: tuple[str, ...] = ()
    if "bidid" not in cells:
        known = {len(form): form for form in (BIDS, COLUMNS, CLICKED)}
        if len(cells) not in known:
            raise DataError(
                f"{source.name} has {len(cells)} columns and no names in its first line.",
                "A log of iPinYou has 24 separated by tabs, 21 for bids, or 27 with click, weekday and hour. "
                "Unpack .bz2 files first.",
            )
        columns = known[len(cells)]
    conversions = source.path.name.lower().startswith("conv")
    return [
        Feed(
            source.path.name,
            table,
            f"source_ipinyou_{table}",
            NEEDS,
            columns,
            "\t",
            quoted=False,
            optional=tuple(name for name in CLICKED if name not in NEEDS),
        )
        for table in (*FEEDS, "conversions" if conversions else "events")
    ]
