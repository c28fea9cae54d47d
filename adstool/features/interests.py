"""The batch interests as serving reads them: what every user wants by category, and what queries ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adstool.config import Settings
from adstool.content.interests import category_intents, snapshot
from adstool.content.text import CategoryWords, normalise, tokens
from adstool.errors import AdstoolError
from adstool.features.mapping import mapped
from adstool.features.users import UserTable
from adstool.workspace import write_array, write_table

_ARRAYS = ("offsets", "category", "weight", "certainty", "profile", "prior", "popular")


@dataclass(frozen=True)
class UserInterests:
    """Interests of all users as of one moment, over the C categories of the item table.

    offsets: int64 [users + 1], the range of every user's entries. category: int32 [E]. weight: float32 [E].
    certainty: float32 [users]. profile: int32 [users], row of `prior`, -1 for none. prior: float32 [profiles,
    C]. popular: float32 [C]. queries: logged queries, as words, by category: query, category, share; sorted.
    """

    offsets: np.ndarray
    category: np.ndarray
    weight: np.ndarray
    certainty: np.ndarray
    profile: np.ndarray
    prior: np.ndarray
    popular: np.ndarray
    queries: pa.Table

    @classmethod
    def build(
        cls,
        con: duckdb.DuckDBPyConnection,
        settings: Settings,
        users: UserTable,
        categories: Sequence[str],
        until: int,
    ) -> UserInterests:
        """Interests from what was known strictly before `until`, microseconds UTC."""
        with snapshot(con, settings, until) as found:
            own, priors, people = found.interests, found.priors, found.people
        number = {name: place for place, name in enumerate(categories)}
        of_user = {name: place for place, name in enumerate(users.column("user_id").to_pylist())}
        user = _places(own, "user_id", of_user)
        category = _places(own, "value", number)
        order = np.lexsort((category, user))
        order = order[(user[order] >= 0) & (category[order] >= 0)]
        certainty = np.zeros(len(users), dtype=np.float32)
        certainty[user[order]] = own["certainty"].to_numpy()[order]
        profile = np.full(len(users), -1, dtype=np.int32)
        numbered = _places(people, "user_id", of_user)
        profile[numbered[numbered >= 0]] = people["profile"].to_numpy()[numbered >= 0]
        prior, popular = _priors(priors, number)
        return cls(
            offsets=np.searchsorted(user[order], np.arange(len(users) + 1)).astype(np.int64),
            category=category[order].astype(np.int32),
            weight=own["weight"].to_numpy()[order].astype(np.float32),
            certainty=certainty,
            profile=np.where(profile < len(prior), profile, -1).astype(np.int32),
            prior=prior,
            popular=popular,
            queries=_queries(con, settings, number),
        )

    def of(self, user: int) -> np.ndarray:
        """What a user wants: float32 [C], negative for what he hides; a stranger (-1) wants what all do."""
        if user < 0 or self.profile[user] < 0:
            return np.array(self.popular, dtype=np.float32)
        wanted = (1.0 - self.certainty[user]) * np.asarray(self.prior[self.profile[user]], dtype=np.float32)
        own = slice(int(self.offsets[user]), int(self.offsets[user + 1]))
        wanted[self.category[own]] = self.weight[own]
        return np.asarray(wanted, dtype=np.float32)

    def of_query(self, query: str | None, words: CategoryWords) -> np.ndarray | None:
        """What a query asks for: float32 [C] that sums to 1, None where nothing is known of it.

        A logged query has the intents that CLIP read in it; any other is read by its words.
        """
        text = normalise(query)
        count = len(self.popular)
        if text is None or not count:
            return None
        shares = np.zeros(count, dtype=np.float32)
        for category, share in self._intents.get(text, ()):
            shares[category] += share
        if not shares.any():
            every = np.arange(count)
            fit = words.fit([tokens(text)], np.zeros(count, dtype=np.int64), every)
            shares = np.nan_to_num(np.exp(fit), nan=0.0).astype(np.float32)
        total = float(shares.sum())
        return shares / total if total > 0 else None

    @cached_property
    def _intents(self) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for query, category, share in zip(*self.queries.to_pydict().values(), strict=True):
            found.setdefault(query, []).append((category, share))
        return found

    def save(self, directory: Path) -> None:
        """Write interests_<name>.npy and interests_queries.parquet, each whole or not at all."""
        for name in _ARRAYS:
            write_array(directory / f"interests_{name}.npy", getattr(self, name))
        write_table(directory / "interests_queries.parquet", self.queries)

    @classmethod
    def load(cls, directory: Path) -> UserInterests:
        """What `save` wrote, memory-mapped; raises AdstoolError when it is damaged or absent."""
        try:
            arrays = {name: mapped(directory / f"interests_{name}.npy") for name in _ARRAYS}
            return cls(**arrays, queries=pq.read_table(directory / "interests_queries.parquet"))
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise AdstoolError(f"{directory} holds no interests: {error}", "Run adstool index.") from None


def within_category(popularity: np.ndarray, category: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Popularity against the mean of the category's ranked items, drawn to 1 by the mean of all: float32 [n].

    popularity: float [n]; category: int [n], -1 for none; ranked: bool [n].
    """
    known = ranked & (category >= 0)
    values = popularity.astype(np.float64)
    size = int(category.max(initial=-1)) + 1
    total = np.bincount(category[known], weights=values[known], minlength=size)
    mean = np.append(total / np.maximum(np.bincount(category[known], minlength=size), 1), 0.0)
    usual = max(float(values[known].mean()) if known.any() else 0.0, 1e-9)
    against = (values + usual) / (mean[category] + usual)  # category -1 reads the appended 0
    return np.asarray(against, dtype=np.float32)


def _places(table: pa.Table, column: str, number: dict[str, int]) -> np.ndarray:
    """The number of each value, int64 [n], -1 for one that has none."""
    return np.asarray([number.get(value, -1) for value in table[column].to_pylist()], dtype=np.int64)


def _priors(table: pa.Table, number: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """prior [profiles, C] and popular [C]; uniform where nothing was ever done."""
    count = max(len(number), 1)
    popular = np.full(len(number), 1.0 / count, dtype=np.float32)
    if not table.num_rows:
        return np.zeros((0, len(number)), dtype=np.float32), popular
    profile, category = table["profile"].to_numpy(), _places(table, "value", number)
    prior = np.zeros((int(profile.max()) + 1, len(number)), dtype=np.float32)
    prior[profile, category] = table["share"].to_numpy()
    popular[:] = 0.0
    popular[category] = table["popular"].to_numpy()
    return prior, popular


def _queries(con: duckdb.DuckDBPyConnection, settings: Settings, number: dict[str, int]) -> pa.Table:
    shares: dict[tuple[str, int], float] = {}
    for query, category, share in category_intents(con, settings):
        text = normalise(query)
        if text is not None and category in number:
            shares[text, number[category]] = share
    ordered = sorted(shares.items())
    return pa.table(
        {
            "query": pa.array([query for (query, _), _ in ordered], pa.string()),
            "category": pa.array([category for (_, category), _ in ordered], pa.int32()),
            "share": pa.array([share for _, share in ordered], pa.float32()),
        }
    )
