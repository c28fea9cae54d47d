"""When people come: sessions by daily and weekly rhythm with a holiday spike, a few requests in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adstool.world.catalogue import DAY
from adstool.world.config import WorldConfig
from adstool.world.population import Population
from adstool.world.vocabulary import Ints

SURFACES = ("home", "search", "related")
REQUESTS_A_SESSION = 2.2
HOLIDAY_LIFT = 1.9
MIN_GAP = 120  # seconds between two requests of a user: every action on a slate comes before the next slate
_WEEK = np.array([1.0, 0.97, 0.96, 0.98, 1.02, 1.12, 1.2])  # Monday to Sunday
# Share of sessions that begin in each hour: a quiet night, lunch, and a long evening.
_HOURS = np.array(
    [20, 12, 8, 5, 4, 6, 12, 22, 32, 38, 42, 48, 58, 52, 46, 46, 50, 58, 70, 86, 98, 100, 76, 42.0]
)


@dataclass
class Requests:
    """Requests of one day, sorted by user and time; `rank` counts a user's requests of the day from 0."""

    user: Ints
    seconds: Ints  # from the world's start
    surface: Ints
    rank: Ints

    def of_users_below(self, number: int) -> Requests:
        """The requests of the first `number` users."""
        few = self.user < number
        return Requests(self.user[few], self.seconds[few], self.surface[few], self.rank[few])


def weekday(config: WorldConfig, day: int) -> int:
    """0 for Monday."""
    return (config.started_at.weekday() + day) % 7


def requests_of_day(config: WorldConfig, people: Population, day: int) -> Requests:
    """All requests of `day`; depends on the seed and the day only."""
    rng = np.random.default_rng([config.seed, 4, day])
    lift = _WEEK[weekday(config, day)] / _WEEK.mean() * (HOLIDAY_LIFT if day == config.holiday else 1.0)
    here = people.signup < (day + 1) * DAY
    mean = config.requests_per_user_day / REQUESTS_A_SESSION * lift * people.activity * here
    sessions = np.repeat(np.arange(config.users), rng.poisson(mean))
    hour = rng.choice(24, len(sessions), p=_HOURS / _HOURS.sum())
    begin = day * DAY + hour * 3600 + rng.integers(0, 3600, len(sessions))
    length = np.minimum(rng.geometric(1 / REQUESTS_A_SESSION, len(sessions)), 8)
    owner = np.repeat(np.arange(len(sessions)), length)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
    gap = MIN_GAP + rng.exponential(240.0, len(owner)).astype(np.int64)
    gap[place == 0] = 0
    walked = np.cumsum(gap)
    since = walked - np.repeat(walked[place == 0], length)
    seconds = begin[owner] + since
    user = sessions[owner]
    surface = np.where(
        place == 0,
        rng.choice(3, len(owner), p=(0.62, 0.3, 0.08)),
        rng.choice(3, len(owner), p=(0.34, 0.3, 0.36)),
    )
    keep = (seconds < (day + 1) * DAY - MIN_GAP) & (seconds >= people.signup[user])
    return _ordered(user[keep], seconds[keep], surface[keep])


def _ordered(user: Ints, seconds: Ints, surface: NDArray[np.int64]) -> Requests:
    order = np.lexsort((seconds, user))
    user, seconds, surface = user[order], seconds[order], surface[order]
    # Two sessions of one user may overlap: what comes too soon after its predecessor is dropped.
    fresh = np.ones(len(user), dtype=bool)
    fresh[1:] = (user[1:] != user[:-1]) | (seconds[1:] - seconds[:-1] >= MIN_GAP)
    user, seconds, surface = user[fresh], seconds[fresh], surface[fresh]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.r_[starts, len(user)])
    rank = np.arange(len(user)) - np.repeat(starts, lengths)
    return Requests(user, seconds, surface.astype(np.int64), rank)
