"""The catalogue of a world: ads, pins, campaigns and advertisers, with their hidden qualities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from adstool.world.config import WorldConfig
from adstool.world.vocabulary import (
    Ints,
    Taxonomy,
    draw_attributes,
    taxonomy,
    typical_prices,
    write_texts,
)

Floats = NDArray[np.float64]
LATENT = 12  # dimensions of the space in which interests and items live
DAY = 86_400
OBJECTIVES = ("awareness", "consideration", "conversions", "catalog_sales")
STRATEGIES = (("fixed",), ("max_clicks", "fixed"), ("target_cpa", "max_conversions"), ("target_roas",))
FORMATS = ("standard", "carousel", "collection")
KINDS = ("checkout", "add_to_cart", "signup", "lead")
_FIRST = ("Nord", "Luma", "Oak", "Vela", "Mira", "Terra", "Halo", "Fern", "Koa", "Rive", "Sol", "Brix")
_SECOND = ("works", "field", "craft", "haus", "line", "well", "ware", "nest")


@dataclass
class RawItems:
    """What is known of items before anybody advertises them; one row an item, ads and pins alike."""

    words: Taxonomy
    ids: list[str]  # empty text: named by the world
    titles: list[str]
    descriptions: list[str]
    category: Ints
    style: Ints
    attributes: Ints  # [n, A] indices into words.attributes, -1 for none
    price: Floats
    pictures: list[Path | None]  # existing pictures to copy; None where one is drawn or missing
    drawn: bool  # whether pictures are drawn from category, style and colour


@dataclass
class Advertisers:
    """One row an advertiser; quality and delays are hidden, the rest is in advertisers.csv."""

    names: list[str]
    vertical: Ints
    quality: Floats  # standard normal: how well its ads do
    landing: Floats  # standard normal: how well its site converts
    kinds: Floats  # [n, 4] chances of the conversion kinds
    fast_share: Floats  # of conversions that come within minutes to hours
    fast_median: Floats  # seconds
    slow_median: Floats  # seconds
    offline_share: Floats  # of conversions that happen in a store; 1 for advertisers without tag


@dataclass
class Campaigns:
    """One row a campaign."""

    advertiser: Ints
    category: Ints
    objective: Ints
    strategy: list[str]
    bid: Floats
    target: Floats  # nan where the strategy has none
    daily_budget: Floats
    starts: Ints  # seconds from the first second of the world
    ends: Ints


@dataclass
class Items:
    """Ads, then pins: the first `ads` rows are ads. Times are seconds from the world's start."""

    ads: int
    ids: list[str]
    titles: list[str]
    descriptions: list[str]
    images: list[str]  # relative paths, empty where there is no picture
    category: Ints
    style: Ints
    attributes: Ints
    price: Floats  # nan for pins
    reference: Floats  # the category's median price, one an item
    owner: Ints  # advertiser of an ad, board of a pin
    campaign: Ints  # -1 for pins
    format: Ints  # -1 for pins
    created: Ints
    opens: Ints  # first second in which it may be shown
    closes: Ints
    vector: Floats  # [n, LATENT]
    quality: Floats  # of its advertiser or board, standard normal
    creative: Floats  # its own appeal, standard normal


@dataclass
class Catalogue:
    """Everything that can be shown, and who pays for it."""

    words: Taxonomy
    items: Items
    advertisers: Advertisers
    campaigns: Campaigns
    boards: int
    appeal: Floats  # [S] how much a style is in fashion, standard


def synthetic_items(config: WorldConfig) -> RawItems:
    """Items of the grammar: every category equally often, style independent of everything in the text."""
    rng = np.random.default_rng([config.seed, 1])
    words = taxonomy()
    count = config.ads + config.pins
    category = rng.permutation(np.arange(count) % len(words.categories)).astype(np.int64)
    style = rng.permutation(np.arange(count) % len(words.styles)).astype(np.int64)
    attributes = draw_attributes(rng, count)
    brands = [brand_name(int(number)) for number in rng.integers(0, 96, count)]
    titles, texts = write_texts(rng, words, category, attributes, brands)
    price = typical_prices()[category] * np.exp(rng.normal(0, 0.6, count))
    return RawItems(
        words, [""] * count, titles, texts, category, style, attributes, price, [None] * count, drawn=True
    )


def brand_name(number: int) -> str:
    """A made-up brand; the first 96 numbers give different ones, later ones carry a number."""
    name = _FIRST[number % len(_FIRST)] + _SECOND[number // len(_FIRST) % len(_SECOND)]
    series = number // (len(_FIRST) * len(_SECOND))
    return name if series == 0 else f"{name} {series + 1}"


def build(config: WorldConfig, raw: RawItems, ads: int) -> Catalogue:
    """A market around `raw`: its first `ads` rows become ads of campaigns, the others pins on boards."""
    rng = np.random.default_rng([config.seed, 2])
    words, count = raw.words, len(raw.titles)
    advertisers = _advertisers(rng, words, max(6, ads // 12))
    campaigns = _campaigns(rng, config, raw.category[:ads], words, advertisers, max(10, ads // 4))
    campaign = _assign(rng, raw.category[:ads], campaigns.category)
    boards = max(4, (count - ads) // 10)
    owner = np.concatenate([campaigns.advertiser[campaign], rng.integers(0, boards, count - ads)])
    quality = np.concatenate(
        [advertisers.quality[owner[:ads]], _standard(rng.normal(size=boards))[owner[ads:]]]
    )
    created, opens, closes = _times(rng, config, campaigns, campaign, count - ads)
    centres = _unit(rng.normal(size=(len(words.categories), LATENT)))
    vector = _unit(centres[raw.category] + 0.45 * _unit(rng.normal(size=(count, LATENT))))
    prices = np.array([np.median(raw.price[raw.category == c]) if (raw.category == c).any() else 1.0
                       for c in range(len(words.categories))])  # fmt: skip
    form = rng.choice(len(FORMATS), ads, p=(0.7, 0.2, 0.1)).astype(np.int64)
    creative = rng.normal(size=count)
    creative[:ads] += np.array([0.0, 0.5, -0.3])[form]
    items = Items(
        ads=ads,
        ids=_ids(raw, ads),
        titles=raw.titles,
        descriptions=raw.descriptions,
        images=_image_paths(raw, ads),
        category=raw.category,
        style=raw.style,
        attributes=raw.attributes,
        price=np.where(np.arange(count) < ads, np.round(raw.price, 2), np.nan),
        reference=prices[raw.category],
        owner=owner,
        campaign=np.concatenate([campaign, np.full(count - ads, -1)]),
        format=np.concatenate([form, np.full(count - ads, -1)]),
        created=created,
        opens=opens,
        closes=closes,
        vector=vector,
        quality=quality,
        creative=_standard(creative),
    )
    appeal = rng.permutation(_standard(np.linspace(-1.0, 1.0, len(words.styles))))
    return Catalogue(words, items, advertisers, campaigns, boards, appeal)


def _ids(raw: RawItems, ads: int) -> list[str]:
    return [given or (f"a{i + 1}" if i < ads else f"p{i - ads + 1}") for i, given in enumerate(raw.ids)]


def _image_paths(raw: RawItems, ads: int) -> list[str]:
    paths = []
    for name, picture in zip(_ids(raw, ads), raw.pictures, strict=True):
        if raw.drawn:
            paths.append(f"images/{name}.png")
        else:
            paths.append(f"images/{picture.name}" if picture is not None else "")
    return paths


def _advertisers(rng: np.random.Generator, words: Taxonomy, count: int) -> Advertisers:
    vertical = rng.permutation(np.arange(count) % len(words.verticals)).astype(np.int64)
    # Shops sell, services take sign-ups, business sellers collect leads.
    trade = rng.choice(3, count, p=(0.7, 0.18, 0.12))
    kinds = np.array([[0.72, 0.2, 0.08, 0.0], [0.05, 0.0, 0.8, 0.15], [0.0, 0.0, 0.15, 0.85]])[trade]
    offline = np.where(rng.random(count) < 0.15, 1.0, rng.beta(1.2, 8.0, count))
    return Advertisers(
        names=[brand_name(i) for i in range(count)],
        vertical=vertical,
        quality=_standard(rng.normal(size=count)),
        landing=_standard(rng.normal(size=count)),
        kinds=kinds,
        fast_share=rng.uniform(0.15, 0.9, count),
        fast_median=np.exp(rng.normal(np.log(25 * 60), 0.6, count)),
        slow_median=np.exp(rng.normal(np.log(3 * DAY), 0.7, count)),
        offline_share=offline,
    )


FAST_SIGMA = 1.0
SLOW_SIGMA = 0.8


def median_delay(who: Advertisers) -> Floats:
    """Median click-to-conversion delay of each advertiser in seconds, by bisection on the mixture's CDF."""
    low = np.full(len(who.names), 0.0)
    high = np.full(len(who.names), np.log(400.0 * DAY))
    for _ in range(60):
        middle = (low + high) / 2
        below = who.fast_share * ndtr((middle - np.log(who.fast_median)) / FAST_SIGMA)
        below += (1 - who.fast_share) * ndtr((middle - np.log(who.slow_median)) / SLOW_SIGMA)
        low, high = np.where(below < 0.5, middle, low), np.where(below < 0.5, high, middle)
    median: Floats = np.exp((low + high) / 2)
    return median


def _campaigns(
    rng: np.random.Generator, config: WorldConfig, wanted: Ints, words: Taxonomy, who: Advertisers, count: int
) -> Campaigns:
    """Campaigns of one category each; every category that has ads gets at least one."""
    used, popularity = np.unique(wanted, return_counts=True)
    count = max(count, len(used))
    spare = rng.choice(used, count - len(used), p=popularity / popularity.sum())
    category = np.concatenate([used, spare]).astype(np.int64)
    advertiser = np.empty(count, dtype=np.int64)
    for vertical in range(len(words.verticals)):
        rows = np.flatnonzero(words.vertical_of[category] == vertical)
        able = np.flatnonzero(who.vertical == vertical)
        able = able if len(able) else np.arange(len(who.names))
        advertiser[rows] = rng.permutation(np.resize(able, len(rows)))
    objective = rng.choice(len(OBJECTIVES), count, p=(0.15, 0.3, 0.35, 0.2)).astype(np.int64)
    strategy = [
        STRATEGIES[o][int(k) % len(STRATEGIES[o])]
        for o, k in zip(objective, rng.integers(0, 6, count), strict=True)
    ]
    span = config.days * DAY
    starts = np.where(
        rng.random(count) < 0.75,
        -rng.integers(5, 60, count) * DAY,
        (rng.random(count) * 0.5 * span).astype(np.int64),
    )
    stays = rng.random(count) < 0.8
    ends = np.where(
        stays,
        span + rng.integers(5, 60, count) * DAY,
        ((0.5 + 0.5 * rng.random(count)) * span).astype(np.int64),
    )
    bid: Floats = np.exp(rng.normal(np.log(0.6), 0.6, count)).round(2) + 0.05
    return Campaigns(
        advertiser, category, objective, strategy, bid,
        _targets(rng, strategy, bid, config.rates.conversion), _budgets(rng, count), starts, ends,
    )  # fmt: skip


def _budgets(rng: np.random.Generator, count: int) -> Floats:
    """Daily budgets; the largest 2 % of campaigns hold half of the sum."""
    budget = np.sort(np.exp(rng.normal(np.log(60.0), 0.8, count)))[::-1]
    few = max(1, round(0.02 * count))
    budget[:few] *= budget[few:].sum() / budget[:few].sum()
    return np.round(rng.permutation(budget), 2)


def _targets(rng: np.random.Generator, strategy: list[str], bid: Floats, conversion: float) -> Floats:
    """Targets between loose (three times what it costs) and impossible (a fifteenth of it)."""
    ease = np.exp(rng.uniform(np.log(1 / 15), np.log(3.0), len(strategy)))
    price = 45.0  # a typical order, for the return a unit of spend can have
    cost = bid / conversion
    target = np.full(len(strategy), np.nan)
    for i, name in enumerate(strategy):
        if name == "target_cpa":
            target[i] = cost[i] * ease[i]
        elif name == "target_roas":
            target[i] = price / cost[i] / ease[i]
    return np.round(target, 3)


def _assign(rng: np.random.Generator, category: Ints, of_campaign: Ints) -> Ints:
    """A campaign of the same category for each ad, evenly."""
    campaign = np.empty(len(category), dtype=np.int64)
    for c in np.unique(category):
        rows = np.flatnonzero(category == c)
        campaign[rows] = rng.permutation(
            np.resize(rng.permutation(np.flatnonzero(of_campaign == c)), len(rows))
        )
    return campaign


def _times(
    rng: np.random.Generator, config: WorldConfig, campaigns: Campaigns, campaign: Ints, pins: int
) -> tuple[Ints, Ints, Ints]:
    """When items were made, and when they may be shown: two fifths of the ads are new during the world."""
    span, ads = config.days * DAY, len(campaign)
    begin, end = campaigns.starts[campaign], campaigns.ends[campaign]
    new = (rng.random(ads) * 0.95 * span).astype(np.int64)
    old = -(rng.random(ads) * 60 * DAY).astype(np.int64)
    created = np.where(rng.random(ads) < 0.4, new, old)
    # An ad made after its campaign's end would never run: it belongs to the campaign's last third instead.
    late = created > end - DAY
    created = np.where(late, begin + ((end - begin) * 0.66).astype(np.int64), created)
    pin_new = (rng.random(pins) * 0.95 * span).astype(np.int64)
    pin_old = -(rng.random(pins) * 200 * DAY).astype(np.int64)
    pin_created = np.where(rng.random(pins) < 0.25, pin_new, pin_old)
    opens = np.concatenate([np.maximum(created, begin), pin_created])
    closes = np.concatenate([end, np.full(pins, np.iinfo(np.int64).max)])
    return np.concatenate([created, pin_created]), opens, closes


def _standard(values: Floats) -> Floats:
    spread = float(values.std())
    scaled: Floats = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return scaled


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled
