"""The true rates of any user and ad of a synthetic world, shown or not: the world rebuilt from its settings.

For evaluation and simulation alone. What users carry from request to request (what they engaged with and what
they were shown) is taken from the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adstool.workspace import read_json
from adstool.world import catalogue, population
from adstool.world.behaviour import (
    ACTIONS,
    ENGAGEMENT,
    FATIGUE_DAYS,
    RECENT_DAYS,
    Behaviour,
    Shown,
    action_probabilities,
)
from adstool.world.catalogue import KINDS
from adstool.world.config import GENERATOR_VERSION, Rates, WorldConfig
from adstool.world.conversions import ADD_TO_CART, CHECKOUT, LOST, OffSite
from adstool.world.policies import Shop
from adstool.world.rhythm import SURFACES
from adstool.world.vocabulary import Ints, Taxonomy

Floats = NDArray[np.float64]
CARTS = 0.5  # of online checkouts, seen as an add_to_cart too
MANY, SPREAD = 1.3, float(np.exp(0.35**2 / 2))  # mean quantity and noise of an order
BULK = 0.98 + 0.02 * (1 + 4 / 0.7)  # one order in fifty has a Pareto tail of exponent 1.7
SIGNUP = 0.5 * 8 * float(np.exp(0.5**2 / 2))


@dataclass(frozen=True)
class Asked:
    """Requests as the log has them; what was engaged with and seen by category, decayed to each request."""

    users: Sequence[str]
    ts: Ints  # microseconds UTC [n]
    surfaces: Sequence[str | None]
    queries: Sequence[str | None]
    engaged: Floats  # [n, categories], see Oracle.categories
    exposed: Floats


class Oracle:
    """What a synthetic world does of which the folder holds the settings and the truth."""

    @staticmethod
    def find(truth: Path) -> Oracle | None:
        """Of the truth/ folder of a world; None for one over a real catalogue or of another version."""
        path = truth.parent / "world.json"
        if not path.is_file():
            return None
        world = read_json(path)
        settings = dict(world["settings"])
        if settings.pop("catalog", None) is not None or world.get("version") != GENERATOR_VERSION:
            return None
        settings["rates"] = Rates(**settings["rates"])
        return Oracle(WorldConfig(**settings), read_json(truth / "laws.json"))

    def __init__(self, config: WorldConfig, laws: dict[str, dict[str, dict[str, float]]]) -> None:
        self.config = config
        self.market = catalogue.build(config, catalogue.synthetic_items(config), config.ads)
        people = population.build(config, self.market)
        self.behaviour = Behaviour(config, self.market, people, Shop(config, self.market, people))
        self.behaviour.scales.intercept = np.array([laws["actions"][name]["intercept"] for name in ACTIONS])
        self.off_site = OffSite(config, self.market, people)
        self.off_site.after_click = float(laws["conversion"]["after_click"])  # type: ignore[arg-type]
        self.user_of = {name: number for number, name in enumerate(people.ids)}
        self.item_of = {name: number for number, name in enumerate(self.market.items.ids)}
        self.categories = self.market.words.categories

    def rates(self, asked: Asked, items: Sequence[Sequence[str]]) -> tuple[Floats, Floats, Floats]:
        """Chances of ACTIONS in the first slot [n, C, A]; conversions and money of a click, [n, C] each.

        Every request has as many items. Unknown users raise KeyError. Conversions and money are expected in
        the long run, before any window, without those that are lost.
        """
        count, columns = len(items), len(items[0])
        rows = np.repeat(np.arange(count), columns)
        item = np.array([self.item_of[name] for line in items for name in line])
        user = np.array([self.user_of[name] for name in asked.users])[rows]
        start = int(self.config.started_at.timestamp())
        seconds = (asked.ts // 1_000_000 - start)[rows]
        surface = np.array([SURFACES.index(one) if one in SURFACES else 0 for one in asked.surfaces])[rows]
        wanted = [read_query(self.market.words, query) for query in asked.queries]
        category, attribute = np.array(wanted, dtype=np.int64).reshape(-1, 2)[rows].T
        interest = self.behaviour.people.interest(user, seconds)
        signals = self.behaviour.signals(
            user, seconds, surface, interest, category, attribute, item[:, None],
            asked.engaged[rows], asked.exposed[rows],
        )[:, 0]  # fmt: skip
        chances = action_probabilities(signals, self.behaviour.scales.intercept)
        shown = _shown(item, signals, chances)
        convert = self.off_site.probabilities(shown)[0]
        each, money = self._of_conversion(item)
        shape = (count, columns)
        return (
            chances.reshape(*shape, -1),
            (convert * each).reshape(shape),
            (convert * money).reshape(shape),
        )

    def _of_conversion(self, item: Ints) -> tuple[Floats, Floats]:
        """Events reported, and their money, of one conversion of each ad [n]."""
        who, owner = self.market.advertisers, self.market.items.owner[item]
        kinds, offline = who.kinds[owner], who.offline_share[owner]
        known = offline + (1 - offline) * (1 - LOST)
        carts = CARTS * kinds[:, CHECKOUT] * (1 - offline) * (1 - LOST)
        order = self.market.items.price[item] * MANY * SPREAD * BULK
        sold = (kinds[:, CHECKOUT] + kinds[:, ADD_TO_CART]) * known + carts
        return known + carts, sold * order + kinds[:, KINDS.index("signup")] * known * SIGNUP


def _shown(item: Ints, signals: Floats, chances: Floats) -> Shown:
    """Impressions of which nothing but item, signals and chances is read."""
    none = np.zeros(len(item), dtype=np.int64)
    acted = np.zeros(chances.shape, dtype=bool)
    return Shown(none, item, none, np.ones(len(item)), none, signals, chances, acted)


def read_query(words: Taxonomy, query: str | None) -> tuple[int, int]:
    """The category and attribute that a query of the world names, -1 for none."""
    if not query:
        return -1, -1
    left = f" {query.lower()} "
    found = -1
    nouns = [(noun, number) for number, names in enumerate(words.nouns) for noun in names]
    for noun, number in sorted(nouns, key=lambda pair: -len(pair[0])):
        if f" {noun} " in left:
            found, left = number, left.replace(f" {noun} ", "  ", 1)
            break
    said = [number for number, word in enumerate(words.attributes) if f" {word} " in left]
    return found, said[0] if said else -1


def decays() -> tuple[dict[str, float], dict[str, float], float, float]:
    """What actions add to recent engagement and to what was seen, and the days over which each fades by e."""
    engaged = dict(zip(ACTIONS, ENGAGEMENT.tolist(), strict=True))
    return engaged, {"impression": 1.0, "hide": 2.0}, RECENT_DAYS, FATIGUE_DAYS
