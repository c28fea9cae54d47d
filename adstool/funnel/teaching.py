"""The heavy ranker's opinion of candidates, shown or not, at moments of the past: what `train lightweight`
distils.

Where the funnel's log holds a request's candidates they are taken from there; else logged requests get
candidates drawn evenly from what could have been shown to them. Both are scored as `rank` would have scored
them: with the state as of a moment shortly before the request, which knows nothing later.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import DataError
from adstool.features.engagements import SHARED_INPUTS
from adstool.features.state import RequestContext, ServingState
from adstool.progress import log, track
from adstool.serving.scorer import Scorer
from adstool.training.lists import CandidateLists, Lessons
from adstool.training.value import Value, bids_of
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from adstool.features.dataset import Dataset

MOMENTS = 8  # of the training split at which states are built; requests are of the time after each
FIRST = 0.2  # share of the training rows before the first moment: earlier, little is known of anybody
VALID_SHARE = 0.2  # lists for validation, of those for training


class Teacher:
    """Makes lessons from a workspace; see training.lists.Teach."""

    def __init__(self, ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> None:
        self.ws, self.settings, self.con = ws, settings, con

    def __call__(self, dataset: Dataset, lists: int, candidates: int, seed: int) -> Lessons:
        """Lists of requests before the test split, as the engagement ranker in use scores them.

        Raises AdstoolError when there is no such ranker or it was trained on other features, DataError when
        no request before the test split had anything to choose from.
        """
        heavy = Scorer(self.ws.require_run("engagement", "train engagement"))
        if heavy.outputs != tuple(action.name for action in dataset.actions):
            raise DataError(
                "The engagement model in use has other actions than [[actions]].",
                "Train it again: adstool train engagement",
            )
        if heavy.encoder.digest == dataset.encoder.digest:
            heavy.encoder = dataset.encoder  # one set of inputs for both
        value = Value.of(self.settings, heavy.outputs)
        train, valid = dataset.splits["train"], dataset.splits["valid"]
        starts = np.linspace(FIRST * train.stop, train.stop, MOMENTS, endpoint=False).astype(np.int64)
        edges = [*(int(dataset.ts[row]) for row in starts), int(dataset.ts[valid.start])]
        end = int(dataset.ts[dataset.splits["test"].start])
        gather = _Gather(self, dataset, heavy, value, candidates, np.random.default_rng(seed))
        share = -(-lists // MOMENTS)
        taught = gather.lists(list(itertools.pairwise(edges)), share)
        judged = gather.lists([(edges[-1], end)], max(1, int(lists * VALID_SHARE)))
        log.info(
            "%s teaches with %d candidates of each of %d requests, %d of them from the funnel's log.",
            heavy.run_dir.name,
            taught.score.shape[1],
            len(taught),
            taught.logged,
        )
        funnel = self.settings.funnel
        cuts = tuple(min(1.0, read / funnel.retrieve) for read in (funnel.lightweight, funnel.slate))
        return Lessons(taught, judged, value, cuts, heavy.run_dir.name)


@dataclass(frozen=True)
class _Taught:
    """One request's candidates and what the teacher says of them."""

    inputs: dict[str, np.ndarray]
    rows: np.ndarray
    probability: np.ndarray
    score: np.ndarray
    bids: np.ndarray | None


@dataclass
class _Gather:
    teacher: Teacher
    dataset: Dataset
    heavy: Scorer
    value: Value
    candidates: int
    rng: np.random.Generator

    @cached_property
    def bids(self) -> np.ndarray:
        """Of every item."""
        return bids_of(self.dataset.items.numbers("bid"), self.teacher.settings.auction.reserve)

    def lists(self, windows: list[tuple[int, int]], share: int) -> CandidateLists:
        """At most `share` requests of each window [start, end) of microseconds, known as of its start."""
        found: list[_Taught] = []
        logged = 0
        for start, end in track(windows, "teach", unit="moment"):
            state = ServingState.build(
                self.teacher.con,
                self.teacher.ws,
                self.teacher.settings,
                self.dataset.encoder.spec,
                self.dataset.items,
                _moment(start),
            )
            for ctx, rows in self._requests(state, start, end, share):
                logged += rows is not None
                chosen = self._drawn(state, ctx) if rows is None else rows
                if len(chosen):
                    found.append(self._taught(state, ctx, chosen))
        size = min((len(one.rows) for one in found), default=0)
        if size < 2:
            raise DataError(
                "No request of the log before its last part had two items to choose from.",
                "Ingest a longer log.",
            )
        return _stacked(found, size, logged)

    def _requests(
        self, state: ServingState, start: int, end: int, share: int
    ) -> Iterator[tuple[RequestContext, np.ndarray | None]]:
        """Requests of a window, with the rows of their candidates where these were logged."""
        span: dict[str, Any] = {"start": _moment(start).replace(tzinfo=None)}
        span["end"] = _moment(end).replace(tzinfo=None)
        con, corpus = self.teacher.con, state.spec.corpus
        wanted = {**span, "candidates": self.candidates, "limit": share}
        logged = con.execute(load_sql("lightweight_funnel"), wanted).fetchall()
        for user, ts, surface, query, items in logged:
            rows = state.items.rows(items, corpus)
            rows = rows[rows >= 0]
            if len(rows) == self.candidates:
                yield state.request(user, ts, surface, query), rows
        left = {**span, "item_type": corpus, "limit": share - len(logged)}
        for user, ts, surface, query in con.execute(load_sql("lightweight_requests"), left).fetchall():
            yield state.request(user, ts, surface, query), None

    def _drawn(self, state: ServingState, ctx: RequestContext) -> np.ndarray:
        """Rows of items that could have been shown, evenly drawn, each once."""
        able = state.eligible(ctx.ts)
        return np.asarray(self.rng.permutation(able)[: self.candidates])

    def _taught(self, state: ServingState, ctx: RequestContext, rows: np.ndarray) -> _Taught:
        heavy, encoder = self.heavy, self.dataset.encoder
        read = state.inputs(heavy.encoder, ctx, rows, heavy.needs)
        probability, worth = heavy.predict_worth(read)
        bids = self.bids[rows] if state.spec.corpus == "ad" else None
        score = self.value.score(probability, bids, worth)
        inputs = read if heavy.encoder is encoder else state.inputs(encoder, ctx, rows)
        return _Taught(inputs, rows, probability, score, bids)


def _stacked(found: list[_Taught], size: int, logged: int) -> CandidateLists:
    """The first `size` candidates of every request."""

    def whole(values: list[np.ndarray], kind: type[np.generic]) -> np.ndarray:
        return np.stack([value[:size] for value in values]).astype(kind)

    names = [name for name in SHARED_INPUTS if name in found[0].inputs]
    return CandidateLists(
        {name: np.concatenate([one.inputs[name] for one in found]) for name in names},
        whole([one.inputs["categorical"] for one in found], np.int32),
        whole([one.inputs["numeric"] for one in found], np.float32),
        whole([one.rows for one in found], np.int64),
        whole([one.probability for one in found], np.float32),
        whole([one.score for one in found], np.float32),
        whole([one.bids for one in found if one.bids is not None], np.float32) if found[0].bids is not None
        else None,
        logged,
    )  # fmt: skip


def _moment(ts: int) -> datetime:
    return datetime.fromtimestamp(ts / 1e6, UTC)
