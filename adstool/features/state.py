"""The serving side of the features: what was known at one moment, and the model inputs of a request from it.

It reads the same coded log and the same counters as the training examples, keeps only the last row of every
entity, and ends in the same `finish`; so a logged request gets the inputs that its examples were trained on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adstool.config import Settings
from adstool.content.text import normalise, tokens
from adstool.errors import AdstoolError
from adstool.features.counters import Raw, count_state, decay, hours_since
from adstool.features.encoder import FeatureEncoder
from adstool.features.engagements import Engagements, content_summary, read_history
from adstool.features.finish import finish
from adstool.features.interests import UserInterests, within_category
from adstool.features.items import NO_TIME, ItemTable, mapped
from adstool.features.log import FOREVER, EntitySizes, coded_log
from adstool.features.singles import hour_and_weekday, single_values
from adstool.features.spec import ENGAGED, Counter, FeatureSpec
from adstool.features.users import UserTable
from adstool.workspace import Workspace, read_json, write_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds UTC since 1970; a moment without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class CounterState:
    """A counter after the last event. entity: sorted int64 [n]; sums float32 [n + 1, H·K] and last int64 [n +
    1, S], whose final row is that of an entity without events."""

    entity: np.ndarray
    sums: np.ndarray
    last: np.ndarray


@dataclass
class RequestContext:
    """One request: who asks, when and where. known: the user is in the catalogue or in the log."""

    user_id: str
    ts: int  # microseconds UTC
    surface: str | None
    query: str | None
    user: int  # number of the user, -1 unknown
    known: bool
    start: int  # range of the user's engagements before `ts`
    end: int
    user_content: np.ndarray  # float32 [D]
    cache: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Codes:
    """The codes an encoder gives to all items: of the item columns [n, .], and for histories [n] each."""

    items: np.ndarray
    item: np.ndarray
    category: np.ndarray
    last_category: np.ndarray


class ServingState:
    """Counters, histories, users and items as of one moment; see `build`, `request` and `inputs`."""

    def __init__(
        self,
        spec: FeatureSpec,
        items: ItemTable,
        users: UserTable,
        engagements: Engagements,
        counters: dict[str, CounterState],
        surfaces: list[str],
        sizes: EntitySizes,
        interests: UserInterests,
        as_of: int,
    ) -> None:
        self.spec = spec
        self.items = items
        self.users = users
        self.engagements = engagements
        self.counters = counters
        self.surfaces = surfaces
        self.sizes = sizes
        if spec.semantic not in ("", items.semantic):
            raise AdstoolError(
                f"The features read the semantic ids of {spec.semantic}, and the items have those of "
                f"{items.semantic or 'no run'}.",
                "Embed the items (adstool embed all) and run adstool index.",
            )
        self.interests = interests
        self.as_of = as_of  # microseconds UTC: every event strictly before it is known
        self._codes: dict[FeatureEncoder, _Codes] = {}
        self._places: dict[tuple[str, int], np.ndarray] = {}
        self._ranked = items.of_type(spec.corpus)

    @classmethod
    def build(
        cls,
        con: duckdb.DuckDBPyConnection,
        ws: Workspace,
        settings: Settings,
        spec: FeatureSpec,
        items: ItemTable,
        as_of: datetime | None = None,
    ) -> ServingState:
        """The state from the warehouse: events and reports strictly before `as_of`, all of them when it is
        None.

        spec: of the models that will read it (`encoder.spec`), so that half lives and columns agree.
        """
        with coded_log(con, spec, items, FOREVER if as_of is None else microseconds(as_of)) as log:
            now = log.last_ts + 1 if as_of is None else microseconds(as_of)
            counters = {}
            for counter in spec.counters:
                entity, sums, last = count_state(log, counter, now)
                counters[counter.name] = CounterState(
                    entity,
                    np.concatenate([sums, np.zeros((1, sums.shape[1]))]).astype(np.float32),
                    np.concatenate([last, np.full((1, last.shape[1]), -1)]),
                )
            engagements = log.engagements()
            users, surfaces, sizes = log.users, log.surfaces, log.sizes
        until = FOREVER if as_of is None else now
        interests = UserInterests.build(con, settings, users, items.categories[1], until)
        return cls(spec, items, users, engagements, counters, surfaces, sizes, interests, now)

    def save(self, directory: Path) -> None:
        """Write the state into `directory`: .npy files, users.parquet, the item table and state.json, written
        last."""
        directory.mkdir(parents=True, exist_ok=True)
        self.items.save(directory)
        self.users.save(directory)
        self.engagements.save(directory)
        self.interests.save(directory)
        for name, counter in self.counters.items():
            for part, array in vars(counter).items():
                temporary = directory / f".counter_{name}_{part}.{os.getpid()}.tmp"
                with open(temporary, "wb") as handle:
                    np.save(handle, array)
                os.replace(temporary, directory / f"counter_{name}_{part}.npy")
        write_json(
            directory / "state.json",
            {
                "spec": self.spec.to_json(),
                "surfaces": self.surfaces,
                "sizes": asdict(self.sizes),
                "as_of": self.as_of,
            },
        )

    @classmethod
    def load(cls, directory: Path) -> ServingState:
        """What `save` wrote, memory-mapped; raises AdstoolError when it is damaged or absent."""
        document = read_json(directory / "state.json")
        try:
            spec = FeatureSpec.from_json(document["spec"])
            counters = {
                counter.name: CounterState(
                    *(
                        mapped(directory / f"counter_{counter.name}_{part}.npy")
                        for part in ("entity", "sums", "last")
                    )
                )
                for counter in spec.counters
            }
            sizes, as_of = EntitySizes(**document["sizes"]), int(document["as_of"])
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise AdstoolError(f"{directory} holds no whole state: {error}", "Run adstool index.") from None
        items, users = ItemTable.load(directory), UserTable.load(directory)
        engagements, interests = Engagements.load(directory), UserInterests.load(directory)
        surfaces = list(document["surfaces"])
        return cls(spec, items, users, engagements, counters, surfaces, sizes, interests, as_of)

    def request(
        self,
        user_id: str,
        ts: datetime | int | None = None,
        surface: str | None = None,
        query: str | None = None,
    ) -> RequestContext:
        """A request of any user, known or not. ts: a time, or microseconds UTC; None is the state's own
        moment.

        The state does not know what it has not seen, and does not forget: a request before `as_of` still
        reads counters as of `as_of` (histories are cut at the request's time).
        """
        moment = self.as_of if ts is None else ts if isinstance(ts, int) else microseconds(ts)
        user = self.users.number(user_id)
        start, end = self.engagements.before_one(user, moment)
        places = self.engagements.recent(np.asarray([start]), np.asarray([end]), self.spec.content_recent)
        summary = content_summary(self.engagements, places, self.items.content, self.spec.content_decay)[0]
        return RequestContext(user_id, moment, surface, query, user, user >= 0, start, end, summary)

    def inputs(
        self, encoder: FeatureEncoder, ctx: RequestContext, item_rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The model inputs (dataset.INPUTS) of a request for n candidates, position 1.

        item_rows: int [n], rows of `items`. Raises AdstoolError when the encoder belongs to other features.
        """
        codes = self._codes_of(encoder)
        rows = len(item_rows)
        words = [tokens(ctx.query)]
        signup = int(self.users.signup[ctx.user]) if ctx.user >= 0 else NO_TIME
        asked = np.zeros(rows, dtype=np.int64) if words[0] else np.full(rows, -1)
        singles = single_values(
            self.items, item_rows, ctx.ts, signup, ctx.end - ctx.start, ctx.user_content, words, asked
        )
        numeric = finish(self.spec, encoder.priors, self._raw(ctx, item_rows), singles, rows)
        history = self._history(codes, ctx)
        return {
            "categorical": self._categorical(encoder, codes, ctx, item_rows),
            "numeric": encoder.numeric(numeric),
            "item_content": np.asarray(self.items.content[item_rows]),
            "user_content": _repeat(ctx.user_content, rows),
            **{name: _repeat(values, rows) for name, values in history.items()},
            "position": np.ones(rows, dtype=np.int16),
        }

    def eligible(self, ts: datetime | int | None = None) -> np.ndarray:
        """Rows of ranked items that exist and whose campaign runs at `ts`, int64; unknown times pass."""
        moment = self.as_of if ts is None else ts if isinstance(ts, int) else microseconds(ts)
        ends = self.items.times("ends_at")
        running = (self.items.times("starts_at") <= moment) & ((ends >= moment) | (ends == NO_TIME))
        return np.flatnonzero(self._ranked & running & (self.items.times("created_at") <= moment))

    def fresh(self, ts: datetime | int | None = None, *, days: float = 7.0) -> np.ndarray:
        """Rows of eligible items created in the last `days` before `ts`, newest first, int64."""
        moment = self.as_of if ts is None else ts if isinstance(ts, int) else microseconds(ts)
        rows = self.eligible(moment)
        created = self.items.times("created_at")[rows]
        new = created >= moment - int(days * 86_400_000_000)
        return np.asarray(rows[new][np.argsort(-created[new], kind="stable")])

    def popularity(self) -> np.ndarray:
        """Engagements of every item, decayed by the longest half life to `as_of`: float32 [items]."""
        counter = self.spec.counter("item")
        if counter is None:
            return np.zeros(len(self.items), dtype=np.float32)
        longest = int(np.argmax(self.spec.half_lives))
        column = longest * len(counter.signals) + counter.signals.index(ENGAGED)
        state = self.counters["item"]
        result = np.zeros(len(self.items), dtype=np.float32)
        result[np.asarray(state.entity)] = state.sums[:-1, column]
        return result

    def recent_categories(self, ctx: RequestContext) -> np.ndarray:
        """What the user engaged with by category, decayed to the request by the shortest half life: float32
        [C]."""
        found = np.zeros(len(self.items.categories[1]), dtype=np.float32)
        counter = self.spec.counter("user_category")
        if counter is None or ctx.user < 0 or not len(found):
            return found
        state, size = self.counters["user_category"], self.sizes.of("category")
        low, high = np.searchsorted(state.entity, [ctx.user * size, (ctx.user + 1) * size])
        shortest = int(np.argmin(self.spec.half_lives))
        column = shortest * len(counter.signals) + counter.signals.index(ENGAGED)
        faded = decay(self.spec, counter, max(0, ctx.ts - self.as_of))[column]
        found[state.entity[low:high] - ctx.user * size] = state.sums[low:high, column] * faded
        return found

    @cached_property
    def popularity_within(self) -> np.ndarray:
        """Popularity of every item against the mean of its category, drawn to 1: float32 [items]."""
        return within_category(self.popularity(), self.items.categories[0], self._ranked)

    def last_engaged(self, ctx: RequestContext, limit: int) -> np.ndarray:
        """Rows of the distinct items the user engaged with last, newest first, int64 [≤ limit]."""
        newest_first = np.asarray(self.engagements.item[ctx.start : ctx.end])[::-1]
        _, first = np.unique(newest_first, return_index=True)
        return newest_first[np.sort(first)][:limit].astype(np.int64)

    def _codes_of(self, encoder: FeatureEncoder) -> _Codes:
        if encoder not in self._codes:
            if encoder.spec != self.spec:
                raise AdstoolError(
                    "The model and the index were made with different features.",
                    "Run adstool index, or adstool run, which does what is stale.",
                )
            self._codes[encoder] = _Codes(encoder.item_codes(self.items), *encoder.history_codes(self.items))
        return self._codes[encoder]

    def _history(self, codes: _Codes, ctx: RequestContext) -> dict[str, np.ndarray]:
        start, end = np.asarray([ctx.start]), np.asarray([ctx.end])
        places = self.engagements.recent(start, end, self.spec.history_length)
        read = read_history(self.engagements, places, np.asarray([ctx.ts]), codes.item, codes.category)
        return {f"history_{name}": values[0] for name, values in vars(read).items()}

    def _categorical(
        self, encoder: FeatureEncoder, codes: _Codes, ctx: RequestContext, item_rows: np.ndarray
    ) -> np.ndarray:
        hour, weekday = hour_and_weekday(ctx.ts)
        values = {
            **self.users.profile(ctx.user),
            "user_id": ctx.user_id,
            "surface": ctx.surface,
            "hour": str(hour),
            "weekday": str(weekday),
            "query": normalise(ctx.query),
        }
        block = np.empty((len(item_rows), len(self.spec.categoricals)), dtype=np.int32)
        block[:, encoder.categorical_indices(["item"])] = codes.items[item_rows]
        for place, column in enumerate(self.spec.categoricals):
            if column.name == "last_category":
                last = self.engagements.item[ctx.end - 1] if ctx.end > ctx.start else -1
                block[:, place] = codes.last_category[last] if last >= 0 else 0
            elif column.side != "item":
                block[:, place] = encoder.vocabularies[column.name].code(values[column.name])
        return block

    def _raw(self, ctx: RequestContext, item_rows: np.ndarray) -> Raw:
        """Counters of the request and its candidates, decayed to its time."""
        elapsed = max(0, ctx.ts - self.as_of)
        sums: dict[str, np.ndarray] = {}
        since: dict[str, np.ndarray] = {}
        for counter in self.spec.counters:
            state = self.counters[counter.name]
            places = self._find(counter, ctx, item_rows)
            faded = decay(self.spec, counter, elapsed).astype(np.float32)
            sums[counter.name] = state.sums.take(places, axis=0) * faded
            since[counter.name] = hours_since(np.asarray([ctx.ts]), state.last.take(places, axis=0))
        return Raw(sums, since)

    def _find(self, counter: Counter, ctx: RequestContext, item_rows: np.ndarray) -> np.ndarray:
        """Rows of the counter's arrays, int64 [n] ([1] when it is the user's own); -1, the empty row, if
        unknown."""
        state = self.counters[counter.name]
        if "user" in counter.keys:
            stride = 1
            for key in counter.keys[1:]:
                stride *= self.sizes.of(key)
            low, high = np.searchsorted(state.entity, [ctx.user * stride, (ctx.user + 1) * stride])
            if ctx.user < 0 or low == high:
                return np.full(1, -1, dtype=np.int64)
            if counter.keys == ("user",):
                return np.asarray([low])
            numbers = self._entities(counter, ctx, item_rows)
            return int(low) + _search(state.entity[low:high], numbers, -1 - int(low))
        surface = self._surface(ctx) if "surface" in counter.keys else -2
        if (counter.name, surface) not in self._places:
            everything = np.arange(len(self.items))
            numbers = self._entities(counter, ctx, everything)
            self._places[counter.name, surface] = _search(np.asarray(state.entity), numbers, -1)
        return np.asarray(self._places[counter.name, surface][item_rows])

    def _surface(self, ctx: RequestContext) -> int:
        return self.surfaces.index(ctx.surface) if ctx.surface in self.surfaces else -1

    def _entities(self, counter: Counter, ctx: RequestContext, item_rows: np.ndarray) -> np.ndarray:
        read: dict[str, Callable[[], np.ndarray]] = {
            "user": lambda: np.full(len(item_rows), ctx.user),
            "item": lambda: item_rows,
            "category": lambda: self.items.categories[0][item_rows],
            "advertiser": lambda: self.items.advertisers[0][item_rows],
            "surface": lambda: np.full(len(item_rows), self._surface(ctx)),
        }
        return self.sizes.numbers(counter.keys, {key: read[key]() for key in counter.keys})


def _search(entity: np.ndarray, numbers: np.ndarray, missing: int) -> np.ndarray:
    """Where each number stands in the sorted `entity`, `missing` where it does not."""
    if not len(entity):
        return np.full(len(numbers), missing, dtype=np.int64)
    place = np.minimum(np.searchsorted(entity, numbers), len(entity) - 1)
    return np.where(entity[place] == numbers, place, missing).astype(np.int64)


def _repeat(values: np.ndarray, rows: int) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(values, (rows, *values.shape)))
