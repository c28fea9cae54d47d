"""Features by brute force, straight from the definitions: plain loops over a plain list of events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from adstool.config import Action, Settings

DAY = 86_400.0
Record = dict[str, Any]


@dataclass
class Oracle:
    """The log as Python records; `event` records carry the category, advertiser and price of their item."""

    events: list[Record]
    conversions: list[Record]
    items: dict[tuple[str, str], Record]
    actions: tuple[Action, ...]
    corpus: str

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, settings: Settings, corpus: str) -> Oracle:
        """Everything from the warehouse's outside tables."""
        items = {(r["item_type"], r["item_id"]): r for r in _records(con, "select * from catalog")}
        events = _records(con, "select * from events")
        for event in events:
            item = items.get((event["item_type"], event["item_id"]), {})
            event["known"] = bool(item)
            for name in ("category", "advertiser_id", "price"):
                event[name] = item.get(name)
        conversions = _records(con, "select * from conversions")
        return cls(events, conversions, items, settings.actions, corpus)

    def examples(self) -> list[Record]:
        """Impressions of known items of the corpus, in the order of the data set."""
        shown = [
            e
            for e in self.events
            if e["action"] == "impression" and e["known"] and e["item_type"] == self.corpus
        ]
        last = "\uffff"  # nulls come last
        return sorted(
            shown,
            key=lambda e: (
                e["ts"],
                e["user_id"],
                e["request_id"] or last,
                math.inf if e["position"] is None else e["position"],
                e["item_id"],  # rows are in the order of the ids
                e["event_id"],
            ),
        )

    def engaged(self, event: Record) -> bool:
        """Whether an event is a positive action."""
        return any(a.name == event["action"] and a.positive for a in self.actions)

    def sums(self, example: Record, keys: tuple[str, ...], half_life: float) -> Callable[[str], float]:
        """The decayed sum of a signal over events of the same entity strictly before the example."""

        def total(signal: str) -> float:
            return sum(
                amount * 2.0 ** (-(example["ts"] - moment).total_seconds() / DAY / half_life)
                for moment, amount in self.occurrences(example, keys, signal)
            )

        return total

    def hours_since(self, example: Record, keys: tuple[str, ...], signal: str) -> float:
        """Hours since the last event of the signal; nan for never."""
        moments = [moment for moment, _ in self.occurrences(example, keys, signal)]
        return (example["ts"] - max(moments)).total_seconds() / 3600 if moments else math.nan

    def occurrences(
        self, example: Record, keys: tuple[str, ...], signal: str
    ) -> list[tuple[datetime, float]]:
        """Times and amounts of a signal of the example's entity, strictly before the example."""
        entity = [_key(example, key) for key in keys]
        if any(value is None for value in entity):
            return []
        found = []
        for row in self.conversions if signal == "conversion" else self.events:
            moment = row.get("reported_at") or row["ts"]
            if moment >= example["ts"] or [_key(row, key) for key in keys] != entity:
                continue
            if "item" in keys and not (row.get("known") and row.get("item_type") == self.corpus):
                continue
            amount = self.amount(row, signal)
            if amount is not None:
                found.append((moment, amount))
        return found

    def amount(self, row: Record, signal: str) -> float | None:
        """What an event adds to a signal, None if it has nothing to do with it."""
        if signal == "conversion":
            return 1.0
        if signal == "engaged":
            return 1.0 if self.engaged(row) else None
        if signal in ("priced", "log_price"):
            if not self.engaged(row) or row["price"] is None:
                return None
            return 1.0 if signal == "priced" else math.log1p(row["price"])
        return 1.0 if row["action"] == signal else None

    def prior(self, keys: tuple[str, ...], signal: str, until: datetime) -> float:
        """Events of the signal an impression, over all entities, up to the end of training."""
        rows = [e for e in self.events if e["ts"] <= until and all(_key(e, key) is not None for key in keys)]
        if "item" in keys:
            rows = [e for e in rows if e["item_type"] == self.corpus and e["known"]]
        shown = sum(e["action"] == "impression" for e in rows)
        return max(sum(self.amount(e, signal) is not None for e in rows) / max(shown, 1), 1e-6)

    def history(self, example: Record) -> list[Record]:
        """Positive actions of the user on known items strictly before the example, newest first."""
        order = {a.name: n for n, a in enumerate(self.actions)}
        found = [
            e
            for e in self.events
            if e["user_id"] == example["user_id"]
            and e["ts"] < example["ts"]
            and e["known"]
            and self.engaged(e)
        ]
        return sorted(
            found, key=lambda e: (e["ts"], (e["item_type"], e["item_id"]), order[e["action"]]), reverse=True
        )

    def labels(self, examples: list[Record]) -> list[dict[str, list[float | None]]]:
        """By example, the values of every action attributed to it."""
        found: list[dict[str, list[float | None]]] = [{} for _ in examples]
        for number, event in self.attributed(examples):
            found[number].setdefault(event["action"], []).append(event["value"])
        return found

    def clicks(self, examples: list[Record]) -> dict[int, datetime]:
        """The first click of every example that has one."""
        found: dict[int, datetime] = {}
        for number, event in self.attributed(examples):
            if event["action"] == "click":
                found[number] = min(event["ts"], found.get(number, event["ts"]))
        return found

    def attributed(self, examples: list[Record]) -> list[tuple[int, Record]]:
        """Every action that belongs to an example, with the example's number."""
        found: list[tuple[int, Record]] = []
        window = {a.name: a.window_hours for a in self.actions}
        for event in self.events:
            if event["action"] not in window:
                continue
            best = None
            for number, shown in enumerate(examples):
                same = all(shown[k] == event[k] for k in ("user_id", "item_type", "item_id"))
                both = shown["request_id"] is not None and event["request_id"] is not None
                fits = not both or shown["request_id"] == event["request_id"]
                if same and fits and shown["ts"] <= event["ts"]:
                    best = number  # examples are in the order of time: the last one that fits stands
            if best is None:
                continue
            gap = (event["ts"] - examples[best]["ts"]).total_seconds() / 3600
            if gap <= window[event["action"]]:
                found.append((best, event))
        return found


def _records(con: duckdb.DuckDBPyConnection, query: str) -> list[Record]:
    result = con.execute(query)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _key(row: Record, key: str) -> Any:
    if key == "item":
        return (row.get("item_type"), row.get("item_id")) if row.get("known") else None
    return row.get({"user": "user_id", "advertiser": "advertiser_id"}.get(key, key))
