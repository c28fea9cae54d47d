"""What the site shows: candidates for a request, and four policies that fill the slots by lot.

Each slot is drawn from the candidates of its kind that are left, so the probability of the draw is known
exactly: it is the logged propensity, conditional on the candidates and on the slots above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adstool.world.catalogue import LATENT, Catalogue
from adstool.world.config import WorldConfig
from adstool.world.population import Population
from adstool.world.vocabulary import Ints

Floats = NDArray[np.float64]
POLICIES = ("random", "popular", "personal", "revenue")
SHARES = (0.2, 0.2, 0.4, 0.2)
EXPLORE = 0.1  # share of every draw that is uniform, so that no propensity is tiny
CANDIDATES = 28  # drawn per kind and request, before duplicates and items not running are taken out
_BY_CATEGORY, _UNIFORM = 17, 6  # the other five draws come from the newest items
_IN_CONTEXT = 9  # of the draws by category: from the query's or the related pin's category
_NEWEST = 0.06  # share of a kind that counts as its newest
_PRIOR = 40.0  # impressions a popularity estimate is worth before any data


@dataclass
class Choice:
    """What was shown for R requests in S slots; item -1 where a slot stayed empty."""

    item: Ints  # [R, S]
    propensity: Floats  # [R, S]
    choices: Ints  # [R, S] candidates that the slot was drawn from


class Shop:
    """Draws candidates and slates; holds the site's own, imperfect knowledge."""

    def __init__(self, config: WorldConfig, catalogue: Catalogue, people: Population) -> None:
        """Index the catalogue by kind and category, and give the site a blurred view of every user."""
        rng = np.random.default_rng([config.seed, 5])
        items = catalogue.items
        count, categories = len(items.ids), len(catalogue.words.categories)
        self.config, self.items, self.people = config, items, people
        self.blur = 0.7 * _unit(rng.normal(size=(config.users, LATENT)))
        self.spans = ((0, items.ads), (items.ads, count))
        self.by_category = [_Blocks(items.category[low:high], low, categories) for low, high in self.spans]
        self.by_age = [low + np.argsort(items.opens[low:high], kind="stable") for low, high in self.spans]
        centres = np.zeros((categories, LATENT))
        np.add.at(centres, items.category, items.vector)
        self.centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
        # Larger categories are wanted more, by the root of their size; an empty one never.
        self.stocked = np.sqrt(np.bincount(items.category, minlength=categories))
        self.forget()
        bid = np.log(catalogue.campaigns.bid) + 0.25 * _standard(np.log(catalogue.campaigns.daily_budget))
        self.worth = np.concatenate([bid[items.campaign[: items.ads]], np.zeros(count - items.ads)])

    def forget(self) -> None:
        """Start without any impression counted."""
        count = len(self.items.ids)
        self.shown, self.clicked, self.popularity = np.zeros(count), np.zeros(count), np.zeros(count)

    def learn(self, item: Ints, click: NDArray[np.bool_]) -> None:
        """Count a day's impressions and clicks into the popularity that the next day's policies use."""
        self.shown += np.bincount(item, minlength=len(self.shown))
        self.clicked += np.bincount(item[click], minlength=len(self.shown))
        mean = (self.clicked.sum() + 1) / (self.shown.sum() + 10)
        rate = (self.clicked + _PRIOR * mean) / (self.shown + _PRIOR)
        self.popularity = np.log(rate / mean)

    def likely_categories(self, interest: Floats, rng: np.random.Generator, count: int, heat: float) -> Ints:
        """[R, count] categories drawn for each interest vector, the better matches more often."""
        logits = heat * interest @ self.centres.T
        weights = np.exp(logits - logits.max(axis=1, keepdims=True)) * self.stocked
        bounds = np.cumsum(weights, axis=1)
        dice = rng.random((len(interest), count)) * bounds[:, -1:]
        found = (bounds[:, None, :] < dice[:, :, None]).sum(axis=2)
        category: Ints = np.minimum(found, len(self.centres) - 1)
        return category

    def candidates(
        self, user: Ints, seconds: Ints, context: Ints, interest: Floats, rng: np.random.Generator
    ) -> Ints:
        """[R, 2 * CANDIDATES]: ads, then pins; -1 for a duplicate or an item that is not running.

        `context` is the category of the query or the related pin, -1 without one.
        """
        rows = len(user)
        category = self.likely_categories(interest + self.blur[user], rng, _BY_CATEGORY, heat=3.0)
        category[:, :_IN_CONTEXT] = np.where(
            context[:, None] >= 0, context[:, None], category[:, :_IN_CONTEXT]
        )
        kinds = []
        for kind, (low, high) in enumerate(self.spans):
            drawn = np.empty((rows, CANDIDATES), dtype=np.int64)
            drawn[:, :_BY_CATEGORY] = self.by_category[kind].draw(category, rng)
            end = _BY_CATEGORY + _UNIFORM
            drawn[:, _BY_CATEGORY:end] = rng.integers(low, high, (rows, _UNIFORM))
            order = self.by_age[kind]
            newest = np.searchsorted(self.items.opens[order], seconds, side="right")
            window = max(8, int(_NEWEST * (high - low)))
            back = (rng.random((rows, CANDIDATES - end)) * window).astype(np.int64)
            drawn[:, end:] = order[np.maximum(newest[:, None] - 1 - back, 0)]
            running = (self.items.opens[drawn] <= seconds[:, None]) & (
                seconds[:, None] < self.items.closes[drawn]
            )
            drawn[(drawn < 0) | ~running] = -1
            drawn.sort(axis=1)
            repeated = np.zeros_like(drawn, dtype=bool)
            repeated[:, 1:] = drawn[:, 1:] == drawn[:, :-1]
            drawn[repeated] = -1
            kinds.append(drawn)
        return np.concatenate(kinds, axis=1)

    def scores(self, policy: Ints, user: Ints, context: Ints, interest: Floats, candidates: Ints) -> Floats:
        """[R, M] what each request's policy thinks of each candidate, as logits of the draw."""
        items = self.items
        seen = interest + self.blur[user]
        match = np.einsum("rk,rmk->rm", seen, items.vector[candidates])
        in_context = items.category[candidates] == context[:, None]
        popular = self.popularity[candidates]
        personal = 2.6 * match + 1.2 * in_context + 0.4 * popular
        revenue = self.worth[candidates] + popular + 0.6 * in_context
        chosen = np.where((policy == 1)[:, None], 2.0 * popular, 0.0)
        chosen = np.where((policy == 2)[:, None], personal, chosen)
        return np.where((policy == 3)[:, None], revenue, chosen)

    def fill(
        self, candidates: Ints, scores: Floats, is_ad: NDArray[np.bool_], rng: np.random.Generator
    ) -> Choice:
        """Draw every slot in turn; `is_ad` [R, S] says which kind a slot takes."""
        rows, slots = is_ad.shape
        left = candidates >= 0
        kind = np.arange(candidates.shape[1]) < CANDIDATES
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        lines = np.arange(rows)
        choice = Choice(
            np.full((rows, slots), -1), np.zeros((rows, slots)), np.zeros((rows, slots), dtype=np.int64)
        )
        for slot in range(slots):
            able = left & (kind[None, :] == is_ad[:, slot, None])
            number = able.sum(axis=1)
            share = slot_probabilities(weights, able, number)
            bounds = np.cumsum(share, axis=1)
            dice = rng.random(rows) * bounds[:, -1]
            picked = np.minimum((bounds <= dice[:, None]).sum(axis=1), candidates.shape[1] - 1)
            some = number > 0
            choice.item[:, slot] = np.where(some, candidates[lines, picked], -1)
            choice.propensity[:, slot] = np.where(some, share[lines, picked], 0.0)
            choice.choices[:, slot] = number
            left[lines[some], picked[some]] = False
        return choice


def slot_probabilities(weights: Floats, able: NDArray[np.bool_], number: Ints) -> Floats:
    """[R, M] chance of each candidate: softmax weights over the able ones, mixed with a uniform draw."""
    allowed = weights * able
    total = np.maximum(allowed.sum(axis=1, keepdims=True), 1e-300)
    uniform = able / np.maximum(number, 1)[:, None]
    mixed: Floats = (1 - EXPLORE) * allowed / total + EXPLORE * uniform
    return mixed


class _Blocks:
    """Items of one kind, grouped by category so that a random one of a category is one look-up."""

    def __init__(self, category: Ints, low: int, categories: int) -> None:
        self.order = low + np.argsort(category, kind="stable")
        self.sizes = np.bincount(category, minlength=categories)
        self.offsets = np.cumsum(self.sizes) - self.sizes

    def draw(self, category: Ints, rng: np.random.Generator) -> Ints:
        """A random item of each category; -1 where a category has none."""
        size = self.sizes[category]
        place = self.offsets[category] + (rng.random(category.shape) * size).astype(np.int64)
        found = self.order[np.minimum(place, len(self.order) - 1)]
        return np.where(size > 0, found, -1)


def _standard(values: Floats) -> Floats:
    scaled: Floats = (values - values.mean()) / max(float(values.std()), 1e-9)
    return scaled


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled
