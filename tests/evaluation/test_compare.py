"""What a change is worth: against scikit-learn, auctions held one by one, and words by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from support import cli_json

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError
from adstool.evaluation.compare import compare, open_form, percent, sentence
from adstool.evaluation.context import FIRST_POSITION, Evaluation
from adstool.evaluation.pools import logged_pools, sell
from adstool.marketplace.auction import exposure_curve, run_auction
from adstool.training.value import Value
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


@pytest.fixture(scope="module")
def evaluation(shop: Workspace, settings: Settings) -> Iterator[Evaluation]:
    with open_warehouse(shop, settings, read_only=True) as con:
        yield Evaluation(shop, settings, con)


def test_a_run_against_its_uncalibrated_form(evaluation: Evaluation) -> None:
    found = compare(evaluation, "engagement@r1:uncalibrated", "engagement@r1")
    click = found["metrics"]["click"]
    labels = evaluation.labels[:, 0]
    rows = np.arange(evaluation.test.start, evaluation.test.stop)
    raw = open_form(evaluation, "engagement:uncalibrated")
    inputs = evaluation.dataset.batch(rows, raw.needs)
    for side, p in (("a", raw.raw(inputs)[:, 0]), ("b", evaluation.predict(rows)[:, 0])):
        p = p.astype(np.float64)
        assert click["auc"][side] == pytest.approx(roc_auc_score(labels, p))
        assert click["log_loss"][side] == pytest.approx(log_loss(labels, p))
        assert click["calibration"][side] == pytest.approx(p.sum() / labels.sum())
    assert click["ne"]["difference"]["value"] == pytest.approx(click["ne"]["b"] - click["ne"]["a"])
    low, high = click["log_loss"]["difference"]["interval"]
    assert low <= click["log_loss"]["difference"]["value"] <= high
    assert found["money"]["outcomes"] == "true chances"
    assert found["off_policy"]["ess"] > 20
    assert found["sentence"].startswith("engagement@r1 against engagement@r1:uncalibrated: click NE ")


def test_auctions_held_again_are_those_held_one_by_one(evaluation: Evaluation) -> None:
    pools, settings = logged_pools(evaluation), evaluation.settings
    worth = evaluation.predict_worth(pools.rows + evaluation.test.start, FIRST_POSITION)
    found = sell(pools, settings, worth, worth)
    value = Value.of(settings, pools.heads)
    exposure = exposure_curve(settings.formats[0], 3)
    items = np.asarray(evaluation.dataset.item_row[evaluation.test])[pools.rows]
    days = np.asarray(evaluation.dataset.ts[evaluation.test])[pools.rows] // 86_400_000_000
    users = evaluation.users[pools.rows]
    for place, line in enumerate(pools.member):
        ads = line[line >= 0]
        assert len(set(items[ads].tolist())) == len(ads) > 1
        assert set(zip(users[ads].tolist(), days[ads].tolist(), strict=True)) == {
            (pools.users[place], days[ads[0]])
        }
        sold = run_auction(
            pools.bids[ads],
            worth[ads, value.click],
            exposure,
            bonus=value.utility_weight * value.utility(worth[ads]),
            reserve=settings.auction.reserve,
        )
        won = ads[sold.winners]
        clicks = exposure[: len(won)] * evaluation.true["click"][pools.rows[won]]
        assert found["revenue"][place] == pytest.approx((clicks * sold.prices).sum())
        assert found["value"][place] == pytest.approx((clicks * pools.bids[won]).sum())
        hides = exposure[: len(won)] * evaluation.true["hide"][pools.rows[won]]
        assert found["actions.hide"][place] == pytest.approx(hides.sum())


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("retrieval@r1", UsageError, "no engagement run"),
        ("engagement@r9", UsageError, "no run 'r9'"),
        ("engagement@r1:int3", UsageError, "asks for 'int3'"),
        ("engagement@r1:fp32:int8", UsageError, "two forms"),
        ("engagement@r1:int4", AdstoolError, "no int4 form"),
    ],
)
def test_what_cannot_be_compared_is_said(
    evaluation: Evaluation, name: str, kind: type[AdstoolError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        open_form(evaluation, name)


def change(value: float, low: float, high: float) -> dict[str, Any]:
    of = {"value": value, "interval": [low, high]}
    return {"a": 1.0, "b": 1.0 + value, "difference": of, "relative": of}


NONE, UP, DOWN = (0.0, -0.01, 0.01), (0.02, 0.01, 0.03), (-0.02, -0.03, -0.01)


@pytest.mark.parametrize(
    ("ne", "revenue", "value", "hides", "words"),
    [
        (NONE, NONE, NONE, NONE, "ship whichever costs less"),
        (DOWN, NONE, NONE, NONE, "beyond chance: ship it"),
        (UP, NONE, NONE, NONE, "predicts worse"),
        (NONE, UP, UP, DOWN, "beyond chance: ship it"),
        (NONE, UP, DOWN, NONE, "It earns more, but advertisers get less: weigh that first"),
        (NONE, NONE, DOWN, UP, "With it advertisers get less and users hide more: do not ship it"),
        (NONE, DOWN, NONE, NONE, "It earns less, and nobody gains: do not ship it"),
        (NONE, DOWN, UP, NONE, "It earns less, though advertisers get more: weigh that first"),
    ],
)
def test_the_sentence_says_what_to_do(ne: Any, revenue: Any, value: Any, hides: Any, words: str) -> None:
    money = {
        "revenue": change(*revenue),
        "value": change(*value),
        "roas": change(*NONE),
        "actions.hide": change(*hides),
    }
    said = sentence({"runs": ["a", "b"], "metrics": {"click": {"ne": change(*ne)}}, "money": money})
    assert words in said
    assert said.startswith("b against a: click NE ")


def test_a_higher_price_for_as_much_is_said() -> None:
    money = {"revenue": change(*UP), "value": change(*NONE), "roas": change(*DOWN)}
    said = sentence({"runs": ["a", "b"], "metrics": {"click": {"ne": change(*DOWN)}}, "money": money})
    assert "Advertisers pay more for as much" in said


def test_percent_is_as_people_write_it() -> None:
    assert percent({"value": 0.019, "interval": [0.007, 0.03]}) == "+1.9 % (+0.7, +3.0)"
    assert percent({"value": 0.0, "interval": [-1e-17, 0.0]}) == "unchanged"
    assert percent({"value": float("nan"), "interval": [0.0, 0.0]}) == "unknown"


def test_the_verb(shop_copy: Workspace) -> None:
    found = cli_json("--workspace", shop_copy.root, "evaluate", "--compare", "engagement@r1", "engagement")
    assert {"metrics", "money", "sentence"} <= found.keys()
    assert found["money"]["revenue"]["difference"]["value"] == 0
    assert "ship whichever costs less" in found["sentence"]
