"""A small random log in a warehouse, and its interests computed in plain Python."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from datetime import datetime, timedelta

import duckdb
import numpy as np

from adstool.config import Settings

START = datetime(2026, 11, 2)
CATEGORIES = ("lamps", "bags", "kites", "vases")
WORDS = {"lamps": "glowing lamp", "bags": "leather bag", "kites": "flying kite", "vases": "clay vase"}


def fill(con: duckdb.DuckDBPyConnection, users: int = 12, events: int = 600, seed: int = 0) -> None:
    """Users, ads of two advertisers, pins, events and conversions; users differ in taste."""
    random = np.random.default_rng(seed)
    con.execute("insert into advertisers values ('a0', 'A', 'home', null), ('a1', 'B', 'out', null)")
    con.execute("insert into campaigns (campaign_id, advertiser_id) values ('c0', 'a0'), ('c1', 'a1')")
    for number in range(16):
        category = CATEGORIES[number % 4]
        campaign = f"c{0 if category in ('lamps', 'vases', 'bags') else 1}"
        con.execute(
            "insert into ads (ad_id, campaign_id, title, category) values (?, ?, ?, ?)",
            [f"i{number}", campaign, f"{WORDS[category]} {number}", category],
        )
        con.execute(
            "insert into pins (pin_id, title, category) values (?, ?, ?)",
            [f"i{number}", WORDS[category], category if number else None],
        )
    for number in range(users):
        con.execute(
            "insert into users (user_id, gender, age_bucket, country) values (?, ?, ?, ?)",
            [f"u{number}", ("f", "m", None)[number % 3], f"age{number % 2}", "DE"],
        )
    add_events(con, random, users, events)


def add_events(
    con: duckdb.DuckDBPyConnection, random: np.random.Generator, users: int, events: int, first: int = 0
) -> None:
    """More of the log, its ids from `first` on; the last two users do nothing."""
    for number in range(first, first + events):
        user, item = int(random.integers(0, users - 2)), int(random.integers(0, 16))
        ts = START + timedelta(hours=float(random.random() * 24 * 14))
        kind = "ad" if random.random() < 0.6 else "pin"
        action = str(random.choice(["impression", "impression", "click", "save", "hide", "closeup"]))
        con.execute(
            "insert into events (event_id, ts, user_id, item_type, item_id, action, request_id)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            [f"e{number}", ts, f"u{user}", kind, f"i{item}", action, f"r{number // 3}"],
        )
        if number % 9 == 0:
            con.execute(
                "insert into events (event_id, ts, user_id, item_type, action, request_id, query)"
                " values (?, ?, ?, 'query', 'query', ?, ?)",
                [f"q{number}", ts, f"u{user}", f"s{number}", random.choice(["kite", "bag", "xyzzy"])],
            )
        if number % 11 == 0:
            late = timedelta(days=float(random.random() * 6))
            con.execute(
                "insert into conversions"
                " (conversion_id, ts, reported_at, user_id, advertiser_id, kind, channel)"
                " values (?, ?, ?, ?, ?, 'checkout', ?)",
                [
                    f"k{number}",
                    ts,
                    ts + late if number % 2 else None,
                    f"u{user}",
                    f"a{number % 2}",
                    ("online", "offline")[number % 3 == 0],
                ],
            )


def brute_force(
    con: duckdb.DuckDBPyConnection, settings: Settings, until: datetime
) -> dict[tuple[str, str], float]:
    """Weights of every user with evidence and every category he has evidence of, one event at a time."""
    chosen = settings.interests
    weights = {
        action.name: (1 if action.positive else -1) * abs(action.weight) ** chosen.power
        for action in settings.actions
    }
    category = {
        (kind, item): value
        for kind, table in (("ad", "ads"), ("pin", "pins"))
        for item, value in con.execute(f"select {kind}_id, category from {table}").fetchall()
    }
    shares: dict[str, dict[str, float]] = {"a0": {}, "a1": {}}
    for item in range(16):
        owner = "a1" if CATEGORIES[item % 4] == "kites" else "a0"
        shares[owner][CATEGORIES[item % 4]] = shares[owner].get(CATEGORIES[item % 4], 0) + 1
    weights["impression"] = chosen.impression * _worth_of_being_shown(con, weights, category, settings, until)
    queries = {"kite": {"kites": 1.0}, "bag": {"bags": 1.0}, "xyzzy": {}}
    net: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    parts: dict[tuple[str, str, str, str], float] = defaultdict(float)

    def add(user: str, value: str, source: str, action: str, amount: float) -> None:
        net[user][value] += amount
        parts[user, value, source, action] += amount

    def faded(ts: datetime) -> float:
        return float(2 ** (-(until - ts) / timedelta(days=chosen.half_life_days)))

    rows = con.execute("select user_id, ts, item_type, item_id, action, query from events").fetchall()
    for user, ts, kind, item, action, query in rows:
        if ts >= until:
            continue
        value = category.get((kind, item))
        if value is not None and action in weights:
            add(user, value, "on_site", action, weights[action] * faded(ts))
        for name, share in queries.get(query, {}).items():
            add(user, name, "query", "query", chosen.query * share * faded(ts))
    rows = con.execute(
        "select user_id, ts, coalesce(reported_at, ts), advertiser_id, channel, kind from conversions"
    ).fetchall()
    for user, ts, known, owner, channel, kind in rows:
        if known >= until or not chosen.offsite:
            continue
        total = sum(shares[owner].values())
        for name, count in shares[owner].items():
            weight = chosen.online if channel == "online" else chosen.offline
            add(user, name, channel, kind, weight * count / total * faded(ts))
    return _weights(con, settings, net, parts)


def _worth_of_being_shown(
    con: duckdb.DuckDBPyConnection,
    weights: dict[str, float],
    category: dict[tuple[str, str], str],
    settings: Settings,
    until: datetime,
) -> float:
    """What wanted actions count in all, for each impression."""
    did = shown = 0.0
    for ts, kind, item, action in con.execute("select ts, item_type, item_id, action from events").fetchall():
        if ts < until and category.get((kind, item)) is not None:
            faded = 2 ** (-(until - ts) / timedelta(days=settings.interests.half_life_days))
            shown += faded * (action == "impression")
            did += faded * max(weights.get(action, 0.0), 0.0)
    return did / shown


def _weights(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    net: dict[str, dict[str, float]],
    parts: dict[tuple[str, str, str, str], float],
) -> dict[tuple[str, str], float]:
    gained: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (user, value, _, _), amount in parts.items():
        gained[user][value] += max(amount, 0.0)
    told = con.execute("select user_id, gender, age_bucket, country from users").fetchall()
    profile = {user: tuple(x or "" for x in rest) for user, *rest in told}
    if not settings.interests.profile:
        profile = dict.fromkeys(profile, ("", "", ""))
    values = sorted({value for of_user in gained.values() for value in of_user})
    everything = sum(sum(of_user.values()) for of_user in gained.values())
    popular = {v: sum(of_user[v] for of_user in gained.values()) / everything for v in values}

    def prior(user: str) -> dict[str, float]:
        share = dict(popular)
        for place in range(3):
            alike = [u for u in gained if profile[u][place] == profile[user][place]]
            total = sum(sum(gained[u].values()) for u in alike)
            for v in values:
                own = sum(gained[u][v] for u in alike)
                share[v] *= (own + 300 * popular[v]) / (total + 300) / popular[v]
        whole = sum(share.values())
        return {v: one / whole for v, one in share.items()}

    k = settings.interests.prior
    found = {}
    for user, of_user in net.items():
        total, expected = sum(gained[user].values()), prior(user)
        for value, amount in of_user.items():
            found[user, value] = (amount + k * expected[value]) / (total + k)
    return found


def changed(settings: Settings, **values: object) -> Settings:
    """The settings with other values in [interests]."""
    return dataclasses.replace(settings, interests=dataclasses.replace(settings.interests, **values))
