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

from adstool.errors import UsageError, choose
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


KEYS = ("category", "advertiser", "item")  # what groups are `by`; columns are in this order


def cross_columns(numeric: Sequence[str], groups: Sequence[str]) -> list[int]:
    """The places among the numeric columns of those of these groups, key by key, so that what is looked up
    together lies together. Raises UsageError for an unknown group."""
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise UsageError(f"There is no group of features '{unknown[0]}'.", choose(unknown[0], GROUPS))
    chosen = [[GROUPS[name] for name in groups if GROUPS[name].by == key] for key in KEYS]
    return [
        place
        for of_key in chosen
        for place, name in enumerate(numeric)
        if any(group.has(name) for group in of_key)
    ]


@dataclass(frozen=True)
class _Part:
    """The columns that depend on the user and one key of the item."""

    by: str
    spec: FeatureSpec  # of these columns, and what they are made of
    made: np.ndarray  # their places among the columns of `spec`
    columns: np.ndarray  # among all numeric columns
    mean: np.ndarray  # in training, and the deviation
    std: np.ndarray


class CrossFeatures:
    """Some cross columns of an encoder, for the candidates of a request."""

    def __init__(self, encoder: FeatureEncoder, columns: Sequence[int]) -> None:
        """columns [K]: places among the encoder's numeric columns, in the order of `cross_columns`. Raises
        ValueError for others."""
        self.encoder = encoder
        self.width = len(columns)
        self.parts = [part for by in KEYS if (part := _part(encoder, columns, by)) is not None]
        if [int(place) for part in self.parts for place in part.columns] != list(columns):
            raise ValueError(f"columns {list(columns)} are not those of groups, key by key")

    def of(self, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> np.ndarray:
        """The values for n candidates, rows of the state's items: float32 [n, K], scaled as in training."""
        blocks = [self._block(part, state, ctx, rows) for part in self.parts]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def _block(self, part: _Part, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> np.ndarray:
        if part.by == "item":
            return self._values(part, state, ctx, rows)
        number, of_number = state.representatives(part.by)
        place = number[rows]
        if len(of_number) > len(rows):
            used, place = np.unique(place, return_inverse=True)
            of_number = of_number[used]
        return np.asarray(self._values(part, state, ctx, of_number).take(place, axis=0))

    def _values(self, part: _Part, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> np.ndarray:
        raw = state.counters.at(ctx.user, ctx.surface, ctx.ts, rows, part.spec.counters)
        singles = state.singles(ctx, rows) if part.by == "item" and part.spec.numerics else {}
        made = finish(part.spec, self.encoder.priors, raw, singles, len(rows))[:, part.made]
        return standardise(made, part.mean, part.std)


def _part(encoder: FeatureEncoder, columns: Sequence[int], by: str) -> _Part | None:
    spec = encoder.spec
    names = [spec.numeric_columns[column].name for column in columns]
    groups = [group for group in GROUPS.values() if group.by == by]
    wanted = [name for name in names if any(group.has(name) for group in groups)]
    if not wanted:
        return None
    shown = [group.counter for group in groups if group.counter and any(group.has(name) for name in wanted)]
    # The user's own counter shows no columns here, but prices and shares are measured against it.
    counters = [_silent(c) if c.name == "user" else c for c in spec.counters if c.name in ("user", *shown)]
    numerics = [n for n in spec.numerics if n.name in wanted]
    if "price_against_user" in wanted:
        numerics += [n for n in spec.numerics if n.name == "user_mean_log_price"]
    narrow = replace(spec, counters=tuple(counters), numerics=tuple(numerics))
    at = {column.name: place for place, column in enumerate(narrow.numeric_columns)}
    made = np.array([at[name] for name in wanted])
    places = np.array([column for column, name in zip(columns, names, strict=True) if name in wanted])
    return _Part(by, narrow, made, places, encoder.mean[places], encoder.std[places])


def _silent(counter: Counter) -> Counter:
    """A counter that has its sums, in the same order, and no columns."""
    return replace(counter, counts=(), rates=(), since=(), raw=counter.signals)
