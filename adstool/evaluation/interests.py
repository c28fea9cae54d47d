"""The interests stage: whether the categories that users are thought to want are those that they want.

Judged twice: against what users engaged with after the cut, which any log has, and in a synthetic world
against the true interests at the cut. Baselines are the categories most popular with everybody, those each
user engaged with most, and those he engaged with last.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.context import Evaluation, NotReady
from adstool.evaluation.metrics import grouped_ndcg
from adstool.evaluation.visits import cut
from adstool.features.interests import UserInterests
from adstool.features.users import UserTable
from adstool.warehouse import load_sql
from adstool.world.truth import true_interests

Array = NDArray[Any]
K = 10
INFERRED = "interests"
WITHOUT = "on_site_only"
WITH = "with_offsite"


def evaluate_interests(evaluation: Evaluation) -> dict[str, Any]:
    """NDCG@10 of users' categories as of the start of the test split, with intervals from resampling users.

    `later`: the gain of a category is how often the user engaged with it after the cut. `truth`: it is the
    cosine of the user's true interest and the category, 0 where that is negative. Both over users who were
    seen before the cut; newcomers are users without any event before it. Raises NotReady where no item has
    a category.
    """
    categories = evaluation.dataset.items.categories[1]
    if not categories:
        raise NotReady(
            "No item of the catalogue has a category.", "Ingest a catalogue with a column category."
        )
    users = _Users(evaluation, categories)
    scores = {
        INFERRED: users.inferred(evaluation.settings.interests.offsite),
        WITH: users.inferred(True),
        WITHOUT: users.inferred(False),
        "most_popular": np.broadcast_to(users.engaged.sum(axis=0), users.engaged.shape),
        "most_engaged": users.engaged,
        "last_engaged": users.last,
        "chance": np.zeros(users.engaged.shape),
    }
    seen = users.shown.sum(axis=1) > 0
    result: dict[str, Any] = {
        "as_of": f"{cut(evaluation):%Y-%m-%dT%H:%M:%SZ}",
        "categories": len(categories),
        "offsite": evaluation.settings.interests.offsite,
        "users": int(seen.sum()),
        "later": compare(users.later, scores, seen, evaluation),
    }
    gains = _true_gains(evaluation, users)
    if gains is not None:
        result["truth"] = compare(gains, scores, seen, evaluation)
        result["truth_newcomers"] = compare(gains, scores, ~seen, evaluation)
        bought = seen & users.bought
        result["truth_offsite_users"] = compare(gains, scores, bought, evaluation)
    return result


def compare(gains: Array, scores: dict[str, Array], among: Array, evaluation: Evaluation) -> dict[str, Any]:
    """NDCG@10 of every scoring, float [users, categories], over the users `among` who have any gain.

    Returns users, ndcg@10 by name, intervals, and the gain of off-site data with its paired interval.
    """
    kept = np.flatnonzero(among & (gains.sum(axis=1) > 0))
    if not len(kept):
        return {"users": 0}
    resampler = evaluation.resampler(kept)
    ndcg = {name: user_ndcg(gains[kept], values[kept]) for name, values in scores.items()}
    result: dict[str, Any] = {"users": len(kept), "ndcg@10": {}, "intervals": {}}
    for name, values in ndcg.items():
        found = resampler.mean(values)
        result["ndcg@10"][name], result["intervals"][name] = found.value, found.interval
    result["offsite_gain"] = _difference(resampler, ndcg[WITH], ndcg[WITHOUT])
    result["gain_over_most_engaged"] = _difference(resampler, ndcg[INFERRED], ndcg["most_engaged"])
    return result


def user_ndcg(gains: Array, scores: Array) -> Array:
    """NDCG@10 of every user's order of categories, [users], from [users, categories] each; ties averaged."""
    users = np.repeat(np.arange(len(gains)), gains.shape[1])
    return grouped_ndcg(users, np.asarray(gains).ravel(), np.asarray(scores).ravel(), K)


def _difference(resampler: Resampler, one: Array, other: Array) -> dict[str, Any]:
    found = resampler.mean(one - other)
    return {"value": found.value, "interval": found.interval}


class _Users:
    """Users and categories as arrays [users, categories]; users are all whom catalogue or log know."""

    def __init__(self, evaluation: Evaluation, categories: list[str]) -> None:
        self._evaluation, self.categories = evaluation, categories
        until = evaluation.test_start
        con = evaluation.con
        self.table = UserTable(con.sql(load_sql("features_users"), params={"until": until}).to_arrow_table())
        self.ids: list[str] = self.table.column("user_id").to_pylist()
        place = {name: number for number, name in enumerate(self.ids)}
        number = {name: at for at, name in enumerate(categories)}
        actions = [action.name for action in evaluation.settings.actions if action.positive]
        rows = con.execute(
            load_sql("evaluation_interest_log"),
            {"start": cut(evaluation).replace(tzinfo=None), "actions": actions},
        ).fetchnumpy()
        known = np.array([user in place for user in rows["user_id"]], dtype=bool)
        at = (
            np.array([place[user] for user in rows["user_id"][known]], dtype=np.int64),
            np.array([number[name] for name in rows["category"][known]], dtype=np.int64),
        )
        shape = (len(self.ids), len(categories))
        self.shown, self.engaged, self.last, self.later = (np.zeros(shape) for _ in range(4))
        for array, column in ((self.shown, "shown"), (self.engaged, "engaged"), (self.later, "later")):
            array[at] = rows[column][known]
        self.last[at] = np.ma.filled(rows["last_ts"][known].astype(np.float64), 0.0)
        bought = con.execute(
            "select distinct user_id from conversions where coalesce(reported_at, ts) < $start",
            {"start": cut(evaluation).replace(tzinfo=None)},
        ).fetchall()
        self.bought = np.isin(np.array(self.ids), np.array([user for (user,) in bought], dtype=str))

    def inferred(self, offsite: bool) -> Array:
        """The interests as of the cut, with or without off-site data."""
        settings = self._evaluation.settings
        chosen = dataclasses.replace(
            settings, interests=dataclasses.replace(settings.interests, offsite=offsite)
        )
        found = UserInterests.build(
            self._evaluation.con, chosen, self.table, self.categories, self._evaluation.test_start
        )
        return np.stack([found.of(user) for user in range(len(self.ids))]).astype(np.float64)


def _true_gains(evaluation: Evaluation, users: _Users) -> Array | None:
    """What each user truly wants at the cut: [users, categories] at least 0; None without a truth."""
    folder = evaluation.truth_folder
    if folder is None:
        return None
    known, categories, cosine = true_interests(folder, evaluation.test_start)
    place = {name: number for number, name in enumerate(known)}
    column = {name: number for number, name in enumerate(categories)}
    gains = np.zeros((len(users.ids), len(users.categories)))
    rows = [place.get(user, -1) for user in users.ids]
    columns = [column.get(name, -1) for name in users.categories]
    there = np.ix_(np.flatnonzero(np.array(rows) >= 0), np.flatnonzero(np.array(columns) >= 0))
    wanted = cosine[np.ix_([r for r in rows if r >= 0], [c for c in columns if c >= 0])]
    gains[there] = np.maximum(wanted, 0.0)
    return gains
