"""The declarative feature spec: one list of columns drives the training examples and the serving path.

Three kinds of column: categoricals (encoded by vocabulary), numerics computed from the item, the user and the
request, and counters, each of which yields a block of numerics. A side says who owns a column, so that a user
tower reads `user` and `context`, an item tower `item`, and only a ranker that sees both reads `cross`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from adstool.config import Settings

SPEC_VERSION = 1  # raised whenever a feature's meaning changes, so that cached examples are built again

IMPRESSION = "impression"
ENGAGED = "engaged"  # any positive action of the settings
DISLIKED = "disliked"  # any negative action
CONVERSION = "conversion"  # off-site, at the time it was reported
PRICED = "priced"  # positive actions on items with a price
LOG_PRICE = "log_price"  # their ln(1 + price), summed
BUILT_IN_SIGNALS = (IMPRESSION, ENGAGED, DISLIKED, CONVERSION, PRICED, LOG_PRICE)


class Column(NamedTuple):
    """A column of `categorical` or `numeric` and the side that owns it: user, item, cross or context."""

    name: str
    side: str


@dataclass(frozen=True)
class Numeric:
    """A number computed for an example; `log` turns it into sign(x) ln(1 + |x|)."""

    name: str
    side: str
    log: bool = False


@dataclass(frozen=True)
class Counter:
    """Decayed sums of what happened to an entity, strictly before the request.

    keys: what names the entity (user, item, category, advertiser, surface), user first where there is one.
    counts: signals shown as ln(1 + decayed sum). rates: signals shown as the logarithm of
    (sum + strength · prior) ÷ ((impressions + strength) · prior), 0 where nothing is known; prior is the
    signal's rate over all entities in training. since: signals whose last time is shown as ln(1 + hours).
    raw: signals that other numerics read. Signals are the built-in ones and names of actions.
    """

    name: str
    keys: tuple[str, ...]
    counts: tuple[str, ...] = (IMPRESSION,)
    rates: tuple[str, ...] = ()
    since: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    strength: float = 20.0

    @property
    def side(self) -> str:
        """user or item when only that side is needed to look the entity up, else cross."""
        if self.keys == ("user",):
            return "user"
        return "item" if {"user", "surface"}.isdisjoint(self.keys) else "cross"

    @cached_property
    def signals(self) -> tuple[str, ...]:
        """Every signal that is summed, once each; impressions lead when a rate divides by them."""
        leading = (IMPRESSION,) if self.rates else ()
        return tuple(dict.fromkeys((*leading, *self.counts, *self.rates, *self.raw)))


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides what the features of an example are."""

    corpus: str  # ad | pin: the item type that is ranked
    actions: tuple[str, ...]  # names, in the order of the labels
    positive: tuple[bool, ...]  # whether each counts as engagement
    half_lives: tuple[float, ...]  # days
    history_length: int
    content_recent: int  # engaged items behind the user's content vector
    content_decay: float  # weight of each next older one
    categoricals: tuple[Column, ...]
    numerics: tuple[Numeric, ...]
    counters: tuple[Counter, ...]
    version: int = SPEC_VERSION
    semantic: str = ""  # the run whose codebooks made the columns sid_1, sid_2, ...; empty: there are none

    @cached_property
    def numeric_columns(self) -> tuple[Column, ...]:
        """All M numeric columns: the blocks of the counters, then the single ones."""
        columns: list[Column] = []
        for counter in self.counters:
            for half_life in self.half_lives:
                days = f"{half_life:g}d"
                columns += [
                    Column(f"{counter.name}_{_label(s)}_count_{days}", counter.side) for s in counter.counts
                ]
                columns += [
                    Column(f"{counter.name}_{_label(s)}_rate_{days}", counter.side) for s in counter.rates
                ]
            columns += [
                Column(f"{counter.name}_hours_since_{_label(s)}", counter.side) for s in counter.since
            ]
        columns += [Column(numeric.name, numeric.side) for numeric in self.numerics]
        return tuple(columns)

    def signal_actions(self, signal: str) -> tuple[int, ...]:
        """The action numbers of the coded log behind a signal: 0 impression, 1.. actions, then conversion."""
        numbers = range(1, len(self.actions) + 1)
        if signal == IMPRESSION:
            return (0,)
        if signal == CONVERSION:
            return (len(self.actions) + 1,)
        if signal in (ENGAGED, PRICED, LOG_PRICE):
            return tuple(n for n in numbers if self.positive[n - 1])
        if signal == DISLIKED:
            return tuple(n for n in numbers if not self.positive[n - 1])
        return (self.actions.index(signal.removeprefix("action:")) + 1,)

    def counter(self, name: str) -> Counter | None:
        """The counter of that name, None where the spec has none."""
        return next((counter for counter in self.counters if counter.name == name), None)

    def with_half_lives(self, half_lives: tuple[float, ...]) -> FeatureSpec:
        """The same spec with other half lives (days)."""
        return dataclasses.replace(self, half_lives=half_lives)

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FeatureSpec:
        """The spec that `to_json` wrote."""
        tuples = ("actions", "positive", "half_lives")
        return cls(
            **{
                **value,
                **{key: tuple(value[key]) for key in tuples},
                "categoricals": tuple(Column(*entry) for entry in value["categoricals"]),
                "numerics": tuple(Numeric(**entry) for entry in value["numerics"]),
                "counters": tuple(
                    Counter(**{key: _frozen(entry_value) for key, entry_value in entry.items()})
                    for entry in value["counters"]
                ),
            }
        )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _label(signal: str) -> str:
    return signal.removeprefix("action:")


def _action_signals(names: tuple[str, ...]) -> tuple[str, ...]:
    """Actions as signals; the prefix keeps an action called like a built-in signal apart from it."""
    return tuple(f"action:{name}" for name in names)


def default_spec(settings: Settings, corpus: str = "ad", semantic: str = "", levels: int = 0) -> FeatureSpec:
    """The features adstool uses for a corpus of ads or of pins (which have no price, campaign or
    advertiser).

    semantic, levels: the run whose semantic ids items have, and how many codes each has.
    """
    actions = tuple(action.name for action in settings.actions)
    positive = tuple(action.positive for action in settings.actions)
    return FeatureSpec(
        corpus=corpus,
        actions=actions,
        positive=positive,
        half_lives=tuple(settings.features.half_life_days),
        history_length=settings.features.history_length,
        content_recent=20,
        content_decay=0.9,
        categoricals=_categoricals(corpus, levels if semantic else 0),
        numerics=_numerics(settings, corpus),
        counters=_counters(actions, corpus),
        semantic=semantic if levels else "",
    )


def prefix_column(depth: int) -> str:
    """The column of the first `depth` codes of an item's semantic id."""
    return f"sid_{depth}"


def prefix_depth(column: str) -> int:
    """How many codes a column holds; 0 when it is no column of semantic ids."""
    name, _, depth = column.partition("_")
    return int(depth) if name == "sid" and depth.isdigit() else 0


def _categoricals(corpus: str, levels: int) -> tuple[Column, ...]:
    user = ("user_id", "country", "language", "age_bucket", "gender", "last_category")
    of_ads = ("advertiser_id", "campaign_id", "vertical", "format")
    prefixes = (prefix_column(depth) for depth in range(1, levels + 1))
    item = ("item_id", "category", *(of_ads if corpus == "ad" else ()), *prefixes)
    context = ("surface", "hour", "weekday", "query")
    return (
        *(Column(name, "user") for name in user),
        *(Column(name, "item") for name in item),
        *(Column(name, "context") for name in context),
    )


def _numerics(settings: Settings, corpus: str) -> tuple[Numeric, ...]:
    priced = (
        Numeric("item_price", "item", log=True),
        Numeric("user_mean_log_price", "user"),
        Numeric("price_against_user", "cross"),
    )
    shares = tuple(
        Numeric(f"user_category_share_{half_life:g}d", "cross")
        for half_life in settings.features.half_life_days
    )
    return (
        Numeric("user_tenure_days", "user", log=True),
        Numeric("user_engagements", "user", log=True),
        Numeric("item_age_hours", "item", log=True),
        *(priced if corpus == "ad" else ()),
        *shares,
        Numeric("content_similarity", "cross"),
        Numeric("query_title_overlap", "cross"),
        Numeric("query_text_overlap", "cross"),
        Numeric("query_category_fit", "cross"),
        Numeric("query_tokens", "context", log=True),
    )


def _counters(names: tuple[str, ...], corpus: str) -> tuple[Counter, ...]:
    actions = _action_signals(names)
    ads = corpus == "ad"
    user = Counter(
        "user",
        ("user",),
        counts=(IMPRESSION, ENGAGED, *((CONVERSION,) if ads else ())),
        rates=actions,
        since=(IMPRESSION, ENGAGED),
        raw=(PRICED, LOG_PRICE) if ads else (),
    )
    shared = (
        user,
        Counter("item", ("item",), rates=actions, raw=(ENGAGED,), since=(IMPRESSION,)),
        Counter("category", ("category",), rates=actions),
        Counter(
            "user_category",
            ("user", "category"),
            counts=(IMPRESSION, ENGAGED),
            rates=actions,
            since=(IMPRESSION, ENGAGED),
            strength=5.0,
        ),
        Counter("user_item", ("user", "item"), counts=(IMPRESSION, ENGAGED), since=(IMPRESSION,)),
        Counter("item_surface", ("item", "surface"), rates=(ENGAGED,)),
    )
    if not ads:
        return shared
    return (
        *shared,
        Counter("advertiser", ("advertiser",), rates=actions),
        Counter(
            "user_advertiser",
            ("user", "advertiser"),
            counts=(IMPRESSION, ENGAGED, CONVERSION),
            rates=(ENGAGED,),
            since=(IMPRESSION, CONVERSION),
            strength=5.0,
        ),
    )
