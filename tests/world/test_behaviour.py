"""What people do: true rates against the log, and the sequential signals against a replay of the log."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from world.conftest import Made

from adstool.world.behaviour import ACTIONS, FATIGUE_DAYS, GRID, RECENT_DAYS, SIGNALS, WEIGHTS

HALF_STEP = 0.5 / GRID + 1e-6


def _rows(made: Made, name: str) -> list[dict[str, str]]:
    with open(made.folder / f"{name}.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["request_id"], row["item_id"]


def test_actions_happen_at_their_true_rates(committed: Made) -> None:
    done = {(e["request_id"], e["item_id"], e["action"]) for e in committed.events if e["action"] in ACTIONS}
    for action in ACTIONS:
        chances = np.array([row[f"p_{action}"] for row in committed.truth])
        happened = sum((*_key(row), action) in done for row in committed.truth)
        spread = math.sqrt(float((chances * (1 - chances)).sum()))
        assert abs(happened - chances.sum()) < 4 * spread, action


def test_rates_are_those_of_the_settings(committed: Made) -> None:
    rates = committed.config.rates
    truth = committed.truth
    mean = {action: float(np.mean([row[f"p_{action}"] for row in truth])) for action in ACTIONS}
    assert mean["click"] == pytest.approx(rates.click, rel=0.15)
    assert mean["long_click"] / mean["click"] == pytest.approx(rates.long_click, rel=0.15)
    assert mean["save"] == pytest.approx(rates.save, rel=0.15)
    assert mean["closeup"] == pytest.approx(rates.closeup, rel=0.15)
    assert mean["hide"] == pytest.approx(rates.hide, rel=0.15)
    ads = [row for row in truth if row["item_type"] == "ad"]
    weights = np.array([row["p_click"] for row in ads])
    after = float((weights * np.array([row["p_convert"] for row in ads])).sum() / weights.sum())
    assert after == pytest.approx(rates.conversion, rel=0.2)
    assert 0.45 < len(ads) / len(truth) < 0.65


def test_probabilities_follow_from_signals_and_laws(made: Made) -> None:
    laws = json.loads((made.folder / "truth/laws.json").read_text())
    assert laws["signals"] == list(SIGNALS)
    for row in made.truth[::37]:
        chance = {}
        for action, law in laws["actions"].items():
            logit = law["intercept"] + sum(
                m * row[f"signal_{s}"] for m, s in zip(law["mix"], SIGNALS, strict=True)
            )
            chance[action] = 1 / (1 + math.exp(-round(logit * GRID) / GRID))
        chance["long_click"] *= chance["click"]
        for action, expected in chance.items():
            assert row[f"p_{action}"] == pytest.approx(expected, rel=2 / GRID)


def test_recent_and_fatigue_are_what_a_replay_of_the_log_gives(made: Made) -> None:
    """Independent of the simulation: read the events in order of time, one user at a time."""
    category = {r["ad_id"]: r["category"] for r in _rows(made, "ads")}
    category |= {r["pin_id"]: r["category"] for r in _rows(made, "pins")}
    truth = {_key(row): row for row in made.truth}
    gains = {"click": 1.0, "long_click": 0.5, "save": 1.5, "closeup": 0.5, "hide": -1.0}
    events = defaultdict(list)
    for e in made.events:
        if e["item_type"] != "query":
            events[e["user_id"]].append((datetime.fromisoformat(e["ts"]).timestamp(), e))
    checked = 0
    for user in sorted(events, key=lambda u: -len(events[u]))[:25]:
        requests: dict[str, list[dict[str, Any]]] = defaultdict(list)
        begun: dict[str, float] = {}
        for ts, e in events[user]:
            requests[e["request_id"]].append(e)
            begun.setdefault(e["request_id"], ts)
        engaged: dict[str, float] = defaultdict(float)
        exposed: dict[str, float] = defaultdict(float)
        last = 0.0
        for request in sorted(requests, key=begun.__getitem__):
            days = (begun[request] - last) / 86_400 if last else 0.0
            last = begun[request]
            for c in set(category.values()):
                engaged[c] *= math.exp(-days / RECENT_DAYS)
                exposed[c] *= math.exp(-days / FATIGUE_DAYS)
            for e in requests[request]:
                if e["action"] == "impression":
                    c, row = category[e["item_id"]], truth[_key(e)]
                    recent = WEIGHTS["recent"] * math.log1p(2 * max(engaged[c], 0.0))
                    fatigue = -WEIGHTS["fatigue"] * math.log1p(0.5 * exposed[c])
                    assert row["signal_recent"] == pytest.approx(recent, abs=HALF_STEP)
                    assert row["signal_fatigue"] == pytest.approx(fatigue, abs=HALF_STEP)
                    checked += 1
            for e in requests[request]:
                c = category[e["item_id"]]
                engaged[c] += gains.get(e["action"], 0.0)
                exposed[c] += {"impression": 1.0, "hide": 2.0}.get(e["action"], 0.0)
    assert checked > 1000


def test_interest_and_style_follow_from_the_users_and_items_in_truth(made: Made) -> None:
    users = {r["user_id"]: r for r in pq.read_table(made.folder / "truth/users.parquet").to_pylist()}
    items = {r["item_id"]: r for r in pq.read_table(made.folder / "truth/items.parquet").to_pylist()}
    styles = sorted({r["style"] for r in items.values()})
    start = datetime.fromisoformat(made.config.start + "T00:00:00+00:00").timestamp()
    at = {e["request_id"]: datetime.fromisoformat(e["ts"]).timestamp() for e in made.events[::-1]}
    raw, signal = [], []
    taste: dict[tuple[str, str], set[float]] = defaultdict(set)
    for row in made.truth[::11]:
        user, item = users[row["user_id"]], items[row["item_id"]]
        angle = min((at[row["request_id"]] - start) / 86_400 / user["drift_days"], 1) * math.pi / 2
        now = math.cos(angle) * np.array(user["interest_from"]) + math.sin(angle) * np.array(
            user["interest_to"]
        )
        raw.append(float(now @ np.array(item["vector"])))
        signal.append(row["signal_interest"])
        taste[row["user_id"], item["style"]].add(row["signal_style"])
    slope, offset = np.polyfit(raw, signal, 1)
    assert slope > 0
    np.testing.assert_allclose(np.polyval([slope, offset], raw), signal, atol=0.01)
    assert all(len(values) == 1 for values in taste.values())
    assert len(styles) == 8


def test_position_bias_falls_from_slot_to_slot(committed: Made) -> None:
    """In the log, where the random policy makes slots comparable."""
    clicked = {_key(e) for e in committed.events if e["action"] == "click"}
    shown = [e for e in committed.events if e.get("source") == "random"]
    rate = [
        np.mean([_key(e) in clicked for e in shown if e["position"] in slots])
        for slots in ((0, 1), (3, 4), (8, 9))
    ]
    assert rate[0] > rate[1] > rate[2]


def test_every_action_follows_its_impression_and_precedes_the_next_request(made: Made) -> None:
    at = {}
    last: dict[str, tuple[str, datetime]] = {}
    for e in made.events:
        ts = datetime.fromisoformat(e["ts"])
        if e["action"] == "impression":
            at[_key(e)] = ts
            previous = last.get(e["user_id"])
            assert previous is None or previous[0] == e["request_id"] or previous[1] < ts
        elif e["item_type"] != "query":
            assert ts > at[_key(e)]
            last[e["user_id"]] = (e["request_id"], max(ts, last.get(e["user_id"], ("", ts))[1]))
    numbers = [int(e["event_id"][1:]) for e in made.events]
    assert numbers == list(range(1, len(numbers) + 1))
    long = {_key(e) for e in made.events if e["action"] == "long_click"}
    assert long <= {_key(e) for e in made.events if e["action"] == "click"}
    assert all(e["value"] >= 30 for e in made.events if e["action"] == "long_click")


def test_only_running_items_are_shown(made: Made) -> None:
    campaigns = {r["campaign_id"]: r for r in _rows(made, "campaigns")}
    ads = {r["ad_id"]: r for r in _rows(made, "ads")}
    for e in made.events:
        if e["action"] == "impression" and e["item_type"] == "ad":
            ad = ads[e["item_id"]]
            campaign = campaigns[ad["campaign_id"]]
            assert max(ad["created_at"], campaign["starts_at"]) <= e["ts"] < campaign["ends_at"]


def test_searches_have_text_and_only_searches(made: Made) -> None:
    asked = {e["request_id"]: e["query"] for e in made.events if e["item_type"] == "query"}
    for e in made.events:
        if e["action"] == "impression":
            assert (e["surface"] == "search") == (e["request_id"] in asked)
            assert e.get("query") == asked.get(e["request_id"])
    assert len(set(asked.values())) > 50


def test_the_week_the_day_and_the_holiday_show_in_the_traffic(committed: Made) -> None:
    requests = {e["request_id"]: e["ts"] for e in committed.events}
    days: dict[str, int] = defaultdict(int)
    hours: dict[int, int] = defaultdict(int)
    for ts in requests.values():
        days[ts[:10]] += 1
        hours[int(ts[11:13])] += 1
    ranked = sorted(days, key=lambda d: -days[d])
    assert ranked[0] == "2026-11-11"
    assert days[ranked[0]] > 1.3 * days[ranked[1]]
    assert sum(hours[h] for h in (19, 20, 21)) > 5 * sum(hours[h] for h in (2, 3, 4))
