"""Co-engagement: neighbours, what followed what, and recall, each against brute force in plain Python."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adstool.content.clip import load_folder
from adstool.content.clip_data import ClipData, load_clip_data
from adstool.content.coengagement import (
    LaterEngagements,
    Neighbours,
    co_engagement_metrics,
    find_neighbours,
    later_engagements,
    log_cuts,
)

Shop = Any
START = datetime(2026, 11, 1)
WINDOW = 6.0  # hours
HALF_LIFE = 2.0  # days


@pytest.fixture
def logged(shop: Shop, tiny_clip: Path) -> tuple[Shop, ClipData, list[tuple[str, str, str, datetime, str]]]:
    """24 pins and ads, 400 impressions and engagements of 12 users over ten days, in no order."""
    for number in range(24):
        kind = shop.ad if number % 3 == 0 else shop.pin
        kind(f"i{number}", f"red lamp {number}", shop.picture(f"{number}.png", number), "lamp")
    shop.ad("same", "red lamp 0", shop.images.resolve() / "0.png", "lamp")  # shares the picture of i0
    rng = np.random.default_rng(4)
    events = []
    for _ in range(400):
        item = int(rng.integers(0, 25))
        kind = "ad" if item == 24 or item % 3 == 0 else "pin"
        when = START + timedelta(hours=float(np.round(rng.uniform(0, 240), 2)))
        action = str(rng.choice(["impression", "click", "save", "hide"], p=[0.2, 0.3, 0.3, 0.2]))
        name = "same" if item == 24 else f"i{item}"
        events.append((f"u{rng.integers(0, 12)}", kind, name, when, action))
    shop.log(events)
    return shop, load_clip_data(shop.ws, shop.con, load_folder(tiny_clip)), events


def engaged(
    data: ClipData, events: list[Any], since: datetime, until: datetime, rows: set[int], pick: Any
) -> dict[str, dict[int, datetime]]:
    """user -> picture row -> time of the engagement that `pick` (min or max) chooses."""
    found: dict[str, dict[int, datetime]] = defaultdict(dict)
    for user, kind, item, when, action in events:
        row = data.items[kind, item]
        if action in ("click", "save") and since <= when < until and row in rows:
            found[user][row] = pick(found[user].get(row, when), when)
    return found


def test_cuts_are_those_of_the_impressions(logged: Any) -> None:
    shop, _, events = logged
    shown = sorted(when for _, kind, _, when, action in events if action == "impression" and kind == "ad")
    cuts = log_cuts(shop.con, shop.settings)
    assert cuts is not None
    assert cuts.valid == shown[math.ceil(0.7 * len(shown)) - 1]
    assert cuts.test == shown[math.ceil(0.8 * len(shown)) - 1]
    assert cuts.until > max(when for *_, when, _ in events)
    shop.con.execute("delete from events")
    assert log_cuts(shop.con, shop.settings) is None


def test_neighbours_are_those_of_brute_force_and_come_before_the_cut(logged: Any) -> None:
    shop, data, events = logged
    cuts = log_cuts(shop.con, shop.settings)
    assert cuts is not None
    train = set(data.splits["train"].tolist())
    weight: dict[tuple[int, int], float] = defaultdict(float)
    users: dict[tuple[int, int], int] = defaultdict(int)
    for times in engaged(data, events, datetime.min, cuts.valid, train, max).values():
        for a, at in times.items():
            for b, bt in times.items():
                if a != b and abs((at - bt).total_seconds()) <= WINDOW * 3600:
                    age = (cuts.valid - max(at, bt)).total_seconds() / 86400
                    weight[a, b] += 2 ** (-age / HALF_LIFE)
                    users[a, b] += 1
    total = sum(weight.values())
    of_item = {a: sum(w for (x, _), w in weight.items() if x == a) for a, _ in weight}
    expected = {
        pair: math.log(w * total / (of_item[pair[0]] * of_item[pair[1]])) * users[pair] / (users[pair] + 1)
        for pair, w in weight.items()
    }
    expected = {pair: value for pair, value in expected.items() if value > 1e-6}
    found = find_neighbours(shop.con, shop.settings, data, window_hours=WINDOW, half_life_days=HALF_LIFE)
    assert len(found) == len(expected) > 30
    drawn: dict[tuple[int, int], int] = defaultdict(int)
    rng, draws = np.random.default_rng(0), 3000
    rows = np.arange(len(data.pairs))
    for _ in range(draws):
        for row, other in zip(rows.tolist(), found.draw(rows, rng).tolist(), strict=True):
            drawn[row, other] += 1
    for row in rows.tolist():
        own = {pair: value for pair, value in expected.items() if pair[0] == row}
        if not own:
            assert drawn[row, -1] == draws
        for pair, value in own.items():
            assert drawn[pair] / draws == pytest.approx(value / sum(own.values()), abs=0.05)
    together = found.together(rows, rows)
    for a in rows.tolist():
        for b in rows.tolist():
            assert together[a, b] == (a == b or (a, b) in expected or (b, a) in expected)


def test_what_followed_is_that_of_brute_force(logged: Any) -> None:
    shop, data, events = logged
    cuts = log_cuts(shop.con, shop.settings)
    assert cuts is not None
    rows = set(range(len(data.pairs)))
    for split in ("valid", "test"):
        expected = {}
        for user, times in engaged(data, events, *cuts.part(split), rows, min).items():
            for a, at in times.items():
                later = [b for b, bt in times.items() if 0 < (bt - at).total_seconds() <= WINDOW * 3600]
                if later:
                    expected[user, a] = sorted(later)
        found = later_engagements(shop.con, shop.settings, data, split, window_hours=WINDOW)
        assert found is not None
        names = sorted({user for user, _ in expected})
        got = {
            (names[user], int(seed)): targets.tolist()
            for user, seed, targets in zip(found.users, found.seeds, found.targets, strict=True)
        }
        assert got == expected
        assert len(got) >= 5


def test_recall_is_that_of_brute_force_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(80, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    seeds = rng.integers(0, 80, 60)
    targets = [rng.choice(np.delete(np.arange(80), seed), 4, replace=False) for seed in seeds]
    later = LaterEngagements(rng.integers(0, 9, 60), seeds, targets, np.arange(80)[::-1])
    figures = co_engagement_metrics({"": vectors, "_before": -vectors[::-1]}, later, resamples=200)
    for k in (10, 50):
        hits = []
        popular = []
        for seed, wanted in zip(seeds.tolist(), targets, strict=True):
            others = sorted((i for i in range(80) if i != seed), key=lambda i: -vectors[seed] @ vectors[i])
            hits.append(len(set(others[:k]) & set(wanted.tolist())) / 4)
            most = [i for i in range(79, -1, -1) if i != seed][:k]
            popular.append(len(set(most) & set(wanted.tolist())) / 4)
        name = f"co_engagement_recall_at_{k}"
        assert figures[name] == pytest.approx(np.mean(hits))
        assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"]
        assert figures[f"{name}_popular"] == pytest.approx(np.mean(popular))
        gain = figures[name] - figures[f"{name}_before"]
        assert figures[f"co_engagement_gain_at_{k}"] == pytest.approx(gain)
    assert figures["co_engagement_n"] == 60
    assert figures["co_engagement_recall_at_10_chance"] == pytest.approx(10 / 79)


def test_without_pairs_nothing_is_drawn() -> None:
    none = Neighbours(np.zeros((0, 2), np.int64), np.zeros(0), 5)
    assert none.draw(np.arange(5), np.random.default_rng(0)).tolist() == [-1] * 5
    assert none.together(np.arange(5), np.arange(5)).tolist() == np.eye(5, dtype=bool).tolist()
