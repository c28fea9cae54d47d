"""The event log of a day, put together from what was shown and done: ids, times, values, in order of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adstool.world.behaviour import ACTIONS, Day
from adstool.world.config import WorldConfig
from adstool.world.vocabulary import Ints, Taxonomy, write_queries

Floats = NDArray[np.float64]
EVENT_ACTIONS = ("impression", *ACTIONS, "query")
QUERY = len(EVENT_ACTIONS) - 1


@dataclass
class Events:
    """Columns of one day's log, in order of time. Row indices of -1 and nan stand for no value."""

    seconds: Ints  # from the world's start
    request: Ints  # number of the request over the whole world, from 1
    user: Ints
    surface: Ints
    item: Ints  # -1 for queries
    position: Ints  # -1 for queries
    action: Ints  # index into EVENT_ACTIONS
    value: Floats  # dwell in seconds of a long click
    propensity: Floats  # of impressions
    policy: Ints  # of impressions, else -1
    query: Ints  # row of `texts`, -1 without
    texts: list[str]


def number_requests(day: Day, before: int) -> Ints:
    """The number of each request of the day, counting in order of time on from `before`."""
    order = np.lexsort((day.requests.user, day.requests.seconds))
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = before + 1 + np.arange(len(order))
    return numbers


def action_lags(config: WorldConfig, number: int, day: Day) -> tuple[Ints, Ints]:
    """Seconds from impression to each action [n, len(ACTIONS)], and the dwell of a long click [n].

    All are shorter than the least gap between two requests of a user: a slate is done before the next.
    """
    rng = np.random.default_rng([config.seed, 8, number])
    rows = len(day.shown.item)
    lags = rng.integers(1, 28, (rows, len(ACTIONS)))
    dwell = rng.integers(30, 88, rows)
    lags[:, 1] = lags[:, 0] + dwell
    lags[:, 2:] += np.where(day.shown.acted[:, [0]], lags[:, [0]], 0)
    return lags.astype(np.int64), dwell.astype(np.int64)


def assemble(
    config: WorldConfig, number: int, day: Day, words: Taxonomy, requests: Ints, lags: Ints, dwell: Ints
) -> Events:
    """The log of day `number`: a query event a search, an impression a slot, and every action after it."""
    rng = np.random.default_rng([config.seed, 9, number])
    shown = day.shown
    if not len(shown.item):
        return _nothing()
    asking = np.flatnonzero(day.query_category >= 0)
    texts = write_queries(rng, words, day.query_category[asking], day.query_attribute[asking])
    text_of = np.full(len(day.requests.user), -1)
    text_of[asking] = np.arange(len(asking))
    impression, kind = np.nonzero(shown.acted)
    many = len(shown.item)
    row = np.concatenate([shown.request, shown.request[impression], asking])
    action = np.concatenate([np.zeros(many, dtype=np.int64), 1 + kind, np.full(len(asking), QUERY)])
    source = np.concatenate([np.arange(many), impression, np.full(len(asking), -1)])
    lag = np.concatenate(
        [np.zeros(many, dtype=np.int64), lags[impression, kind], np.zeros(len(asking), dtype=np.int64)]
    )
    seconds = day.requests.seconds[row] + lag
    position = np.where(action == QUERY, -1, shown.position[source])
    # At one second: the query (position -1), then the slate from the top, then actions.
    order = np.lexsort((action, position, requests[row], seconds))
    row, action, source, seconds = row[order], action[order], source[order], seconds[order]
    is_query, is_impression = action == QUERY, action == 0
    return Events(
        seconds=seconds,
        request=requests[row],
        user=day.requests.user[row],
        surface=day.requests.surface[row],
        item=np.where(is_query, -1, shown.item[source]),
        position=position[order],
        action=action,
        value=np.where(action == 2, dwell[source], np.nan),
        propensity=np.where(is_impression, shown.propensity[source], np.nan),
        policy=np.where(is_impression, day.policy[row], -1),
        query=np.where(is_query | is_impression, text_of[row], -1),
        texts=texts,
    )


def _nothing() -> Events:
    """The log of a day on which nothing was shown."""
    none, empty = np.zeros(0, dtype=np.int64), np.zeros(0)
    return Events(
        seconds=none, request=none, user=none, surface=none, item=none, position=none, action=none,
        value=empty, propensity=empty, policy=none, query=none, texts=[],
    )  # fmt: skip
