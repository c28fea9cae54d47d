"""Ranking: sources, lightweight ranker, heavy ranker, auction, slate. No torch on this path."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.features.items import NO_TIME
from adstool.features.state import RequestContext, ServingState, microseconds
from adstool.funnel.ann import best
from adstool.funnel.index import Index, index_as_of
from adstool.funnel.loaded import Loaded, Refusals, load
from adstool.funnel.log import FunnelLog
from adstool.funnel.request import Request
from adstool.funnel.slate import Ranked, log_stages, slate_of
from adstool.funnel.sources import Asked, retrieve
from adstool.funnel.utility import Value, bids_of
from adstool.marketplace.auction import exposure_curve, run_auction
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


class _Moment:
    """An index with what is computed once from it."""

    def __init__(self, index: Index, settings: Settings) -> None:
        self.index = index
        state, first, n = index.state, index.corpus.first_row, len(index.corpus)
        rows = slice(first, first + n)
        self.created = state.items.times("created_at")[rows]
        self.starts = state.items.times("starts_at")[rows]
        self.ends = state.items.times("ends_at")[rows]
        self.popularity = state.popularity()[rows]
        self.by_popularity = np.argsort(-self.popularity, kind="stable")
        priced = state.spec.corpus == "ad"
        self.bids = bids_of(state.items.numbers("bid")[rows], settings.auction.reserve) if priced else None

    def eligible(self, ts: int) -> np.ndarray:
        """bool [n]: made by then, and its campaign runs; unknown times do not exclude."""
        # NO_TIME lies before everything: an unknown start has passed, an unknown end must not count so.
        running = (self.starts <= ts) & ((self.ends >= ts) | (self.ends == NO_TIME))
        return np.asarray(running & (self.created <= ts))


class Ranker:
    """Ranks requests with the index and models in use.

    A request without a time is answered as of the index's own moment, the last event it knows: in a log of
    the past the campaigns would all be over by today. `con` is used for states of other moments and for
    writing the log; without it, the warehouse is opened when needed. Raises AdstoolError naming the verb
    that makes what is missing.
    """

    def __init__(
        self, ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection | None = None
    ) -> None:
        self.ws, self.settings, self.con = ws, settings, con
        self.log = FunnelLog()
        self._refusals = Refusals()
        self._use(load(ws))
        exposure_curve(settings.formats[0], 1)  # a wrong curve is said before the first request

    def _use(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.towers, self.heavy = loaded.towers, loaded.heavy
        self.light_value = Value.of(self.settings, self.towers["lightweight"].outputs)
        self.value = Value.of(self.settings, self.heavy.outputs)
        self._now = _Moment(loaded.index, self.settings)
        self._then: tuple[int, _Moment] | None = None

    def __enter__(self) -> Ranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def refresh(self) -> bool:
        """Serve with the index and models that are in use now, if those changed; returns whether they did.

        For the thread that ranks, between requests: without a change it costs a few stats of files. What is
        new is loaded whole and answers requests before it replaces anything; where it cannot, this ranker
        goes on as it is, with a warning. Candidates waiting for `flush` stay.
        """
        fresh = self.prepare()
        if fresh is not None:
            self.adopt(fresh)
        return fresh is not None

    def prepare(self) -> Ranker | None:
        """A ranker of what is in use now, tried, for `adopt`; None without a change or when it is broken.

        Changes nothing that ranks, so another thread may do it while this ranker serves.
        """
        if not self._loaded.stale() or not self._refusals.due(self._loaded):
            return None
        try:
            fresh = Ranker(self.ws, self.settings, self.con)
            fresh.check()
        except Exception as error:  # whatever is wrong with what is new, the old serves on
            self._refusals.add(self._loaded, error)
            return None
        return fresh

    def adopt(self, fresh: Ranker) -> None:
        """Go on with what `prepare` loaded; between requests."""
        self._use(fresh._loaded)

    def check(self) -> None:
        """Rank for nobody and for somebody, and score an item, so that every file is read.

        Raises whatever fails.
        """
        state = self.index.state
        engaged = np.flatnonzero(np.diff(state.engagements.offsets))[:1].tolist()
        for user in ["", *(str(state.users.column("user_id")[number].as_py()) for number in engaged)]:
            ranked = self.stages(Request(user, None, None, None, "", 1))
        self._heavy(state, ranked.ctx, np.array([self.index.corpus.first_row]))

    @property
    def index(self) -> Index:
        """The index in use."""
        return self._now.index

    def index_at(self, at: datetime | None) -> Index:
        """The index as of a moment; None is the one in use. The last moment asked for is kept."""
        return self._moment(at).index

    @property
    def items(self) -> int:
        """How many items the index can rank."""
        return len(self._now.index.corpus)

    @property
    def as_of(self) -> int:
        """The moment of the index, microseconds UTC."""
        return self._now.index.state.as_of

    def rank(
        self,
        request: Mapping[str, Any] | Request,
        *,
        k: int | None = None,
        at: datetime | None = None,
        explain: bool = False,
    ) -> dict[str, Any]:
        """The slate of one request, as DESIGN's slate line; its candidates wait in the log for `flush`.

        k: the slate's length where the request names none. at: what was known at that moment, instead of
        the index's. explain: with a reason for every item and the counts of every stage. Raises DataError
        for a request that cannot be read.
        """
        parsed = self.parse(request, k)
        ranked = self.stages(parsed, at)
        index = self.index_at(at)
        log_stages(self.log, ranked, index)
        return slate_of(ranked, index, self.heavy.outputs, self.heavy.typical, explain)

    def parse(self, request: Mapping[str, Any] | Request, k: int | None = None) -> Request:
        """The request, checked."""
        if isinstance(request, Request):
            return request
        return Request.parse(request, self.settings.funnel.slate if k is None else k)

    def ask(self, request: Request, at: datetime | None = None) -> Asked:
        """What the candidate sources are told of a request."""
        return self._ask(request, at)[0]

    def stages(self, request: Request, at: datetime | None = None) -> Ranked:
        """Every stage's candidates and scores for one request; nothing is logged."""
        moment, settings = self._moment(at), self.settings.funnel
        clock = _Clock()
        asked, user = self._ask(request, at)
        candidates = retrieve(asked, settings.retrieve)
        clock.lap("retrieval")
        bids = None if moment.bids is None else moment.bids[candidates.positions]
        light = self._lightweight(user, moment.index, candidates.positions, bids)
        kept = best(light, settings.lightweight)
        clock.lap("lightweight")
        rows = candidates.positions[kept] + asked.first_row
        probability, worth = self._heavy(asked.state, asked.ctx, rows)
        kept_bids = None if bids is None else bids[kept]
        score = self.value.score(probability, kept_bids, worth)
        clock.lap("heavy")
        chosen, prices = self._auction(probability, worth, score, kept_bids, rows, request.k)
        clock.lap("auction")
        return Ranked(
            request,
            asked.ctx,
            candidates,
            light,
            kept,
            probability,
            worth,
            score,
            chosen,
            prices,
            kept_bids,
            clock.total(),
        )

    def flush(self, con: duckdb.DuckDBPyConnection | None = None) -> int:
        """Write the waiting candidates and auctions to the warehouse; returns how many candidates.

        The caller holds the workspace's lock. Raises WorkspaceLocked when another process has the warehouse;
        the rows then wait on.
        """
        given = con or self.con
        if given is not None:
            return self.log.write(given)
        if not self.log.pending:
            return 0
        from adstool.warehouse import open_warehouse

        with open_warehouse(self.ws, self.settings) as opened:
            return self.log.write(opened)

    def _moment(self, at: datetime | None) -> _Moment:
        if at is None:
            return self._now
        key = microseconds(at)
        if self._then is None or self._then[0] != key:
            past = index_as_of(self._now.index, lambda: self._state_at(at), self.towers)
            self._then = (key, _Moment(past, self.settings))
        return self._then[1]

    def _state_at(self, at: datetime) -> ServingState:
        from adstool.warehouse import open_warehouse

        now = self._now.index.state

        def build(con: duckdb.DuckDBPyConnection) -> ServingState:
            return ServingState.build(con, self.ws, self.settings, now.spec, now.items, at)

        if self.con is not None:
            return build(self.con)
        with open_warehouse(self.ws, self.settings, read_only=True) as con:
            return build(con)

    def _ask(self, request: Request, at: datetime | None) -> tuple[Asked, np.ndarray]:
        """What the sources are told, and the user's vectors [1, H, d] of the lightweight ranker."""
        moment = self._moment(at)
        state, first = moment.index.state, moment.index.corpus.first_row
        ts = request.ts if request.ts is not None else at
        ctx = state.request(request.user_id, ts, request.surface, request.query)
        vectors = self._users(state, ctx, first)
        asked = Asked(
            state=state,
            ctx=ctx,
            eligible=moment.eligible(ctx.ts),
            first_row=first,
            user_vector=vectors["retrieval"][0, 0],
            two_tower=moment.index.two_tower,
            clip=moment.index.clip,
            semantic=moment.index.semantic,
            sequence=moment.index.sequence,
            by_popularity=moment.by_popularity,
            popularity=moment.popularity,
            created=moment.created,
        )
        return asked, vectors["lightweight"]

    def _users(self, state: ServingState, ctx: RequestContext, any_row: int) -> dict[str, np.ndarray]:
        """The user's vectors [1, H, d] by tower; towers of equal features share the inputs."""
        made: dict[int, dict[str, np.ndarray]] = {}
        vectors = {}
        for model, tower in self.towers.items():
            encoder = tower.encoder
            if id(encoder) not in made:
                made[id(encoder)] = state.inputs(encoder, ctx, np.array([any_row]))
            vectors[model] = tower.user(made[id(encoder)])
        return vectors

    def _lightweight(
        self, user: np.ndarray, index: Index, positions: np.ndarray, bids: np.ndarray | None
    ) -> np.ndarray:
        tower = self.towers["lightweight"]
        vectors = index.corpus.lightweight[positions].reshape(len(positions), *user.shape[1:])
        return self.light_value.score(tower.probability(user, vectors), bids)

    def _heavy(
        self, state: ServingState, ctx: RequestContext, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if not len(rows):
            nothing = np.zeros((0, len(self.heavy.outputs)))
            return nothing, nothing
        return self.heavy.predict_worth(state.inputs(self.heavy.encoder, ctx, rows, self.heavy.needs))

    def _auction(
        self,
        probability: np.ndarray,
        worth: np.ndarray,
        score: np.ndarray,
        bids: np.ndarray | None,
        rows: np.ndarray,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if bids is None:
            return best(score, k), None
        auction = self.settings.auction
        result = run_auction(
            bids,
            probability[:, self.value.click],
            exposure_curve(self.settings.formats[0], k),
            bonus=self.value.utility_weight * self.value.utility(worth),
            rule=auction.rule,
            reserve=auction.reserve,
            tie_break=rows,
        )
        return result.winners, result.prices


class _Clock:
    """Milliseconds of each stage since the one before, and of all."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._started = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1e3
        self._last = now

    def total(self) -> dict[str, float]:
        return {**self._laps, "total": (self._last - self._started) * 1e3}
