"""The words of the synthetic catalogue: categories, attributes, styles; the grammar of titles and queries.

Style is the one property that no text may name: a model has to see it in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Taxonomy:
    """The closed vocabularies that items and queries are made from."""

    categories: tuple[str, ...]
    vertical_of: Ints  # [C] index into verticals
    verticals: tuple[str, ...]
    nouns: tuple[tuple[str, ...], ...]  # [C] words a query may use for the category
    attributes: tuple[str, ...]  # words that titles hold and queries ask for
    styles: tuple[str, ...]


# vertical -> category -> (nouns, typical price)
CATEGORIES: dict[str, dict[str, tuple[tuple[str, ...], float]]] = {
    "fashion": {
        "dresses": (("dress", "gown", "frock"), 60.0),
        "shirts": (("shirt", "blouse", "tee"), 30.0),
        "shoes": (("shoes", "boots", "sneakers"), 80.0),
        "bags": (("bag", "handbag", "tote"), 70.0),
    },
    "home": {
        "lamps": (("lamp", "light", "lantern"), 45.0),
        "chairs": (("chair", "seat", "stool"), 110.0),
        "vases": (("vase", "urn", "planter"), 28.0),
        "mirrors": (("mirror", "looking glass", "wall mirror"), 90.0),
    },
    "kitchen": {
        "mugs": (("mug", "cup", "beaker"), 14.0),
        "bowls": (("bowl", "dish", "basin"), 22.0),
        "teapots": (("teapot", "kettle", "tea jug"), 35.0),
        "knives": (("knife", "cleaver", "blade"), 40.0),
    },
    "leisure": {
        "tents": (("tent", "shelter", "canopy"), 150.0),
        "guitars": (("guitar", "ukulele", "six-string"), 220.0),
        "balls": (("ball", "football", "playball"), 18.0),
        "kites": (("kite", "glider", "sky flyer"), 25.0),
    },
}
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (206, 40, 48),
    "orange": (240, 138, 30),
    "yellow": (240, 208, 52),
    "green": (52, 150, 72),
    "blue": (44, 96, 200),
    "purple": (128, 60, 170),
    "pink": (240, 130, 176),
    "brown": (122, 78, 44),
}
MATERIALS = ("linen", "leather", "wool", "ceramic", "bamboo", "steel", "cotton", "glass")
OCCASIONS = ("summer", "winter", "party", "office", "holiday", "wedding", "weekend", "travel")
STYLES = ("plain", "stripes", "dots", "checks", "diagonal", "rings", "zigzag", "speckle")

_TITLES = (
    "{material} {noun} in {colour} for {occasion}",
    "{colour} {material} {noun}, {occasion} edition",
    "{occasion} {noun}: {colour} {material}",
    "{brand} {colour} {noun} in {material}, for {occasion}",
)
_DESCRIPTIONS = (
    "This {noun} is made of {material}, comes in {colour}, and suits {occasion} days.",
    "{brand} brings you this {colour} {noun}: fine {material}, ready for {occasion}.",
    "Our {material} {noun} in {colour}. A favourite for {occasion}.",
)
_QUERIES = (
    "{noun}",
    "{attribute} {noun}",
    "{noun} {attribute}",
    "best {attribute} {noun}",
    "{attribute} {noun} ideas",
)


def taxonomy() -> Taxonomy:
    """The vocabularies of the synthetic catalogue: 16 categories in 4 verticals, 24 attributes, 8 styles."""
    verticals = tuple(CATEGORIES)
    names: list[str] = []
    vertical_of: list[int] = []
    nouns: list[tuple[str, ...]] = []
    for number, group in enumerate(CATEGORIES.values()):
        for name, (words, _) in group.items():
            names.append(name)
            vertical_of.append(number)
            nouns.append(words)
    attributes = (*COLOURS, *MATERIALS, *OCCASIONS)
    return Taxonomy(
        tuple(names), np.array(vertical_of, dtype=np.int64), verticals, tuple(nouns), attributes, STYLES
    )


def typical_prices() -> NDArray[np.float64]:
    """The median price of each category, in the order of `taxonomy().categories`."""
    return np.array([price for group in CATEGORIES.values() for _, price in group.values()])


def draw_attributes(rng: np.random.Generator, count: int) -> Ints:
    """[count, 3]: a colour, a material and an occasion each, as indices into the attribute words."""
    colours, materials, occasions = len(COLOURS), len(MATERIALS), len(OCCASIONS)
    return np.stack(
        [
            rng.integers(0, colours, count),
            colours + rng.integers(0, materials, count),
            colours + materials + rng.integers(0, occasions, count),
        ],
        axis=1,
    )


def write_texts(
    rng: np.random.Generator, words: Taxonomy, category: Ints, attributes: Ints, brands: list[str]
) -> tuple[list[str], list[str]]:
    """Titles and descriptions of items from the grammar; `brands` is one name an item."""
    count = len(category)
    title_form = rng.integers(0, len(_TITLES), count)
    text_form = rng.integers(0, len(_DESCRIPTIONS), count)
    noun = rng.integers(0, 3, (count, 2))
    titles, descriptions = [], []
    for i in range(count):
        colour, material, occasion = (words.attributes[k] for k in attributes[i])
        names = words.nouns[category[i]]
        fields = {"colour": colour, "material": material, "occasion": occasion, "brand": brands[i]}
        title = _TITLES[title_form[i]].format(noun=names[noun[i, 0]], **fields)
        text = _DESCRIPTIONS[text_form[i]].format(noun=names[noun[i, 1]], **fields)
        titles.append(title[0].upper() + title[1:])
        descriptions.append(text[0].upper() + text[1:])
    return titles, descriptions


def write_queries(rng: np.random.Generator, words: Taxonomy, category: Ints, attribute: Ints) -> list[str]:
    """Query texts for intents (category, attribute); attribute -1 asks for the category alone."""
    form = rng.integers(1, len(_QUERIES), len(category))
    noun = rng.integers(0, 1 << 30, len(category))
    texts = []
    for i in range(len(category)):
        names = words.nouns[category[i]]
        pattern = _QUERIES[form[i]] if attribute[i] >= 0 else _QUERIES[0]
        asked = words.attributes[attribute[i]] if attribute[i] >= 0 else ""
        texts.append(pattern.format(noun=names[noun[i] % len(names)], attribute=asked))
    return texts
