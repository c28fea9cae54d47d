"""The serving side of the features: what was known at one moment, and the model inputs of a request from it.

It reads the same coded log and the same counters as the training examples, keeps only the last row of every
entity, and ends in the same `finish`; so a logged request gets the inputs that its examples were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adstool.config import Settings
from adstool.content.text import normalise, tokens
from adstool.errors import AdstoolError
from adstool.features.counter_state import CounterTables
from adstool.features.encoder import FeatureEncoder
from adstool.features.engagements import (
    NOTHING,
    Engagements,
    SequenceNeeds,
    content_summary,
    history_content,
    read_history,
)
from adstool.features.finish import finish
from adstool.features.interests import UserInterests, within_category
from adstool.features.items import NO_TIME, ItemTable
from adstool.features.log import FOREVER, coded_log
from adstool.features.nearest import Likeness, nearest_inputs, nearest_places
from adstool.features.off_site import OffSite
from adstool.features.query_vectors import QueryVectors
from adstool.features.singles import hour_and_weekday, single_values
from adstool.features.spec import FeatureSpec
from adstool.features.users import UserTable
from adstool.workspace import Workspace, read_json, write_arrays, write_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds UTC since 1970; a moment without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


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

    def save(self, directory: Path, digest: str) -> None:
        """Write codes-<digest>.npz into `directory`, whole or not at all."""
        write_arrays(directory / f"codes-{digest}.npz", vars(self))

    @classmethod
    def load(cls, directory: Path, digest: str) -> _Codes | None:
        """What `save` wrote for the encoder of this digest; None when it wrote nothing."""
        path = directory / f"codes-{digest}.npz"
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            return cls(**arrays)


class ServingState:
    """Counters, histories, users and items as of one moment; see `build`, `request` and `inputs`."""

    def __init__(
        self,
        spec: FeatureSpec,
        items: ItemTable,
        users: UserTable,
        engagements: Engagements,
        counters: CounterTables,
        interests: UserInterests,
        off_site: OffSite,
        queries: QueryVectors,
    ) -> None:
        self.spec = spec
        self.items = items
        self.users = users
        self.engagements = engagements
        self.counters = counters
        if spec.semantic not in ("", items.semantic):
            raise AdstoolError(
                f"The features read the semantic ids of {spec.semantic}, and the items have those of "
                f"{items.semantic or 'no run'}.",
                "Embed the items (adstool embed all) and run adstool index.",
            )
        self.interests = interests
        self.off_site = off_site
        self.queries = queries
        self.as_of = counters.as_of  # microseconds UTC: every event strictly before it is known
        self._codes: dict[FeatureEncoder, _Codes] = {}
        self._folder: Path | None = None  # where `save` has written codes too
        self._ranked = items.of_type(spec.corpus)
        self._representatives: dict[str, tuple[np.ndarray, np.ndarray]] = {}

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
            counters = CounterTables.build(log, spec, items, now)
            engagements, users = log.engagements(), log.users
            until = FOREVER if as_of is None else now
            off_site, queries = OffSite.build(log, until), QueryVectors.build(log, until)
        interests = UserInterests.build(con, settings, users, items.categories[1], until)
        return cls(spec, items, users, engagements, counters, interests, off_site, queries)

    def save(self, directory: Path) -> None:
        """Write the state into `directory`: .npy files, users.parquet, the item table and state.json, written
        last. Codes of the encoders that were used are kept too, so that `load` need not make them again."""
        directory.mkdir(parents=True, exist_ok=True)
        self.items.save(directory)
        self.users.save(directory)
        self.engagements.save(directory)
        self.interests.save(directory)
        self.off_site.save(directory)
        self.queries.save(directory)
        self.counters.save(directory)
        for encoder, codes in self._codes.items():
            if encoder.digest:
                codes.save(directory, encoder.digest)
        write_json(directory / "state.json", {"spec": self.spec.to_json(), **self.counters.facts()})

    @classmethod
    def load(cls, directory: Path) -> ServingState:
        """What `save` wrote, memory-mapped; raises AdstoolError when it is damaged or absent."""
        document = read_json(directory / "state.json")
        try:
            spec, items = FeatureSpec.from_json(document["spec"]), ItemTable.load(directory)
            counters = CounterTables.load(directory, spec, items, document)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise AdstoolError(f"{directory} holds no whole state: {error}", "Run adstool index.") from None
        users, engagements = UserTable.load(directory), Engagements.load(directory)
        interests, off_site = UserInterests.load(directory), OffSite.load(directory)
        queries = QueryVectors.load(directory)
        state = cls(spec, items, users, engagements, counters, interests, off_site, queries)
        state._folder = directory
        return state

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
        moment = self._moment(ts)
        user = self.users.number(user_id)
        start, end = self.engagements.before_one(user, moment)
        places = self.engagements.recent(np.asarray([start]), np.asarray([end]), self.spec.content_recent)
        summary = content_summary(self.engagements, places, self.items.content, self.spec.content_decay)[0]
        return RequestContext(user_id, moment, surface, query, user, user >= 0, start, end, summary)

    def _moment(self, ts: datetime | int | None) -> int:
        return self.as_of if ts is None else ts if isinstance(ts, int) else microseconds(ts)

    def nobody(
        self,
        user_id: str,
        ts: datetime | int | None = None,
        surface: str | None = None,
        query: str | None = None,
    ) -> RequestContext:
        """The same request as of a user of whom nothing is known; reads no file of the state."""
        moment = self._moment(ts)
        content = np.zeros(self.items.content.shape[1], dtype=np.float32)
        return RequestContext(user_id, moment, surface, query, -1, False, 0, 0, content)

    def inputs(
        self,
        encoder: FeatureEncoder,
        ctx: RequestContext,
        item_rows: np.ndarray,
        needs: SequenceNeeds = NOTHING,
    ) -> dict[str, np.ndarray]:
        """The model inputs (dataset.INPUTS and `needs`) of a request for n candidates, position 1.

        item_rows: int [n], rows of `items`. SHARED_INPUTS have one row, the others n. Raises AdstoolError
        when the encoder belongs to other features.
        """
        codes = self._codes_of(encoder)
        rows = len(item_rows)
        raw = self.counters.at(ctx.user, ctx.surface, ctx.ts, item_rows)
        numeric = finish(self.spec, encoder.priors, raw, self.singles(ctx, item_rows), rows)
        inputs = {
            "categorical": self._categorical(encoder, codes, ctx, item_rows),
            "numeric": encoder.numeric(numeric),
            "item_content": np.asarray(self.items.content[item_rows]),
            "user_content": ctx.user_content[None],
            **self._history(codes, ctx),
            "position": np.ones(rows, dtype=np.int16),
        }
        if needs.content:
            places = self._places(ctx, needs.content)
            inputs["history_content"] = history_content(self.engagements, places, self.items.content)
        if needs.nearest:
            inputs |= self._nearest(codes, ctx, item_rows, needs)
        return inputs

    def singles(self, ctx: RequestContext, item_rows: np.ndarray) -> dict[str, np.ndarray]:
        """The numbers of a request and its n candidates that are not counters: see single_values."""
        words = [tokens(ctx.query)]
        signup = int(self.users.signup[ctx.user]) if ctx.user >= 0 else NO_TIME
        asked = np.zeros(len(item_rows), dtype=np.int64) if words[0] else np.full(len(item_rows), -1)
        return single_values(
            self.items, item_rows, ctx.ts, signup, ctx.end - ctx.start, ctx.user_content, words, asked
        )

    def codes(
        self, encoder: FeatureEncoder, ctx: RequestContext, item_rows: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Codes [n] of a request's candidates in some categorical columns: the items' own, and `surface`."""
        found = {}
        items = [column.name for column in self.spec.categoricals if column.side == "item"]
        for name in names:
            if name in items:
                found[name] = self._codes_of(encoder).items[item_rows, items.index(name)]
            else:
                code = encoder.vocabularies[name].code({"surface": ctx.surface}[name])
                found[name] = np.full(len(item_rows), code)
        return found

    def representatives(self, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers 0 .. C - 1 of the items' categories or advertisers (by), int64 [items], none of them being
        one; and for each number the row of an item that has it, int64 [C]."""
        if by not in self._representatives:
            codes = self.items.categories[0] if by == "category" else self.items.advertisers[0]
            _, first, number = np.unique(codes, return_index=True, return_inverse=True)
            self._representatives[by] = number.astype(np.int64), first.astype(np.int64)
        return self._representatives[by]

    def eligible(self, ts: datetime | int | None = None) -> np.ndarray:
        """Rows of ranked items that exist and whose campaign runs at `ts`, int64; unknown times pass."""
        moment = self._moment(ts)
        ends = self.items.times("ends_at")
        running = (self.items.times("starts_at") <= moment) & ((ends >= moment) | (ends == NO_TIME))
        return np.flatnonzero(self._ranked & running & (self.items.times("created_at") <= moment))

    def popularity(self) -> np.ndarray:
        """Engagements of every item, decayed by the longest half life to `as_of`: float32 [items]."""
        return self.counters.popularity()

    def outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """Impressions and engagements of every item, decayed by the longest half life: float32 [items]
        each."""
        return self.counters.shown(), self.counters.popularity()

    def recent_categories(self, ctx: RequestContext) -> np.ndarray:
        """What the user engaged with by category, decayed to the request by the shortest half life: float32
        [C]."""
        return self.counters.recent_categories(ctx.user, ctx.ts)

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
                    "The index was made with other features than the model in use.",
                    "Run adstool index, or adstool run, which does what is stale.",
                )
            saved = _Codes.load(self._folder, encoder.digest) if self._folder and encoder.digest else None
            self._codes[encoder] = saved or _Codes(
                encoder.item_codes(self.items), *encoder.history_codes(self.items)
            )
        return self._codes[encoder]

    def _history(self, codes: _Codes, ctx: RequestContext) -> dict[str, np.ndarray]:
        places = self._places(ctx, self.spec.history_length)
        read = read_history(self.engagements, places, np.asarray([ctx.ts]), codes.item, codes.category)
        return {f"history_{name}": values for name, values in vars(read).items()}

    def _nearest(
        self, codes: _Codes, ctx: RequestContext, item_rows: np.ndarray, needs: SequenceNeeds
    ) -> dict[str, np.ndarray]:
        ends = np.full(len(item_rows), ctx.end)
        places = nearest_places(
            self.engagements, self._likeness, ctx.start, ends, np.asarray(item_rows), needs.nearest
        )
        content = self.items.content if needs.vectors else None
        asked = np.full(len(item_rows), ctx.ts)
        return nearest_inputs(self.engagements, places, asked, (codes.item, codes.category), content)

    @cached_property
    def _likeness(self) -> Likeness:
        return Likeness.of(self.items)

    def _places(self, ctx: RequestContext, length: int) -> np.ndarray:
        """Places of the last `length` engagements before the request, newest first: int64 [1, length]."""
        return self.engagements.recent(np.asarray([ctx.start]), np.asarray([ctx.end]), length)

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
