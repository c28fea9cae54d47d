"""Catalogues take the newer content; logs keep the first. Checked against a replay row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

user = st.tuples(st.sampled_from(["u1", "u2", "u3"]), st.sampled_from([None, "de", "fr"]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(st.lists(user, min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_catalogue_holds_the_last_content_and_counts_every_change(
    files: list[list[tuple[str, str | None]]], make_shop: Callable[[], Any]
) -> None:
    shop = make_shop()
    held: dict[str, str | None] = {}
    for number, file in enumerate(files):
        inserted = updated = 0
        for key, country in file:
            if key not in held or held[key] != country:
                inserted += 1
                updated += key in held
                held[key] = country
        path = shop.ws.root / f"users-{number}.jsonl"
        path.write_text("\n".join(json.dumps({"user_id": key, "country": country}) for key, country in file))
        counts = shop.ingest(path).tables["users"]
        assert (counts.read, counts.inserted, counts.updated) == (len(file), inserted, updated)
        assert counts.duplicate == len(file) - inserted
    assert dict(shop.rows("select user_id, country from users")) == held


def test_a_campaign_of_wrong_words_or_negative_money_is_refused(shop: Any) -> None:
    path = shop.ws.root / "campaigns.csv"
    path.write_text(
        "campaign_id,advertiser_id,objective,bid_strategy,bid,target,daily_budget\n"
        "c1,a1,conversions,target_cpa,1.5,10,100\n"
        "c2,a1,fame,fixed,1,,\n"
        "c3,a1,awareness,guess,1,,\n"
        "c4,a1,awareness,fixed,-1,,\n"
        "c5,,awareness,fixed,1,,\n"
        "c6,a1,,,,,\n"
    )
    assert shop.counts(path) == {"campaigns": (6, 2, 0, 4)}
    reasons = dict(shop.rows("select line, reason from rejects"))
    assert reasons[3].startswith('objective "fame" is not one of awareness')
    assert reasons[4].startswith('bid_strategy "guess"')
    assert reasons[5] == 'bid "-1" is not a number of 0 or more'
    assert reasons[6] == "advertiser_id is missing"


def test_the_catalog_view_joins_what_is_known_and_keeps_what_is_not(shop: Any) -> None:
    root = shop.ws.root
    (root / "advertisers.csv").write_text("advertiser_id,name,vertical\nv1,Acme,home\n")
    (root / "campaigns.csv").write_text("campaign_id,advertiser_id,bid\nc1,v1,2.5\nc2,v9,1\n")
    (root / "ads.csv").write_text("ad_id,campaign_id,title,price\na1,c1,Lamp,9.5\na2,c9,Lost,\na3,c2,Odd,1\n")
    (root / "pins.csv").write_text("pin_id,title\np1,Idea\n")
    shop.ingest(*(root / f"{name}.csv" for name in ("advertisers", "campaigns", "ads", "pins")))
    found = shop.rows(
        "select item_type, item_id, title, price, advertiser_id, vertical, bid from catalog order by item_id"
    )
    assert found == [
        ("ad", "a1", "Lamp", 9.5, "v1", "home", 2.5),
        ("ad", "a2", "Lost", None, None, None, None),
        ("ad", "a3", "Odd", 1.0, "v9", None, 1.0),
        ("pin", "p1", "Idea", None, None, None, None),
    ]
