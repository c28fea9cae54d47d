"""Logged requests asked again, every source at full depth, scored by both rankers: what quotas learn from.

The funnel log holds what the quotas of its time let through, at the one source that is named first; what a
source would have brought further down, and what another brought too, is not in it. So requests are asked
again, as of the index's moment.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from adstool.config import Settings
from adstool.errors import DataError
from adstool.funnel.asked import Found
from adstool.funnel.quota import OneQuota, Quota, segment_of
from adstool.funnel.quota_learning import FAR, Cost, Replayed
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import sources_of
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

HEAVY = 2000  # candidates of a request that the heavy ranker scores, the lightweight ranker's best
STRANGER = 5  # of so many requests one is asked by somebody without a past
TIMED = 40  # requests on which sources are timed
SHALLOW = 8  # depths are timed at the whole depth and at this part of it


@dataclass(frozen=True)
class Replays:
    """Requests with what every source found, and what that costs."""

    names: tuple[str, ...]
    requests: list[Replayed]
    found: list[dict[str, Found]]  # of every request
    cost: Cost  # milliseconds
    as_of: int  # microseconds UTC


def sample(con: duckdb.DuckDBPyConnection, item_type: str, count: int, slate: int) -> list[Request]:
    """Requests of the log, some of them as of a stranger; raises DataError when there are too few."""
    rows = con.execute(load_sql("quota_requests"), {"item_type": item_type, "limit": count}).fetchall()
    if len(rows) < 10:
        raise DataError(
            f"The log has {len(rows)} requests that showed {item_type}s, too few to learn quotas from.",
            "Ingest more events, or set [funnel] quotas by hand.",
        )
    return [
        Request(f"stranger {name}" if place % STRANGER == 0 else user, surface, query, None, name, slate)
        for place, (name, user, surface, query) in enumerate(rows)
    ]


def replay(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, count: int, depth: int
) -> Replays:
    """Replay `count` requests with every source at `depth`."""
    ranker = Ranker(ws, settings, con, strict=True)
    names = tuple(sources_of(ranker.index))
    funnel = replace(settings.funnel, retrieve=ranker.items, lightweight=HEAVY)
    ranker.settings = replace(settings, funnel=funnel)
    ranker.plan = OneQuota(Quota(dict.fromkeys(names, depth), ranker.items, fill=False))
    requests = sample(con, ranker.index.state.spec.corpus, count, settings.funnel.slate)
    replayed, found, later = [], [], []
    for request in requests:
        ranked = ranker.stages(request)
        heavy = np.full(len(ranked.light), -np.inf)
        heavy[ranked.kept] = ranked.score
        order = np.argsort(ranked.candidates.positions)
        positions = ranked.candidates.positions[order]
        lists = dict(ranked.candidates.found)
        ranks = ranks_in([lists[name].positions for name in names], positions)
        replayed.append(
            Replayed(
                request.user_id,
                segment_of(ranked.ctx),
                positions,
                ranks,
                ranked.light[order],
                heavy[order],
            )
        )
        found.append(lists)
        later.append(ranked.latency_ms["lightweight"] / max(len(positions), 1))
    fixed, each = time_sources(ranker, requests[:TIMED], depth)
    cost = Cost(fixed, each, float(np.median(later)))
    return Replays(names, replayed, found, cost, ranker.as_of)


def ranks_in(lists: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """The rank from 1 of every position in every list, FAR where it is not in it: int32 [S, m].

    positions: int64 [m], rising, holding all that is in the lists.
    """
    ranks = np.full((len(lists), len(positions)), FAR, dtype=np.int32)
    for row, one in zip(ranks, lists, strict=True):
        row[np.searchsorted(positions, one)] = np.arange(1, len(one) + 1)
    return ranks


def time_sources(ranker: Ranker, requests: Sequence[Request], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds that each source takes at all, and for each candidate more: float64 [S] each.

    Medians of the requests, at the whole depth and at a part of it.
    """
    shallow = max(depth // SHALLOW, 1)
    times: Mapping[str, list[tuple[float, float]]] = {name: [] for name in sources_of(ranker.index)}
    for request in requests:
        asked = ranker.ask(request)
        _ = asked.wanted  # shared by sources: not to be counted with the first that reads it
        for name, source in sources_of(asked).items():
            laps = [time.perf_counter()]
            for some in (shallow, depth):
                source(asked, some)
                laps.append(time.perf_counter())
            times[name].append((1e3 * (laps[1] - laps[0]), 1e3 * (laps[2] - laps[1])))
    middle = np.array([np.median(measured, axis=0) for measured in times.values()])
    each = np.maximum(middle[:, 1] - middle[:, 0], 0.0) / max(depth - shallow, 1)
    return np.maximum(middle[:, 0] - each * shallow, 0.0), each
