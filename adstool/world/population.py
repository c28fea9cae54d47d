"""The people of a world: what they tell about themselves, and the hidden tastes behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adstool.world.catalogue import DAY, LATENT, Catalogue
from adstool.world.config import WorldConfig
from adstool.world.vocabulary import Ints

Floats = NDArray[np.float64]
COUNTRIES = ("US", "DE", "FR", "BR", "JP", "IN")
LANGUAGES = ("en", "de", "fr", "pt", "ja", "en")
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
GENDERS = ("female", "male", "unspecified")
PERSONAS = 8


@dataclass
class Population:
    """One row a user. Interests turn from `interest_from` to `interest_to` over `drift_days`."""

    ids: list[str]
    country: Ints
    age: Ints
    gender: Ints
    signup: Ints  # seconds from the world's start
    persona: Ints
    interest_from: Floats  # [n, LATENT] unit vectors
    interest_to: Floats
    drift_days: Floats
    taste: Floats  # [n, S] liking of styles, standard
    means: Floats  # log of what the user can pay against the category's usual price
    activity: Floats  # requests a day against the mean

    def interest(self, user: Ints, seconds: Ints) -> Floats:
        """[len(user), LATENT] unit-like vectors of what each wants at that second of the world."""
        return turned(self.interest_from[user], self.interest_to[user], self.drift_days[user], seconds)


def turned(start: Floats, end: Floats, drift_days: Floats, seconds: Ints) -> Floats:
    """Interests [n, LATENT] that turn from `start` to `end` over `drift_days`, at `seconds` of the world."""
    angle = np.minimum(seconds / DAY / drift_days, 1.0) * (np.pi / 2)
    found: Floats = np.cos(angle)[:, None] * start + np.sin(angle)[:, None] * end
    return found


def build(config: WorldConfig, catalogue: Catalogue) -> Population:
    """Users whose personas follow from age, gender and country, so that profiles tell something of taste."""
    rng = np.random.default_rng([config.seed, 3])
    n, styles = config.users, len(catalogue.words.styles)
    country = rng.choice(len(COUNTRIES), n, p=(0.38, 0.14, 0.12, 0.14, 0.1, 0.12)).astype(np.int64)
    age = rng.choice(len(AGES), n, p=(0.24, 0.28, 0.2, 0.15, 0.13)).astype(np.int64)
    gender = rng.choice(len(GENDERS), n, p=(0.56, 0.36, 0.08)).astype(np.int64)
    leaning = (
        rng.normal(0, 1.1, (len(AGES), PERSONAS))[age]
        + rng.normal(0, 1.3, (len(GENDERS), PERSONAS))[gender]
        + rng.normal(0, 0.5, (len(COUNTRIES), PERSONAS))[country]
    )
    first = np.argmax(leaning + rng.gumbel(size=(n, PERSONAS)), axis=1)
    second = np.argmax(0.5 * leaning + rng.gumbel(size=(n, PERSONAS)), axis=1)
    vectors = _persona_vectors(rng, catalogue)
    signup = np.where(
        rng.random(n) < 0.85,
        -rng.integers(1, 700, n) * DAY,
        (rng.random(n) * 0.8 * config.days * DAY).astype(np.int64),
    )
    taste = rng.normal(size=(PERSONAS, styles))[first] + 0.7 * rng.normal(size=(n, styles))
    means = np.linspace(-0.45, 0.45, len(AGES))[age] + rng.normal(0, 0.3, len(COUNTRIES))[country]
    activity = np.exp(rng.normal(0, 0.9, n))
    return Population(
        ids=[f"u{i + 1}" for i in range(n)],
        country=country,
        age=age,
        gender=gender,
        signup=signup,
        persona=first,
        interest_from=_unit(vectors[first] + 0.6 * _unit(rng.normal(size=(n, LATENT)))),
        interest_to=_unit(vectors[second] + 0.6 * _unit(rng.normal(size=(n, LATENT)))),
        drift_days=rng.uniform(12, 60, n),
        taste=(taste - taste.mean(0)) / taste.std(0),
        means=means + rng.normal(0, 0.35, n),
        activity=np.minimum(activity / activity.mean(), 12.0),
    )


def _persona_vectors(rng: np.random.Generator, catalogue: Catalogue) -> Floats:
    """A persona likes three categories and is put off by two."""
    categories = len(catalogue.words.categories)
    centres = np.zeros((categories, LATENT))
    np.add.at(centres, catalogue.items.category, catalogue.items.vector)
    centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    vectors = np.empty((PERSONAS, LATENT))
    for persona in range(PERSONAS):
        picked = rng.permutation(np.resize(np.arange(categories), max(categories, 5)))
        vectors[persona] = centres[picked[:3]].sum(0) - 0.7 * centres[picked[3:5]].sum(0)
        vectors[persona] += 0.05 * rng.normal(size=LATENT)
    return _unit(vectors)


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled
