"""Ranking: sources, lightweight ranker, heavy ranker, auction, slate. No torch on this path."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.features.items import ItemTable
from adstool.features.state import RequestContext, ServingState, microseconds
from adstool.funnel.ann import best
from adstool.funnel.explain import Reasons
from adstool.funnel.index import Index, index_as_of, load_index
from adstool.funnel.log import FunnelLog, Sold, StageRows
from adstool.funnel.request import Request
from adstool.funnel.sources import Asked, Candidates, retrieve
from adstool.funnel.utility import Value, bids_of
from adstool.marketplace.auction import exposure_curve, run_auction
from adstool.progress import log
from adstool.serving.scorer import Scorer, TowerScorer, share_encoders
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Ranked:
    """What the stages made of one request; arrays of a stage are over its candidates."""

    request: Request
    ctx: RequestContext
    candidates: Candidates
    light: np.ndarray  # float64 [m], the lightweight ranker's score of every candidate
    kept: np.ndarray  # int64 [n], indices of the candidates it kept, best first
    probability: np.ndarray  # float64 [n, A], the heavy ranker's calibrated predictions for those
    score: np.ndarray  # float64 [n], what they are worth
    chosen: np.ndarray  # int64 [slots], indices into `kept`, first slot first
    prices: np.ndarray | None  # float64 [slots], a click; None for a corpus without bids
    bids: np.ndarray | None  # float64 [n]; None for a corpus without bids
    latency_ms: dict[str, float]


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
        open_end = np.iinfo(np.int64).min  # NO_TIME: before everything
        running = (self.starts <= ts) & ((self.ends >= ts) | (self.ends == open_end))
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
        index = load_index(ws.require_run("index", "index"))
        self.towers = {model: self._tower(model, run) for model, run in index.runs.items()}
        self.heavy = Scorer(ws.require_run("engagement", "train engagement"))
        share_encoders(*self.towers.values(), self.heavy)
        self.light_value = Value.of(settings, self.towers["lightweight"].outputs)
        self.value = Value.of(settings, self.heavy.outputs)
        self.log = FunnelLog()
        self._now = _Moment(index, settings)
        self._then: tuple[int, _Moment] | None = None
        exposure_curve(settings.formats[0], 1)  # a wrong curve is said before the first request

    def __enter__(self) -> Ranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

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
        self._log(ranked, self._moment(at).index)
        return self._slate(ranked, self._moment(at).index, explain)

    def parse(self, request: Mapping[str, Any] | Request, k: int | None = None) -> Request:
        """The request, checked."""
        if isinstance(request, Request):
            return request
        return Request.parse(request, self.settings.funnel.slate if k is None else k)

    def stages(self, request: Request, at: datetime | None = None) -> Ranked:
        """Every stage's candidates and scores for one request; nothing is logged."""
        clock = _Clock()
        moment = self._moment(at)
        index, settings = moment.index, self.settings.funnel
        state = index.state
        ts = request.ts if request.ts is not None else at
        ctx = state.request(request.user_id, ts, request.surface, request.query)
        eligible = moment.eligible(ctx.ts)
        users = self._users(state, ctx, index.corpus.first_row)
        asked = Asked(
            state=state,
            ctx=ctx,
            eligible=eligible,
            first_row=index.corpus.first_row,
            user_vector=users["retrieval"][0, 0],
            two_tower=index.two_tower,
            clip=index.clip,
            by_popularity=moment.by_popularity,
            popularity=moment.popularity,
            created=moment.created,
        )
        candidates = retrieve(asked, settings.retrieve)
        clock.lap("retrieval")
        bids = None if moment.bids is None else moment.bids[candidates.positions]
        light = self._lightweight(users["lightweight"], index, candidates.positions, bids)
        kept = best(light, settings.lightweight)
        clock.lap("lightweight")
        rows = candidates.positions[kept] + index.corpus.first_row
        probability = self._heavy(state, ctx, rows)
        kept_bids = None if bids is None else bids[kept]
        score = self.value.score(probability, kept_bids)
        clock.lap("heavy")
        chosen, prices = self._auction(probability, score, kept_bids, rows, state.items, request.k)
        clock.lap("auction")
        return Ranked(
            request,
            ctx,
            candidates,
            light,
            kept,
            probability,
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

    def _tower(self, model: str, run: str) -> TowerScorer:
        folder = self.ws.models / model / run
        if not folder.is_dir():
            raise AdstoolError(f"The index was made with {model} {run}, which is gone.", "Run adstool index.")
        current = self.ws.current_run(model)
        if current is not None and current.name != run:
            log.warning("The index is of %s %s; %s is newer: adstool index.", model, run, current.name)
        return TowerScorer(folder)

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

    def _heavy(self, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, len(self.heavy.outputs)))
        return self.heavy.predict(state.inputs(self.heavy.encoder, ctx, rows))

    def _auction(
        self,
        probability: np.ndarray,
        score: np.ndarray,
        bids: np.ndarray | None,
        rows: np.ndarray,
        items: ItemTable,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if bids is None:
            return best(score, k), None
        auction = self.settings.auction
        result = run_auction(
            bids,
            probability[:, self.value.click],
            exposure_curve(self.settings.formats[0], k),
            bonus=self.value.utility_weight * self.value.utility(probability),
            rule=auction.rule,
            reserve=auction.reserve,
            tie_break=rows,
        )
        return result.winners, result.prices

    def _log(self, ranked: Ranked, index: Index) -> None:
        found = ranked.candidates
        rows = found.positions + index.corpus.first_row
        order = best(ranked.light, len(ranked.light))
        in_kept = np.zeros(len(rows), dtype=bool)
        in_kept[ranked.kept] = True
        heavy = best(ranked.score, len(ranked.score))
        in_slate = np.zeros(len(ranked.kept), dtype=bool)
        in_slate[ranked.chosen] = True
        kept, slate = ranked.kept[heavy], ranked.kept[ranked.chosen]
        everything = np.ones(len(rows), dtype=bool)
        stages = (
            StageRows("retrieval", rows, found.source, found.score, everything),
            StageRows("lightweight", rows[order], found.source[order], ranked.light[order], in_kept[order]),
            StageRows("heavy", rows[kept], found.source[kept], ranked.score[heavy], in_slate[heavy]),
            StageRows(
                "auction",
                rows[slate],
                found.source[slate],
                ranked.score[ranked.chosen],
                np.ones(len(slate), dtype=bool),
            ),
        )
        sold = None
        if ranked.prices is not None and ranked.bids is not None:
            chosen = ranked.chosen
            sold = Sold(rows[slate], ranked.bids[chosen], ranked.score[chosen], ranked.prices)
        request, ctx = ranked.request, ranked.ctx
        self.log.add(
            request.request_id, ctx.ts, ctx.user_id, ctx.surface, index.state.items, found.names, stages, sold
        )

    def _slate(self, ranked: Ranked, index: Index, explain: bool) -> dict[str, Any]:
        slate: dict[str, Any] = {
            "request_id": ranked.request.request_id,
            "user_id": ranked.request.user_id,
            "ads": [self._ad(ranked, index, slot) for slot in range(len(ranked.chosen))],
            "latency_ms": {name: round(ms, 3) for name, ms in ranked.latency_ms.items()},
        }
        notes = []
        if not ranked.ctx.known:
            notes.append("unknown user: served from content, popularity and exploration")
        if not slate["ads"]:
            notes.append(_why_empty(ranked))
        if notes:
            slate["note"] = "; ".join(notes)
        if explain:
            self._explain(slate, ranked, index)
        return slate

    def _ad(self, ranked: Ranked, index: Index, slot: int) -> dict[str, Any]:
        place = int(ranked.chosen[slot])
        candidate = int(ranked.kept[place])
        row = int(ranked.candidates.positions[candidate]) + index.corpus.first_row
        predictions = ranked.probability[place].tolist()
        return {
            "ad_id": index.state.items.column("item_id")[row].as_py(),
            "score": float(ranked.score[place]),
            "predictions": dict(zip(self.heavy.outputs, predictions, strict=True)),
            "bid": None if ranked.bids is None else float(ranked.bids[place]),
            "price": None if ranked.prices is None else float(ranked.prices[slot]),
            "source": ranked.candidates.names[int(ranked.candidates.source[candidate])],
        }

    def _explain(self, slate: dict[str, Any], ranked: Ranked, index: Index) -> None:
        reasons = Reasons(index.state, ranked.ctx)
        for slot, ad in enumerate(slate["ads"]):
            candidate = int(ranked.kept[ranked.chosen[slot]])
            row = int(ranked.candidates.positions[candidate]) + index.corpus.first_row
            ad["title"] = index.state.items.column("title")[row].as_py()
            ad["why"] = reasons.of(row, ad["source"])
        slate["funnel"] = {
            "sources": {name: len(found.positions) for name, found in ranked.candidates.found.items()},
            "retrieval": len(ranked.candidates),
            "lightweight": len(ranked.kept),
            "slate": len(ranked.chosen),
        }


def _why_empty(ranked: Ranked) -> str:
    if not len(ranked.candidates):
        return "no item can be shown at that time: none exists yet, or no campaign runs"
    return "no bid reaches the reserve"


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
