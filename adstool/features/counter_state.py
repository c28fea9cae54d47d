"""Counters as they stand at one moment: the last row of every entity, looked up for a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adstool.features.counters import Raw, count_state, decay, hours_since
from adstool.features.items import ItemTable
from adstool.features.log import CodedLog, EntitySizes
from adstool.features.mapping import mapped
from adstool.features.spec import ENGAGED, IMPRESSION, Counter, FeatureSpec
from adstool.workspace import write_array


@dataclass(frozen=True)
class CounterState:
    """A counter after the last event. entity: sorted int64 [n]; sums float32 [n + 1, H·K] and last int64 [n +
    1, S], whose final row is that of an entity without events."""

    entity: np.ndarray
    sums: np.ndarray
    last: np.ndarray


class CounterTables:
    """Every counter of a spec as of one moment; see `build` and `at`."""

    def __init__(
        self,
        spec: FeatureSpec,
        items: ItemTable,
        tables: dict[str, CounterState],
        surfaces: Sequence[str],
        sizes: EntitySizes,
        as_of: int,
    ) -> None:
        self.spec = spec
        self.items = items
        self.tables = tables
        self.surfaces = list(surfaces)
        self.sizes = sizes
        self.as_of = as_of  # microseconds UTC
        self._places: dict[tuple[str, int], np.ndarray] = {}

    @classmethod
    def build(cls, log: CodedLog, spec: FeatureSpec, items: ItemTable, as_of: int) -> CounterTables:
        """The counters after the last event of `log`, decayed to `as_of` (microseconds UTC)."""
        tables = {}
        for counter in spec.counters:
            entity, sums, last = count_state(log, counter, as_of)
            tables[counter.name] = CounterState(
                entity,
                np.concatenate([sums, np.zeros((1, sums.shape[1]))]).astype(np.float32),
                np.concatenate([last, np.full((1, last.shape[1]), -1)]),
            )
        return cls(spec, items, tables, log.surfaces, log.sizes, as_of)

    def save(self, directory: Path) -> None:
        """Write counter_<name>_<part>.npy into `directory`; `facts` go into the state's own file."""
        for name, counter in self.tables.items():
            for part, array in vars(counter).items():
                write_array(directory / f"counter_{name}_{part}.npy", array)

    def facts(self) -> dict[str, Any]:
        """What `load` needs besides the arrays."""
        return {"surfaces": self.surfaces, "sizes": asdict(self.sizes), "as_of": self.as_of}

    @classmethod
    def load(
        cls, directory: Path, spec: FeatureSpec, items: ItemTable, facts: Mapping[str, Any]
    ) -> CounterTables:
        """What `save` wrote, memory-mapped; raises KeyError, TypeError, ValueError or OSError if damaged."""
        tables = {
            counter.name: CounterState(
                *(
                    mapped(directory / f"counter_{counter.name}_{part}.npy")
                    for part in ("entity", "sums", "last")
                )
            )
            for counter in spec.counters
        }
        return cls(spec, items, tables, facts["surfaces"], EntitySizes(**facts["sizes"]), int(facts["as_of"]))

    def at(
        self,
        user: int,
        surface: str | None,
        ts: int,
        item_rows: np.ndarray,
        counters: Sequence[Counter] | None = None,
    ) -> Raw:
        """Counters of a request (user number, -1 unknown; ts microseconds UTC) and of its n candidates.

        counters: those that are wanted, of the spec's names, keys and signals; None: all of the spec.
        """
        elapsed = max(0, ts - self.as_of)
        sums: dict[str, np.ndarray] = {}
        since: dict[str, np.ndarray] = {}
        for counter in self.spec.counters if counters is None else counters:
            table = self.tables[counter.name]
            places = self._find(counter, user, surface, item_rows)
            faded = decay(self.spec, counter, elapsed).astype(np.float32)
            sums[counter.name] = table.sums.take(places, axis=0) * faded
            if counter.since:
                since[counter.name] = hours_since(np.asarray([ts]), table.last.take(places, axis=0))
        return Raw(sums, since)

    def popularity(self) -> np.ndarray:
        """Engagements of every item, decayed by the longest half life to `as_of`: float32 [items]."""
        return self._of_items(ENGAGED)

    def shown(self) -> np.ndarray:
        """Impressions of every item, decayed by the longest half life to `as_of`: float32 [items]."""
        return self._of_items(IMPRESSION)

    def _of_items(self, signal: str) -> np.ndarray:
        result = np.zeros(len(self.items), dtype=np.float32)
        counter = self.spec.counter("item")
        if counter is not None:
            table = self.tables["item"]
            result[np.asarray(table.entity)] = table.sums[:-1, self._column(counter, signal, np.argmax)]
        return result

    def recent_categories(self, user: int, ts: int) -> np.ndarray:
        """What a user engaged with by category, decayed to `ts` by the shortest half life: float32 [C]."""
        found = np.zeros(len(self.items.categories[1]), dtype=np.float32)
        counter = self.spec.counter("user_category")
        if counter is None or user < 0 or not len(found):
            return found
        table, size = self.tables["user_category"], self.sizes.of("category")
        low, high = np.searchsorted(table.entity, [user * size, (user + 1) * size])
        column = self._column(counter, ENGAGED, np.argmin)
        faded = decay(self.spec, counter, max(0, ts - self.as_of))[column]
        found[table.entity[low:high] - user * size] = table.sums[low:high, column] * faded
        return found

    def _column(self, counter: Counter, signal: str, choose: Callable[[Any], Any]) -> int:
        """The column of a counter's sums for a signal, at the half life that `choose` picks."""
        half_life = int(choose(self.spec.half_lives))
        return half_life * len(counter.signals) + counter.signals.index(signal)

    def _find(self, counter: Counter, user: int, surface: str | None, item_rows: np.ndarray) -> np.ndarray:
        """Rows of the counter's arrays, int64 [n] ([1] when it is the user's own); -1, the empty row, if
        unknown."""
        table = self.tables[counter.name]
        if "user" in counter.keys:
            stride = 1
            for key in counter.keys[1:]:
                stride *= self.sizes.of(key)
            low, high = np.searchsorted(table.entity, [user * stride, (user + 1) * stride])
            if user < 0 or low == high:
                return np.full(1, -1, dtype=np.int64)
            if counter.keys == ("user",):
                return np.asarray([low])
            numbers = self._entities(counter, user, self._surface(surface), item_rows)
            return int(low) + _search(table.entity[low:high], numbers, -1 - int(low))
        number = self._surface(surface) if "surface" in counter.keys else -2
        if (counter.name, number) not in self._places:
            everything = np.arange(len(self.items))
            numbers = self._entities(counter, user, number, everything)
            self._places[counter.name, number] = _search(np.asarray(table.entity), numbers, -1)
        return np.asarray(self._places[counter.name, number][item_rows])

    def _surface(self, name: str | None) -> int:
        return self.surfaces.index(name) if name in self.surfaces else -1

    def _entities(self, counter: Counter, user: int, surface: int, item_rows: np.ndarray) -> np.ndarray:
        read: dict[str, Callable[[], np.ndarray]] = {
            "user": lambda: np.full(len(item_rows), user),
            "item": lambda: item_rows,
            "category": lambda: self.items.categories[0][item_rows],
            "advertiser": lambda: self.items.advertisers[0][item_rows],
            "surface": lambda: np.full(len(item_rows), surface),
        }
        return self.sizes.numbers(counter.keys, {key: read[key]() for key in counter.keys})


def _search(entity: np.ndarray, numbers: np.ndarray, missing: int) -> np.ndarray:
    """Where each number stands in the sorted `entity`, `missing` where it does not."""
    if not len(entity):
        return np.full(len(numbers), missing, dtype=np.int64)
    place = np.minimum(np.searchsorted(entity, numbers), len(entity) - 1)
    return np.where(entity[place] == numbers, place, missing).astype(np.int64)
