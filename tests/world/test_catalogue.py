"""The market: budgets, targets, times and words; pictures that show what the text does not say."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from world.conftest import Made

from adstool.world import catalogue, vocabulary
from adstool.world.config import WorldConfig, preset
from adstool.world.pictures import OUTLINES, draw


def _rows(made: Made, name: str) -> list[dict[str, str]]:
    with open(made.folder / f"{name}.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("ads", [200, 600, 4000])
def test_two_percent_of_campaigns_hold_half_of_the_budget(ads: int) -> None:
    config = WorldConfig(ads=ads)
    market = catalogue.build(config, catalogue.synthetic_items(config), ads)
    budget = np.sort(market.campaigns.daily_budget)[::-1]
    few = max(1, round(0.02 * len(budget)))
    assert budget[:few].sum() / budget.sum() == pytest.approx(0.5, abs=0.01)
    assert budget.min() > 0


def test_targets_go_from_loose_to_impossible(committed: Made) -> None:
    rate = committed.config.rates.conversion
    ratios = [
        float(row["target"]) / (float(row["bid"]) / rate)
        for row in _rows(committed, "campaigns")
        if row["bid_strategy"] == "target_cpa"
    ]
    assert min(ratios) < 0.15
    assert max(ratios) > 1.5
    for row in _rows(committed, "campaigns"):
        assert (row["target"] != "") == (row["bid_strategy"] in ("target_cpa", "target_roas"))
        assert row["starts_at"] < row["ends_at"]


def test_every_reference_leads_somewhere(committed: Made) -> None:
    advertisers = {row["advertiser_id"] for row in _rows(committed, "advertisers")}
    campaigns = {row["campaign_id"]: row for row in _rows(committed, "campaigns")}
    assert {row["advertiser_id"] for row in campaigns.values()} <= advertisers
    categories = defaultdict(set)
    for row in _rows(committed, "ads"):
        categories[row["campaign_id"]].add(row["category"])
        assert float(row["price"]) > 0
    assert set(categories) <= set(campaigns)
    assert all(len(names) == 1 for names in categories.values())
    for row in (*_rows(committed, "ads"), *_rows(committed, "pins")):
        assert (committed.folder / row["image"]).stat().st_size < 2500


def test_new_ads_appear_while_the_world_runs(committed: Made) -> None:
    created = [row["created_at"] for row in _rows(committed, "ads")]
    assert 0.25 < np.mean([at >= "2026-11-02" for at in created]) < 0.5


def test_no_text_names_a_style_and_none_can_be_guessed_from_text(committed: Made) -> None:
    styles = {
        r["item_id"]: r["style"] for r in pq.read_table(committed.folder / "truth/items.parquet").to_pylist()
    }
    rows = [*_rows(committed, "ads"), *_rows(committed, "pins")]
    texts = [f"{row['title']} {row['description']}".lower() for row in rows]
    queries = {e["query"] for e in committed.events if e["item_type"] == "query"}
    words = set(re.findall(r"[a-z]+", " ".join([*texts, *queries])))
    assert not words & {*vocabulary.STYLES, "striped", "dotted", "checked", "spotted", "stripe", "dot"}
    counts = CountVectorizer().fit_transform(texts)
    label = np.array([styles[row.get("ad_id") or row["pin_id"]] for row in rows])
    model = LogisticRegression(max_iter=300).fit(counts[:900], label[:900])
    accuracy = model.score(counts[900:], label[900:])
    assert accuracy < 1 / 8 + 4 * math.sqrt(1 / 8 * 7 / 8 / 300)


def test_pictures_show_the_style_and_the_category(committed: Made) -> None:
    """A linear model on small pictures: far above the 12.5 % and 6.25 % of guessing."""
    items = pq.read_table(committed.folder / "truth/items.parquet").to_pylist()
    paths = [committed.folder / "images" / f"{row['item_id']}.png" for row in items]
    pixels = np.stack(
        [np.asarray(Image.open(p).convert("RGB").resize((24, 24))).ravel() / 255.0 for p in paths]
    )
    split = np.arange(len(items)) % 4 > 0
    for column, least in (("style", 0.6), ("category", 0.3)):
        label = np.array([row[column] for row in items])
        model = RidgeClassifier(alpha=100.0).fit(pixels[split], label[split])
        assert model.score(pixels[~split], label[~split]) > least, column


def test_every_category_has_an_outline_that_fills_a_fair_part_of_the_picture() -> None:
    words = vocabulary.taxonomy()
    assert set(OUTLINES) == set(words.categories)
    for category in words.categories:
        for seed in range(5):
            image = draw(category, "plain", "red", 64, np.random.default_rng(seed))
            share = float((np.asarray(image) >= 2).mean())
            assert 0.03 < share < 0.75, category


def test_categories_styles_and_colours_are_independent(committed: Made) -> None:
    items = pq.read_table(committed.folder / "truth/items.parquet").to_pylist()
    pairs = Counter((row["category"], row["style"]) for row in items)
    assert len(pairs) == 16 * 8
    assert max(pairs.values()) < 25


def test_presets_and_refusals() -> None:
    assert preset("full").rates.click < 0.05
    assert preset("full").writes_parquet
    assert not preset("small").writes_parquet
    assert preset("small", users=99, ads=None).users == 99
    assert 0.7e6 < preset("full").expected_events < 1.5e6
    for name, changes in (("tiny", {}), ("small", {"users": 3}), ("small", {"seed": -1})):
        with pytest.raises(Exception, match=r"--preset|too small|negative"):
            preset(name, **changes)
