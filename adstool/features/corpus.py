"""Which kind of item is ranked: ads where there are any, else pins (a log of organic content only)."""

from __future__ import annotations

import duckdb

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.warehouse import load_sql

CORPUS_TYPES = ("ad", "pin")


def corpus_type(con: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """'ad' or 'pin': the item type that is ranked.

    `features.item_type = "auto"` takes ads as soon as one was shown or is in the catalogue. Raises
    AdstoolError for a setting that is neither.
    """
    wanted = settings.features.item_type
    if wanted in CORPUS_TYPES:
        return wanted
    if wanted != "auto":
        raise AdstoolError(f"features.item_type = '{wanted}' is not known.", "Use auto, ad or pin.")
    ((any_ad,),) = con.execute(load_sql("features_corpus")).fetchall()
    return "ad" if any_ad else "pin"
