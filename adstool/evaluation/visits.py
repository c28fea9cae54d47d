"""Logged requests of the test split, and the funnel as it was before it, where both are replayed."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from adstool.errors import DataError
from adstool.evaluation.context import Evaluation
from adstool.features.conversions import build_conversions
from adstool.features.state import ServingState, microseconds
from adstool.funnel.asked import Asked
from adstool.funnel.index import index_as_of, load_index
from adstool.funnel.moment import Moment
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.serving.light import open_towers
from adstool.serving.scorer import share_encoders
from adstool.warehouse import load_sql

Array = NDArray[Any]
DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Wanted:
    """What one user went for after the cut: positions in the corpus, and which were new to everybody."""

    positions: Array  # int64 [m]
    new: Array  # bool [m]
    fresh: Array  # bool [m]: made in the day before the request

    def only(self, some: Array) -> Wanted:
        """Those of `some`, bool [m]."""
        return Wanted(self.positions[some], self.new[some], self.fresh[some])


def cut(evaluation: Evaluation) -> datetime:
    """The start of the test split: what is evaluated knows nothing from then on."""
    return datetime.fromtimestamp(evaluation.test_start / 1e6, UTC)


def sample_requests(evaluation: Evaluation, users: list[str] | None = None) -> list[Request]:
    """The first request after the cut of sampled users who engaged with something after it, or of some of
    `users`."""
    about = {**_scope(evaluation), "limit": evaluation.settings.evaluation.requests, "users": users}
    rows = evaluation.con.execute(load_sql("evaluation_requests"), about).fetchall()
    slate = evaluation.settings.funnel.slate
    return [
        Request(user, surface, query, ts.replace(tzinfo=UTC), request or f"replay-{place}", slate)
        for place, (user, request, ts, surface, query) in enumerate(rows)
    ]


def _scope(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "item_type": evaluation.dataset.encoder.spec.corpus,
        "actions": [action.name for action in evaluation.settings.actions if action.positive],
        "start": cut(evaluation).replace(tzinfo=None),
    }


def make_ranker(evaluation: Evaluation, **sizes: Any) -> Ranker:
    """The funnel in use, with stage sizes changed; raises NotReady naming the verb for what is missing."""
    evaluation.require_run("index", "index")
    evaluation.require_run("engagement", "train engagement")
    funnel = dataclasses.replace(evaluation.settings.funnel, **sizes)
    return Ranker(
        evaluation.ws, dataclasses.replace(evaluation.settings, funnel=funnel), evaluation.con, strict=True
    )


class Past:
    """The index in use with what was known at the cut: vectors, counters and histories of that moment.

    Vectors are compared exactly, whatever index serves: this is the towers' recall, not the index's.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        """Raises NotReady when there is no index."""
        run = evaluation.require_run("index", "index")
        ws, settings, con = evaluation.ws, evaluation.settings, evaluation.con
        now = load_index(run, settings.funnel.sources)
        towers = open_towers({model: ws.models / model / name for model, name in now.runs.items()})
        share_encoders(*towers.values())
        self.evaluation = evaluation
        self.tower = towers["retrieval"]
        self.index = index_as_of(
            now,
            lambda: ServingState.build(con, ws, settings, now.state.spec, now.state.items, cut(evaluation)),
            towers,
        )
        state, corpus = self.index.state, self.index.corpus
        self.rows = slice(corpus.first_row, corpus.first_row + len(corpus))
        self.created = state.items.times("created_at")[self.rows]
        self.moment = Moment(self.index, settings)

    def asked(self, request: Request) -> Asked:
        """What the sources are asked for this request."""
        state = self.index.state
        ctx = state.request(request.user_id, request.ts, request.surface, request.query)
        inputs = state.inputs(self.tower.encoder, ctx, np.array([self.rows.start]))
        return self.moment.asked(ctx, request.request_id, self.tower.user(inputs)[0])

    def wanted(self, requests: list[Request]) -> list[Wanted]:
        """What the users of these requests engaged with after the cut, of what the index can rank."""
        users = [request.user_id for request in requests]
        rows = self.evaluation.con.execute(
            load_sql("evaluation_wanted"), {**_scope(self.evaluation), "users": users}
        ).fetchall()
        by_user: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        for user, item, new in rows:
            by_user[user].append((item, new))
        return [self._wanted(request, by_user[request.user_id]) for request in requests]

    def _wanted(self, request: Request, items: list[tuple[str, bool]]) -> Wanted:
        """From ids, and whether each was new to everybody."""
        state = self.index.state
        places = state.items.rows([item for item, _ in items], state.spec.corpus)
        new = np.array([flag for _, flag in items], dtype=bool)
        known = places >= 0
        places = places[known] - self.rows.start
        asked = microseconds(request.ts) if request.ts else state.as_of
        age = asked - self.created[places]
        return Wanted(places, new[known], (age >= 0) & (age < DAY))

    def converted(self) -> tuple[list[Request], list[Wanted]]:
        """Requests of users to whom a conversion after the cut is credited, and the ads it is credited to.

        Impressions of the test split count, by `[conversion]` of the settings, as known at the end of the
        log. Nothing where the log has no conversions.
        """
        evaluation, dataset = self.evaluation, self.evaluation.dataset
        try:
            labels = build_conversions(evaluation.con, evaluation.ws, evaluation.settings, dataset)
        except DataError:
            return [], []
        credit = labels.as_of(labels.end_ts, evaluation.test).credit
        rows = np.flatnonzero(credit.sum(axis=1) > 0) + evaluation.test.start
        users = dataset.users.column("user_id").take(np.asarray(dataset.user[rows])).to_pylist()
        items = dataset.items.column("item_id").take(pa.array(dataset.item_row[rows])).to_pylist()
        by_user: dict[str, dict[str, bool]] = defaultdict(dict)
        for user, item in zip(users, items, strict=True):
            by_user[user][item] = False
        requests = sample_requests(evaluation, sorted(by_user))
        return requests, [self._wanted(one, list(by_user[one.user_id].items())) for one in requests]
