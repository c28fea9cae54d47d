"""What belongs to a user and an item together, for thousands of candidates: the cross columns by group.

The lightweight ranker reads few of a ranker's columns, and most of those are of the user and the item's
category or advertiser: they are computed once for each of those and then looked up. The arithmetic is that of
`finish`, with a spec of the wanted columns alone, so the values are those of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from adstool.errors import UsageError
from adstool.features.finish import finish, standardise
from adstool.features.spec import Counter, FeatureSpec

if TYPE_CHECKING:
    from adstool.features.encoder import FeatureEncoder
    from adstool.features.state import RequestContext, ServingState


@dataclass(frozen=True)
class Group:
    """Columns that are chosen together: those of a counter, and numerics by the beginning of their names."""

    counter: str = ""
    numerics: tuple[str, ...] = ()
    by: str = "item"  # item | category | advertiser: what the values depend on besides the user

    def has(self, column: str) -> bool:
        """Whether a numeric column belongs to the group."""
        starts = (*self.numerics, *((f"{self.counter}_",) if self.counter else ()))
        return column.startswith(starts)


GROUPS: dict[str, Group] = {
    "category": Group("user_category", by="category"),  # the user's shares of categories among them
    "advertiser": Group("user_advertiser", by="advertiser"),
    "item": Group("user_item"),
    "surface": Group("item_surface"),
    "price": Group(numerics=("price_against_user",)),
    "content": Group(numerics=("content_similarity",)),
    "query": Group(numerics=("query_title_overlap", "query_text_overlap", "query_category_fit")),
}


def cross_columns(numeric: Sequence[str], groups: Sequence[str]) -> list[int]:
    """The places among the numeric columns of those of these groups. Raises UsageError for an unknown one."""
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise UsageError(f"There is no group of features '{unknown[0]}'.", f"Groups: {', '.join(GROUPS)}.")
    chosen = [GROUPS[name] for name in groups]
    return [place for place, name in enumerate(numeric) if any(group.has(name) for group in chosen)]


@dataclass(frozen=True)
class _Part:
    """The columns that depend on the user and one key of the item."""

    by: str
    spec: FeatureSpec  # of these columns, and what they are made of
    made: np.ndarray  # their places among the columns of `spec`
    columns: np.ndarray  # among all numeric columns
    places: np.ndarray  # in the result


class CrossFeatures:
    """Some cross columns of an encoder, for the candidates of a request."""

    def __init__(self, encoder: FeatureEncoder, columns: Sequence[int]) -> None:
        """columns [K]: places among the encoder's numeric columns. Raises KeyError for a column that is in no
        group."""
        self.encoder = encoder
        self.width = len(columns)
        self.parts = [
            part
            for by in ("category", "advertiser", "item")
            if (part := _part(encoder.spec, columns, by)) is not None
        ]
        missing = self.width - sum(len(part.places) for part in self.parts)
        if missing:
            raise KeyError(f"{missing} cross columns are in no group")

    def of(self, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> np.ndarray:
        """The values for n candidates, rows of the state's items: float32 [n, K], scaled as in training."""
        out = np.empty((len(rows), self.width), dtype=np.float32)
        for part in self.parts:
            if part.by == "item":
                out[:, part.places] = self._values(part, state, ctx, rows)
                continue
            number, of_number = state.representatives(part.by)
            if len(of_number) <= len(rows):
                out[:, part.places] = self._values(part, state, ctx, of_number)[number[rows]]
            else:
                used, place = np.unique(number[rows], return_inverse=True)
                out[:, part.places] = self._values(part, state, ctx, of_number[used])[place]
        return out

    def _values(self, part: _Part, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> np.ndarray:
        names = [counter.name for counter in part.spec.counters]
        raw = state.counters.at(ctx.user, ctx.surface, ctx.ts, rows, names)
        singles = state.singles(ctx, rows) if part.by == "item" and part.spec.numerics else {}
        made = finish(part.spec, self.encoder.priors, raw, singles, len(rows))[:, part.made]
        return standardise(made, self.encoder.mean[part.columns], self.encoder.std[part.columns])


def _part(spec: FeatureSpec, columns: Sequence[int], by: str) -> _Part | None:
    names = [spec.numeric_columns[column].name for column in columns]
    groups = [group for group in GROUPS.values() if group.by == by]
    mine = [(place, name) for place, name in enumerate(names) if any(group.has(name) for group in groups)]
    if not mine:
        return None
    wanted = {name for _, name in mine}
    shown = [group.counter for group in groups if group.counter and any(group.has(name) for name in wanted)]
    # The user's own counter shows no columns here, but prices and shares are measured against it.
    counters = [_silent(c) if c.name == "user" else c for c in spec.counters if c.name in ("user", *shown)]
    numerics = [n for n in spec.numerics if n.name in wanted]
    if "price_against_user" in wanted:
        numerics += [n for n in spec.numerics if n.name == "user_mean_log_price"]
    narrow = replace(spec, counters=tuple(counters), numerics=tuple(numerics))
    at = {column.name: place for place, column in enumerate(narrow.numeric_columns)}
    return _Part(
        by,
        narrow,
        np.array([at[name] for _, name in mine]),
        np.array([columns[place] for place, _ in mine]),
        np.array([place for place, _ in mine]),
    )


def _silent(counter: Counter) -> Counter:
    """A counter that has its sums, in the same order, and no columns."""
    return replace(counter, counts=(), rates=(), since=(), raw=counter.signals)
