"""Ranking: sources, lightweight ranker, heavy ranker, auction, slate. No torch on this path."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.features.state import RequestContext, ServingState, microseconds
from adstool.funnel.ann import best
from adstool.funnel.asked import Asked
from adstool.funnel.budgets import charges
from adstool.funnel.candidates import retrieve
from adstool.funnel.fallback import Guard, Predicted, Warnings, predicted, unpredicted
from adstool.funnel.index import Index, index_as_of
from adstool.funnel.loaded import Loaded, Refusals, load
from adstool.funnel.log import FunnelLog
from adstool.funnel.moment import Moment
from adstool.funnel.pace import Clock, Deadline, Pace
from adstool.funnel.quota import plan_of
from adstool.funnel.request import MAX_SLATE, Request
from adstool.funnel.slate import Ranked, log_stages, slate_of
from adstool.funnel.sources import sources_of
from adstool.marketplace.auction import Cap, exposure_of_ads, run_auction
from adstool.serving.light import Tower
from adstool.training.value import Value, paid_head
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


_NONE = np.zeros(0)
STAGE_OF = {"retrieval": "two_tower", "lightweight": "lightweight"}  # what a tower's user vector is for
INSTEAD_OF = {"retrieval": "the other sources", "lightweight": "the order of the sources"}


class Ranker:
    """Ranks requests with the index and models in use.

    A request without a time is answered as of the index's own moment, the last event it knows: in a log of
    the past the campaigns would all be over by today. `con` is used for states of other moments and for
    writing the log; without it, the warehouse is opened when needed. Raises AdstoolError naming the verb
    that makes what is missing.
    """

    def __init__(
        self,
        ws: Workspace,
        settings: Settings,
        con: duckdb.DuckDBPyConnection | None = None,
        *,
        strict: bool = False,
    ) -> None:
        """strict: a stage that fails raises; otherwise its fallback answers and the slate says so.

        Raises AdstoolError when funnel.slate is no length of a slate.
        """
        if not 1 <= settings.funnel.slate <= MAX_SLATE:
            raise AdstoolError(
                f"funnel.slate = {settings.funnel.slate} is no whole number from 1 to {MAX_SLATE}.",
                "Mend it in adstool.toml.",
            )
        self.ws, self.settings, self.con, self.strict = ws, settings, con, strict
        self.log = FunnelLog()
        self._refusals, self._warnings = Refusals(), Warnings()
        self._pace = Pace()
        loaded = load(ws, settings.funnel.threads, settings.funnel.sources)
        self._use(loaded, Moment(loaded.index, settings))
        # What is wrong in the settings is said before the first request.
        run_auction(_NONE, _NONE, self._exposure(1), rule=settings.auction.rule)

    def _use(self, loaded: Loaded, now: Moment) -> None:
        self._loaded, self._now = loaded, now
        self.towers, self.light, self.heavy = loaded.towers, loaded.light, loaded.heavy
        self.light_value = Value.of(self.settings, self.light.outputs)
        self.value = Value.of(self.settings, self.heavy.outputs)
        funnel = self.settings.funnel
        self.plan = plan_of(loaded.quota, funnel.quotas, sources_of(loaded.index), funnel.retrieve)
        self._then: tuple[int, Moment] | None = None

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
            fresh = Ranker(self.ws, self.settings, self.con, strict=True)
            fresh.check()
        except Exception as error:  # whatever is wrong with what is new, the old serves on
            self._refusals.add(self._loaded, error)
            return None
        return fresh

    def adopt(self, fresh: Ranker) -> None:
        """Go on with what `prepare` loaded; between requests."""
        self._use(fresh._loaded, fresh._now)

    def check(self) -> None:
        """Rank for nobody and for somebody, and score an item, so that every file is read.

        A `strict` ranker raises whatever fails.
        """
        state = self.index.state
        engaged = np.flatnonzero(np.diff(state.engagements.offsets))[:1].tolist()
        for user in ["", *(str(state.users.column("user_id")[number].as_py()) for number in engaged)]:
            ranked = self.stages(Request(user, None, None, None, "", 1))
        self._heavy(state, ranked.ctx, np.array([self.index.corpus.first_row]), None)
        self._pace = Pace()  # loading is no cost of a request

    def warm(self) -> None:
        """Rank for nobody, so that the first request finds models loaded and its costs known."""
        nobody = Request("", None, None, None, "", 1)
        self.stages(nobody)
        self._pace = Pace()  # loading is no cost of a request
        self.stages(nobody)

    @property
    def index(self) -> Index:
        """The index in use."""
        return self._now.index

    def index_at(self, at: datetime | None) -> Index:
        """The index as of a moment; None is the one in use. The last moment asked for is kept."""
        return self._moment(at).index

    @property
    def runs(self) -> dict[str, str]:
        """The run that serves, of the index and of every model."""
        return {
            "index": self.index.directory.name,
            **self.index.runs,
            "engagement": self.heavy.run_dir.name,
        }

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
        budget_ms: float | None = None,
    ) -> dict[str, Any]:
        """The slate of one request, as DESIGN's slate line; its candidates wait in the log for `flush`.

        k: the slate's length where the request names none. at: what was known at that moment, instead of
        the index's. explain: with a reason for every item and the counts of every stage. budget_ms: the time
        it may take, instead of the setting's; sources and candidates that would make it late are left out,
        and the slate says which. Raises DataError for a request that cannot be read.
        """
        parsed = self.parse(request, k)
        ranked = self.stages(parsed, at, budget_ms)
        index = self.index_at(at)
        log_stages(self.log, ranked, index, paid_head(self.settings.actions, ranked.heads))
        self._warnings.say(ranked.fallbacks)
        return slate_of(ranked, index, self.heavy.typical, explain)

    def parse(self, request: Mapping[str, Any] | Request, k: int | None = None) -> Request:
        """The request, checked."""
        if isinstance(request, Request):
            return request
        return Request.parse(request, self.settings.funnel.slate if k is None else k)

    def ask(self, request: Request, at: datetime | None = None) -> Asked:
        """What the candidate sources are told of a request."""
        return self._ask(request, at, Guard(strict=True))[0]

    def stages(self, request: Request, at: datetime | None = None, budget_ms: float | None = None) -> Ranked:
        """Every stage's candidates and scores for one request; nothing is logged."""
        moment, settings = self._moment(at), self.settings.funnel
        deadline = Deadline(self._pace, settings.budget_ms if budget_ms is None else budget_ms)
        clock, guard = Clock(), Guard(self.strict, deadline)
        asked, user = self._ask(request, at, guard)
        candidates = retrieve(asked, settings.retrieve, guard, self.plan.of(asked.ctx))
        clock.lap("retrieval")
        bids = None if moment.bids is None else moment.bids[candidates.positions]
        light = self._light(asked, user, moment.index, candidates.positions, bids, guard)
        scored = deadline.candidates(settings.lightweight, request.k)
        kept = best(light.score, scored)
        self._pace.learn("lightweight", clock.lap("lightweight"))
        rows = candidates.positions[kept] + asked.first_row
        kept_bids = None if bids is None else bids[kept]
        heavy = guard.attempt(
            "heavy",
            lambda: self._heavy(asked.state, asked.ctx, rows, kept_bids),
            "the lightweight ranker's order" if light.heads else "the order of the sources",
        )
        final = light.take(kept) if heavy is None else heavy
        self._pace.learn("heavy", clock.lap("heavy"), scored / settings.lightweight)
        chosen, prices = self._auction(final, asked.state, kept_bids, rows, request.k)
        self._pace.learn("auction", clock.lap("auction"))
        return Ranked(
            request,
            asked.ctx,
            candidates,
            light.score,
            kept,
            final.heads,
            final.probability,
            final.worth,
            final.score,
            chosen,
            prices,
            kept_bids,
            guard.fallbacks,
            deadline.trimmed(),
            clock.total(),
        )

    def flush(self, con: duckdb.DuckDBPyConnection | None = None) -> int:
        """Write the waiting candidates and auctions to the warehouse; returns how many candidates.

        Without a connection, what cannot be written at once is put aside, as FunnelLog.keep does.
        """
        given = con or self.con
        return self.log.keep(self.ws, self.settings) if given is None else self.log.write(given)

    def _moment(self, at: datetime | None) -> Moment:
        if at is None:
            return self._now
        key = microseconds(at)
        if self._then is None or self._then[0] != key:
            past = index_as_of(self._now.index, lambda: self._state_at(at), self.towers)
            self._then = (key, Moment(past, self.settings))
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

    def _ask(self, request: Request, at: datetime | None, guard: Guard) -> tuple[Asked, np.ndarray | None]:
        """What the sources are told, and the user's row [1, U] of the lightweight ranker, if any."""
        moment = self._moment(at)
        state, first = moment.index.state, moment.index.corpus.first_row
        ts = request.ts if request.ts is not None else at
        about = (request.user_id, ts, request.surface, request.query)
        ctx = guard.attempt("user", lambda: state.request(*about), "as an unknown user")
        ctx = state.nobody(*about) if ctx is None else ctx
        vectors = self._users(state, ctx, first, guard)
        towers = vectors.get("retrieval")
        over = self._over(moment, ctx.ts)
        asked = moment.asked(ctx, request.request_id, None if towers is None else towers[0], over)
        return asked, vectors.get("lightweight")

    def _over(self, moment: Moment, ts: int) -> frozenset[str]:
        """The campaigns that have spent their daily budget; a `strict` ranker sells nothing, so none."""
        if self.strict or not moment.budgets.daily:
            return frozenset()
        if not self.log.spending.knows(ts):
            self.log.spending.start(ts, charges(self.ws, self.settings, self.con, ts))
        return self.log.spending.over(ts, moment.budgets.daily)

    def _users(
        self, state: ServingState, ctx: RequestContext, any_row: int, guard: Guard
    ) -> dict[str, np.ndarray]:
        """The user's vectors or row by tower that has one; towers of equal features share the inputs."""
        made: dict[int, dict[str, np.ndarray]] = {}

        def vectors(tower: Tower) -> np.ndarray:
            encoder = tower.encoder
            if id(encoder) not in made:
                made[id(encoder)] = state.inputs(encoder, ctx, np.array([any_row]))
            return tower.user(made[id(encoder)])

        found = {
            model: guard.attempt(STAGE_OF[model], partial(vectors, tower), INSTEAD_OF[model])
            for model, tower in self.towers.items()
        }
        return {model: made for model, made in found.items() if made is not None}

    def _light(
        self,
        asked: Asked,
        user: np.ndarray | None,
        index: Index,
        positions: np.ndarray,
        bids: np.ndarray | None,
        guard: Guard,
    ) -> Predicted:
        light = None
        if user is not None:
            light = guard.attempt(
                "lightweight",
                lambda: self._lightweight(asked, user, index, positions, bids),
                INSTEAD_OF["lightweight"],
            )
        return unpredicted(len(positions)) if light is None else light

    def _lightweight(
        self, asked: Asked, user: np.ndarray, index: Index, positions: np.ndarray, bids: np.ndarray | None
    ) -> Predicted:
        items, rows = index.corpus.lightweight[positions], positions + asked.first_row
        probability = self.light.score(asked.state, asked.ctx, user, items, rows)
        return predicted(self.light_value, self.light.outputs, probability, probability, bids)

    def _heavy(
        self, state: ServingState, ctx: RequestContext, rows: np.ndarray, bids: np.ndarray | None
    ) -> Predicted:
        heavy = self.heavy
        if len(rows):
            probability, worth = heavy.predict_worth(state.inputs(heavy.encoder, ctx, rows, heavy.needs))
        else:
            probability = worth = np.zeros((0, len(heavy.outputs)))
        return predicted(self.value, heavy.outputs, probability, worth, bids)

    def _auction(
        self, final: Predicted, state: ServingState, bids: np.ndarray | None, rows: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        auction, value = self.settings.auction, final.value
        if bids is None:
            return best(final.score, k), None
        if value is None:  # nobody knows how probable a click is: in order, at the lowest price
            allowed = np.flatnonzero(bids >= auction.reserve)
            chosen = allowed[best(final.score[allowed], k)]
            return chosen, np.full(len(chosen), auction.reserve)
        result = run_auction(
            bids,
            final.probability[:, value.click],
            self._exposure(k),
            bonus=value.utility_weight * value.utility(final.worth),
            rule=auction.rule,
            reserve=auction.reserve,
            caps=self._caps(state, rows),
            tie_break=rows,
        )
        return result.winners, result.prices

    def _exposure(self, ads: int) -> np.ndarray:
        return exposure_of_ads(self.settings.formats[0], self.settings.auction, ads)

    def _caps(self, state: ServingState, rows: np.ndarray) -> list[Cap]:
        """How many of one advertiser and of one category may win; rows: of the candidates."""
        items, auction = state.items, self.settings.auction
        caps = []
        if auction.per_advertiser:
            caps.append(Cap(items.advertisers[0][rows], auction.per_advertiser))
        if auction.per_category:
            caps.append(Cap(items.categories[0][rows], auction.per_category))
        return caps
