"""Whom a campaign wants to reach: users whose profile and surface are among those it names.

A campaign's attributes hold, for example, {"targeting": {"country": ["NL", "BE"], "surface": ["search"]}}: a
user fits when every field named has one of its values; one whose value is not known does not fit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adstool.features.items import ItemTable
from adstool.features.state import RequestContext
from adstool.features.users import UserTable
from adstool.progress import log
from adstool.warehouse import load_sql
from adstool.workspace import write_table

if TYPE_CHECKING:
    import duckdb

FILE = "targeting.parquet"
FIELDS = ("country", "language", "age_bucket", "gender", "surface")
Rule = dict[str, frozenset[str]]


class Targeting:
    """The rules of the campaigns of a corpus; see `allowed`."""

    def __init__(self, rules: list[Rule | None], number: np.ndarray) -> None:
        """rules: None is one that nobody fits. number: int32 [n], the rule of every position, -1 for none."""
        self._rules, self._number = rules, number

    @staticmethod
    def write(con: duckdb.DuckDBPyConnection, directory: Path) -> int:
        """Write what the campaigns say into targeting.parquet; returns how many say anything.

        Warns of what cannot be read: those campaigns are then shown to nobody, rather than to everybody.
        """
        table = con.sql(load_sql("funnel_targeting")).to_arrow_table()
        write_table(directory / FILE, table)
        broken = [name for name, text in zip(*_columns(table), strict=True) if parse_rule(text) is None]
        if broken:
            log.warning(
                "The targeting of campaign %s%s cannot be read, so nobody is shown its ads. Write lists of"
                " texts for %s.",
                broken[0],
                f" and {len(broken) - 1} more" if len(broken) > 1 else "",
                ", ".join(FIELDS),
            )
        return int(table.num_rows)

    @classmethod
    def load(cls, directory: Path, items: ItemTable, rows: slice) -> Targeting:
        """What `write` wrote, for the items at these rows; no rules where nothing was written."""
        path = directory / FILE
        if not path.is_file():
            return cls([], np.full(rows.stop - rows.start, -1, dtype=np.int32))
        table = pq.read_table(path)
        texts = table["targeting"].combine_chunks().dictionary_encode()
        campaigns = pc.index_in(items.column("campaign_id")[rows], value_set=table["campaign_id"])
        place = pc.fill_null(campaigns, -1).to_numpy(zero_copy_only=False)
        of_campaign = np.append(texts.indices.to_numpy(zero_copy_only=False), -1).astype(np.int32)
        return cls([parse_rule(text) for text in texts.dictionary.to_pylist()], of_campaign[place])

    def allowed(self, users: UserTable, ctx: RequestContext) -> np.ndarray | None:
        """bool [n]: items that want to be shown in answer to this request; None where nobody targets."""
        if not self._rules:
            return None
        about = {**users.profile(ctx.user), "surface": ctx.surface}
        fits = [rule is not None and all(about.get(f) in rule[f] for f in rule) for rule in self._rules]
        return np.asarray(np.array([*fits, True])[self._number])  # -1, no rule, reads the last


def parse_rule(text: str) -> Rule | None:
    """The rule of a targeting's JSON; None when it is none."""
    try:
        given = json.loads(text)
        fields = {name: [values] if isinstance(values, str) else values for name, values in given.items()}
    except (ValueError, AttributeError):
        return None
    known = all(name in FIELDS for name in fields)
    if known and all(
        isinstance(values, list) and all(isinstance(value, str) for value in values)
        for values in fields.values()
    ):
        return {name: frozenset(values) for name, values in fields.items()}
    return None


def _columns(table: pa.Table) -> tuple[list[str], list[str]]:
    return table["campaign_id"].to_pylist(), table["targeting"].to_pylist()
