"""How people act on what they are shown: logits as sums of named signals, and the state that acting leaves.

The simulation goes through a day in rounds: round k holds every user's k-th request of the day, all at once,
so that what a user did moments ago is known while nothing loops over users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adstool.world.catalogue import DAY, Catalogue
from adstool.world.config import Rates, WorldConfig
from adstool.world.policies import POLICIES, SHARES, Shop
from adstool.world.population import Population
from adstool.world.rhythm import Requests
from adstool.world.vocabulary import Ints

Floats = NDArray[np.float64]
SIGNALS = (
    "interest", "style", "intent", "price", "recent", "fatigue", "quality", "creative", "hour", "surface",
    "position", "new_style",
)  # fmt: skip
ACTIONS = ("click", "long_click", "save", "closeup", "hide")
# What each signal (in logits of a click) counts for in the logit of each action; long_click is given a click.
MIX = np.array([
    # interest style intent price recent fatigue quality creative hour surface position new_style
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    [0.4, 0.3, 0.4, 0.6, 0.0, 0.0, 1.3, 0.5, 0.3, 0.0, 0.0, 0.2],
    [1.2, 1.4, 0.8, 0.4, 0.8, 0.6, 0.6, 0.8, 0.6, 0.5, 0.8, 1.0],
    [0.7, 0.8, 0.6, 0.3, 0.6, 0.5, 0.3, 0.8, 0.6, 0.5, 0.9, 0.6],
    [-0.9, -0.6, -0.7, -0.5, 0.0, -1.4, -1.0, -0.3, 0.0, 0.0, 0.6, 0.0],
])  # fmt: skip
WEIGHTS = {
    "interest": 0.66, "style": 0.52, "intent": 1.1, "price": 0.42, "recent": 0.5, "fatigue": 0.5,
    "quality": 0.4, "creative": 0.3, "hour": 0.4, "surface": 0.38, "position": 0.42, "new_style": 0.95,
}  # fmt: skip
GRID = 128.0  # signals and logits are rounded to 1/128, so that the truth files hold them exactly and small
RECENT_DAYS = 1.0  # time constants of engagement and of exposure
FATIGUE_DAYS = 0.6
FRESH_DAYS = 5.0
SURFACE_LIFT = np.array([-0.6, 1.0, 0.3])  # home, search, related
ENGAGEMENT = np.array([1.0, 0.5, 1.5, 0.5, -1.0])  # what an action adds to recent engagement
ROUND = 4096  # requests simulated at once; bounds memory


@dataclass
class Shown:
    """Impressions with what happened, one row each, in order of request and slot."""

    request: Ints  # row of the day's requests
    item: Ints
    position: Ints
    propensity: Floats
    choices: Ints
    signals: Floats  # [n, len(SIGNALS)]
    probability: Floats  # [n, len(ACTIONS)], of the impression; long_click includes the click
    acted: NDArray[np.bool_]  # [n, len(ACTIONS)]


@dataclass
class Day:
    """One simulated day: its requests with policy, query intent and text-to-be, and what was shown."""

    requests: Requests
    policy: Ints
    query_category: Ints  # -1 without a query
    query_attribute: Ints
    shown: Shown


@dataclass
class State:
    """What users carry from request to request: engagement and exposure by category, decaying."""

    engaged: Floats  # [U, C]
    exposed: Floats  # [U, C]
    seen_at: Ints  # [U] second of the last request

    @classmethod
    def new(cls, users: int, categories: int) -> State:
        """Nobody has seen anything."""
        return cls(
            np.zeros((users, categories)), np.zeros((users, categories)), np.zeros(users, dtype=np.int64)
        )


@dataclass
class Scales:
    """Means and spreads that make raw matches standard, and the intercept of each action."""

    interest: tuple[float, float]
    price: tuple[float, float]
    intercept: Floats = field(default_factory=lambda: np.zeros(len(ACTIONS)))


class Behaviour:
    """The hidden laws of one world."""

    def __init__(self, config: WorldConfig, catalogue: Catalogue, people: Population, shop: Shop) -> None:
        """Standardise the raw matches on random pairs of users and items."""
        self.config, self.catalogue, self.people, self.shop = config, catalogue, people, shop
        rng = np.random.default_rng([config.seed, 6])
        user = rng.integers(0, config.users, 20_000)
        item = rng.integers(0, len(catalogue.items.ids), 20_000)
        match = (people.interest_from[user] * catalogue.items.vector[item]).sum(axis=1)
        ad = rng.integers(0, catalogue.items.ads, 20_000)
        dear = self._dearness(user[:, None], ad[:, None])
        self.scales = Scales(
            (float(match.mean()), float(match.std())), (float(dear.mean()), float(dear.std()))
        )

    def simulate(self, requests: Requests, day: int, state: State) -> Day:
        """Show and act out a day's requests, changing `state`."""
        rng = np.random.default_rng([self.config.seed, 7, day])
        total = len(requests.user)
        policy = rng.choice(len(POLICIES), total, p=SHARES).astype(np.int64)
        category, attribute = np.full(total, -1), np.full(total, -1)
        parts = []
        for rows in _rounds(requests.rank):
            part, asked = self._round(requests, rows, policy, state, rng)
            category[rows], attribute[rows] = asked
            parts.append(part)
        return Day(requests, policy, category, attribute, _joined(parts))

    def solve_intercepts(self, days: list[tuple[int, Requests]]) -> list[Shown]:
        """Set the intercepts so that the mean probabilities of these days are the configured rates.

        Returns what the last pilot run showed.
        """
        targets = _targets(self.config.rates)
        self.scales.intercept = np.log(targets / (1 - targets))
        pilot: list[Shown] = []
        for _ in range(3):
            state = State.new(self.config.users, len(self.catalogue.words.categories))
            self.shop.forget()
            pilot = []
            for day, requests in days:
                shown = self.simulate(requests, day, state).shown
                self.shop.learn(shown.item, shown.acted[:, 0])
                pilot.append(shown)
            logits = np.concatenate([shown.signals @ MIX.T for shown in pilot])
            weights = np.ones_like(logits)
            weights[:, 1] = np.concatenate(
                [shown.probability[:, 0] for shown in pilot]
            )  # long clicks: of clicks
            if len(logits):
                self.scales.intercept = _intercepts(logits, weights, targets)
        self.shop.forget()
        return pilot

    def _round(
        self, requests: Requests, rows: Ints, policy: Ints, state: State, rng: np.random.Generator
    ) -> tuple[Shown, tuple[Ints, Ints]]:
        user, seconds, surface = requests.user[rows], requests.seconds[rows], requests.surface[rows]
        since = np.maximum(seconds - state.seen_at[user], 0)[:, None] / DAY
        engaged = state.engaged[user] * np.exp(-since / RECENT_DAYS)
        exposed = state.exposed[user] * np.exp(-since / FATIGUE_DAYS)
        interest = self.people.interest(user, seconds)
        asked, attribute = self._intents(surface, interest, rng)
        context = np.where(surface == 2, self._anchors(engaged, interest, rng), asked)
        candidates = self.shop.candidates(user, seconds, context, interest, rng)
        scores = self.shop.scores(policy[rows], user, context, interest, candidates)
        is_ad = rng.random((len(rows), self.config.slate)) < self.config.ad_share
        choice = self.shop.fill(candidates, scores, is_ad, rng)
        signals = self.signals(
            user, seconds, surface, interest, asked, attribute, choice.item, engaged, exposed
        )
        probability, acted = self._act(signals, rng)
        there = choice.item >= 0
        acted &= there[:, :, None]
        self._remember(state, user, seconds, engaged, exposed, choice.item, acted)
        line, slot = np.nonzero(there)
        shown = Shown(
            rows[line], choice.item[there], slot, choice.propensity[there], choice.choices[there],
            signals[there], probability[there], acted[there],
        )  # fmt: skip
        return shown, (asked, attribute)

    def _intents(self, surface: Ints, interest: Floats, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Category and attribute that each search asks for; -1 on other surfaces, attribute -1 for none."""
        items, rows = self.catalogue.items, len(surface)
        wanted = self.shop.likely_categories(interest, rng, 1, heat=2.0)[:, 0]
        random = items.category[rng.integers(0, len(items.ids), rows)]
        category = np.where(rng.random(rows) < 0.4, random, wanted)
        example = self.shop.by_category[0].draw(category, rng)
        words = items.attributes[np.maximum(example, 0)]
        word = words[np.arange(rows), rng.integers(0, words.shape[1], rows)]
        word = np.where((example >= 0) & (rng.random(rows) < 0.65), word, -1)
        search = surface == 1
        return np.where(search, category, -1), np.where(search, word, -1)

    def _anchors(self, engaged: Floats, interest: Floats, rng: np.random.Generator) -> Ints:
        """The category of the pin that a related request starts from: the most engaged, else one liked."""
        liked = self.shop.likely_categories(interest, rng, 1, heat=3.0)[:, 0]
        latest = engaged.argmax(axis=1)
        strong = engaged[np.arange(len(engaged)), latest] > 0.2
        return np.where(strong, latest, liked)

    def _dearness(self, user: Ints, item: Ints) -> Floats:
        """How far a price is beyond the user's means, bent so that only the dear side hurts; 0 for pins."""
        items = self.catalogue.items
        relative = np.log(items.price[item] / items.reference[item]) - self.people.means[user]
        bent: Floats = np.where(np.isnan(relative), 0.0, np.logaddexp(0.0, 1.8 * np.nan_to_num(relative)))
        return bent

    def signals(
        self, user: Ints, seconds: Ints, surface: Ints, interest: Floats, asked: Ints, attribute: Ints,
        item: Ints, engaged: Floats, exposed: Floats,
    ) -> Floats:  # fmt: skip
        """[R, S, len(SIGNALS)] in click logits, rounded to the grid."""
        items, lines = self.catalogue.items, np.arange(len(user))[:, None]
        category, style, is_pin = items.category[item], items.style[item], item >= items.ads
        mean, spread = self.scales.interest
        dear_mean, dear_spread = self.scales.price
        match = np.einsum("rk,rsk->rs", interest, items.vector[item])
        fits = 1.0 * (category == asked[:, None])
        fits += 0.8 * (
            (attribute >= 0)[:, None] & (items.attributes[item] == attribute[:, None, None]).any(axis=2)
        )
        hour = (seconds % DAY) / 3600
        swing = np.cos((hour - 20.5) * (2 * np.pi / 24)) + 0.6 * np.cos((hour - 13) * (4 * np.pi / 24))
        age = np.maximum(seconds[:, None] - items.created[item], 0) / DAY
        shape = item.shape
        found = {
            "interest": (match - mean) / spread,
            "style": self.people.taste[user[:, None], style],
            "intent": np.where((asked >= 0)[:, None], fits - 0.7, 0.0),
            "price": np.where(is_pin, 0.0, -(self._dearness(user[:, None], item) - dear_mean) / dear_spread),
            "recent": np.log1p(2 * np.maximum(engaged[lines, category], 0.0)),
            "fatigue": -np.log1p(0.5 * exposed[lines, category]),
            "quality": items.quality[item],
            "creative": items.creative[item],
            "hour": np.broadcast_to(swing[:, None], shape),
            "surface": np.broadcast_to(SURFACE_LIFT[surface][:, None], shape),
            "position": np.broadcast_to(-np.log1p(np.arange(shape[1]))[None, :], shape),
            "new_style": np.exp(-age / FRESH_DAYS) * self.catalogue.appeal[style],
        }
        stacked = np.stack([WEIGHTS[name] * found[name] for name in SIGNALS], axis=2)
        rounded: Floats = np.rint(stacked * GRID) / GRID
        return rounded

    def _act(self, signals: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
        probability = action_probabilities(signals, self.scales.intercept)
        dice = rng.random(probability.shape)
        acted = dice < probability
        # The dice of the click also decide the long click: p(long) = p(click) p(long | click) <= p(click).
        acted[..., 1] = dice[..., 0] < probability[..., 1]
        return probability, acted

    def _remember(
        self, state: State, user: Ints, seconds: Ints, engaged: Floats, exposed: Floats, item: Ints,
        acted: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Fold a round into the state; each user is in a round once, so plain assignment is right."""
        categories = engaged.shape[1]
        there = item >= 0
        place = np.arange(len(user))[:, None] * categories + self.catalogue.items.category[item]
        gained = (acted @ ENGAGEMENT)[there]
        seen = (1.0 + 2.0 * acted[..., ACTIONS.index("hide")])[there]
        size = engaged.size
        state.engaged[user] = engaged + np.bincount(place[there], gained, size).reshape(engaged.shape)
        state.exposed[user] = exposed + np.bincount(place[there], seen, size).reshape(exposed.shape)
        state.seen_at[user] = seconds


def action_probabilities(signals: Floats, intercept: Floats) -> Floats:
    """[..., len(ACTIONS)] chances per impression from signals [..., len(SIGNALS)]; long_click times click."""
    logits = np.rint((intercept + signals @ MIX.T) * GRID) / GRID
    probability: Floats = 1 / (1 + np.exp(-logits))
    probability[..., 1] *= probability[..., 0]
    return probability


def _rounds(rank: Ints) -> Iterator[Ints]:
    order = np.argsort(rank, kind="stable")
    ends = np.cumsum(np.bincount(rank)) if len(rank) else np.zeros(0, dtype=np.int64)
    begin = 0
    for end in ends:
        for start in range(begin, int(end), ROUND):
            yield order[start : min(start + ROUND, int(end))]
        begin = int(end)


def _joined(parts: list[Shown]) -> Shown:
    """The rounds as one table in order of request and slot; an empty day gives empty columns."""
    if not parts:
        none, ints = np.zeros(0), np.zeros(0, dtype=np.int64)
        signals, actions = np.zeros((0, len(SIGNALS))), np.zeros((0, len(ACTIONS)))
        return Shown(ints, ints, ints, none, ints, signals, actions, actions.astype(bool))
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Shown.__dataclass_fields__
    }
    order = np.lexsort((columns["position"], columns["request"]))
    return Shown(**{name: column[order] for name, column in columns.items()})


def _targets(rates: Rates) -> Floats:
    return np.array([rates.click, rates.long_click, rates.save, rates.closeup, rates.hide])


def _intercepts(logits: Floats, weights: Floats, targets: Floats) -> Floats:
    """The intercept of each column that brings its weighted mean probability to the target, by bisection."""
    low, high = np.full(len(targets), -20.0), np.full(len(targets), 20.0)
    total = weights.sum(axis=0)
    for _ in range(50):
        middle = (low + high) / 2
        mean = (weights / (1 + np.exp(-(logits + middle)))).sum(axis=0) / total
        low, high = np.where(mean < targets, middle, low), np.where(mean < targets, high, middle)
    solved: Floats = np.rint((low + high) / 2 * GRID) / GRID
    return solved
