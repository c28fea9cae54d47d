"""Public formats, in tiny files of exactly the published form."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support import SHARED_DATA

from adstool.errors import AdstoolError, DataError, UsageError

REAL = Path(os.environ.get("MOVIELENS_100K", "nowhere"))


def write_recbole(folder: Path) -> None:
    folder.mkdir()
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n3\t9\tF\tstudent\tV3N4P\n"
    )
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n"
        "267\tunkonwn\tunkonwn\tunknown\n"
        '1412\tLand Before "Time" III (1995)\tV\tAnimation Children\'s\n'
    )
    (folder / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "1\t1\t5\t881250949\n2\t1\t3\t891717742\n1\t267\t4.0\t881250950\n2\t1412\t9\t878887116\n3\t1\t4\tlater\n"
    )


def write_grouplens(folder: Path) -> None:
    folder.mkdir()
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n3|9|F|student|V3N4P\n")
    flags = {"Toy Story": (3, 4, 5), "unknown": (0,), "Misérables, Les": (8, 12)}
    lines = []
    for number, (title, true) in zip((1, 267, 543), flags.items(), strict=True):
        marks = "|".join("1" if index in true else "0" for index in range(19))
        named = title if title == "unknown" else f"{title} (1995)"
        date = "" if title == "unknown" else "01-Jan-1995"
        lines.append(f"{number}|{named}|{date}||http://us.imdb.com/M/title?{number}|{marks}\n")
    (folder / "u.item").write_bytes("".join(lines).encode("latin-1"))
    (folder / "u.data").write_text("1\t1\t5\t881250949\n2\t1\t3\t891717742\n1\t267\t4\t881250950\n")


def test_movielens_as_recbole_has_it(shop: Any, tmp_path: Path) -> None:
    write_recbole(tmp_path / "ml")
    counts = shop.counts(tmp_path / "ml", source="movielens")
    assert counts == {"users": (3, 3, 0, 0), "pins": (3, 3, 0, 0), "events": (8, 5, 0, 3)}
    assert shop.rows(
        "select user_id, age_bucket, gender, attributes ->> 'occupation' from users order by 1"
    ) == [
        ("1", "18-24", "M", "technician"),
        ("2", "45-54", "F", "other"),
        ("3", "under 18", "F", "student"),
    ]
    assert shop.rows("select pin_id, title, category, description, created_at from pins order by 1") == [
        ("1", "Toy Story", "Animation", "Animation, Children's, Comedy", datetime(1995, 1, 1)),
        ("1412", 'Land Before "Time" III', "Animation", "Animation, Children's", datetime(1995, 1, 1)),
        ("267", "unkonwn", "unknown", "unknown", None),
    ]
    events = shop.rows(
        "select user_id, item_id, action, epoch(ts)::bigint, surface, attributes ->> 'rating', request_id"
        " from events order by request_id, action desc"
    )
    assert [row[:6] for row in events] == [
        ("1", "1", "impression", 881250949, "home", "5.0"),
        ("1", "1", "click", 881250949, "home", "5.0"),
        ("1", "267", "impression", 881250950, "home", "4.0"),
        ("1", "267", "click", 881250950, "home", "4.0"),
        ("2", "1", "impression", 891717742, "home", "3.0"),
    ]
    assert [row[6] for row in events[::2]] == ["1-1-881250949", "1-267-881250950", "2-1-891717742"]
    reasons = shop.rows("select line, reason, row from rejects order by line, reason")
    assert reasons[0] == (5, 'rating "9" is not from 0.5 to 5', "2\t1412\t9\t878887116")
    assert [line for line, _, _ in reasons] == [5, 6, 6]  # the rating of line 6 was to be two events
    assert shop.counts(tmp_path / "ml", source="movielens")["events"] == (8, 0, 5, 3)
    assert shop.rows("select count(*) from rejects") == [(3,)]


def test_movielens_as_grouplens_has_it_is_the_same(shop: Any, tmp_path: Path) -> None:
    write_grouplens(tmp_path / "ml")
    counts = shop.counts(tmp_path / "ml", source="movielens")
    assert counts == {"users": (3, 3, 0, 0), "pins": (3, 3, 0, 0), "events": (5, 5, 0, 0)}
    assert shop.rows("select title, category, description, created_at from pins order by 1") == [
        ("Misérables, Les", "Drama", "Drama, Musical", datetime(1995, 1, 1)),
        ("Toy Story", "Animation", "Animation, Children's, Comedy", datetime(1995, 1, 1)),
        ("unknown", "unknown", "unknown", None),
    ]
    assert shop.rows(
        "select count(*), count(distinct request_id) from events where action = 'impression'"
    ) == [(3, 3)]


@pytest.mark.skipif(not REAL.is_dir(), reason="MOVIELENS_100K names no folder")
def test_the_real_movielens(shop: Any) -> None:
    counts = shop.counts(REAL, source="movielens")
    assert counts == {"users": (943, 943, 0, 0), "pins": (1682, 1682, 0, 0), "events": (155375, 155375, 0, 0)}
    assert shop.rows("select count(*) from events where action = 'click'") == [(34174 + 21201,)]


def write_taobao(folder: Path) -> None:
    folder.mkdir()
    (folder / "user_profile.csv").write_text(
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,"
        "new_user_class_level \n234,0,5,2,5,,3,0,3\n523,5,2,1,2,1,3,1,2\n"
    )
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n"
        "63133,6406,83237,1,95471,170.0\n313401,6406,83237,1,87331,199.0\n248909,392,76,2,NULL,38.5\n"
    )
    (folder / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
        "234,1494137644,63133,430548_1007,1,0\n523,1494650879,313401,430539_1007,0,1\n"
        "523,1494650880,248909,430548_1007,0,7\n"
    )
    (folder / "behavior_log.csv").write_text(
        "user,time_stamp,btag,cate,brand\n234,1493741625,pv,4520,91286\n234,1493741626,fav,4520,91286\n"
        "234,1493741627,buy,6421,NULL\n234,1493741627,stare,6421,1\n"
    )


def test_taobao_display_ads(shop: Any, tmp_path: Path) -> None:
    write_taobao(tmp_path / "taobao")
    assert shop.counts(tmp_path / "taobao", source="taobao-ad") == {
        "users": (2, 2, 0, 0),
        "advertisers": (3, 2, 1, 0),
        "campaigns": (3, 2, 1, 0),
        "ads": (3, 3, 0, 0),
        "events": (8, 6, 0, 2),
    }
    assert shop.rows("select user_id, gender, age_bucket, attributes from users order by 1") == [
        (
            "234",
            "F",
            "5",
            '{"cms_segid":"0","cms_group_id":"5","shopping_level":"3","occupation":"0","new_user_class_level":"3"}',
        ),
        (
            "523",
            "M",
            "2",
            '{"cms_segid":"5","cms_group_id":"2","pvalue_level":"1","shopping_level":"3","occupation":"1",'
            '"new_user_class_level":"2"}',
        ),
    ]
    assert shop.rows("select item_id, advertiser_id, category, price from catalog order by item_id") == [
        ("248909", "2", "392", 38.5),
        ("313401", "1", "6406", 199.0),
        ("63133", "1", "6406", 170.0),
    ]
    shown = "select user_id, item_id, action, surface, epoch(ts)::bigint from events"
    assert shop.rows(f"{shown} where item_type = 'ad' order by all") == [
        ("234", "63133", "impression", "430548_1007", 1494137644),
        ("523", "313401", "click", "430539_1007", 1494650879),
        ("523", "313401", "impression", "430539_1007", 1494650879),
    ]
    shopping = "select action, item_id, attributes from events where surface = 'shop' order by ts"
    assert [(a, i, json.loads(j)) for a, i, j in shop.rows(shopping)] == [
        ("view", None, {"category": "4520", "brand": "91286"}),
        ("save", None, {"category": "4520", "brand": "91286"}),
        ("buy", None, {"category": "6421"}),
    ]
    assert shop.rows("select line, reason from rejects order by 1") == [
        (4, 'clk "7" is not 0 or 1'),
        (5, 'btag "stare" is not pv, cart, fav or buy'),
    ]


def test_a_line_with_too_few_values_is_refused_and_the_rest_is_kept(shop: Any, tmp_path: Path) -> None:
    write_taobao(tmp_path / "taobao")
    with open(tmp_path / "taobao" / "raw_sample.csv", "a") as handle:
        handle.write("523,1494650890\n523,1494650891,63133,430548_1007,1,0\n")
    assert shop.counts(tmp_path / "taobao", source="taobao-ad")["events"] == (10, 7, 0, 3)
    assert (5, "2 values where there should be 6") in shop.rows("select line, reason from rejects")


def test_what_a_source_cannot_do_is_said(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source 'netflix'") as unknown:
        shop.ingest(tmp_path, source="netflix")
    assert "movielens, open-bandit, sequences, taobao-ad" in unknown.value.hint
    with pytest.raises(DataError, match=r"neither u\.data nor a \.inter file"):
        shop.ingest(tmp_path, source="movielens")
    with pytest.raises(DataError, match=r"has no user_profile\.csv"):
        shop.ingest(tmp_path, source="taobao-ad")
    with pytest.raises(DataError, match="is not a folder"):
        shop.ingest(tmp_path / "nowhere", source="movielens")
    with pytest.raises(UsageError, match="knows its tables"):
        shop.ingest(tmp_path, source="movielens", mapping={"a": "ts"})
    write_taobao(tmp_path / "taobao")
    (tmp_path / "taobao" / "raw_sample.csv").write_text("user,time_stamp,ad\n1,2,3\n")
    with pytest.raises(AdstoolError, match="has no column 'adgroup_id'"):
        shop.ingest(tmp_path / "taobao", source="taobao-ad")


def test_sequences_keep_the_order_of_every_user(shop: Any, tmp_path: Path) -> None:
    folder = tmp_path / "video"
    folder.mkdir()
    (folder / "Video.txt").write_text("7 b\n7 a\n8 a\n7 b\n8 \n")
    counts = shop.counts(folder, source="sequences")
    assert counts == {"pins": (3, 2, 0, 1), "events": (10, 8, 0, 2)}
    clicks = "select user_id, item_id, ts from events where action = 'click' and user_id in ('7', '8')"
    assert [(user, item, f"{ts:%m-%d}") for user, item, ts in shop.rows(f"{clicks} order by 1, 3")] == [
        ("7", "b", "12-29"),
        ("7", "a", "12-30"),
        ("7", "b", "12-31"),
        ("8", "a", "12-30"),
    ]
    assert shop.counts(folder, source="sequences")["events"][1] == 0
    (folder / "Other.txt").write_text("1 a\n")
    with pytest.raises(DataError, match=r"several: Other\.txt, Video\.txt"):
        shop.counts(folder, source="sequences")


def ipinyou_line(
    bidid: str, kind: str, *, user: str = "U1", moment: str = "20130613000101634", **other: str
) -> list[str]:
    """A line of schema.txt's 24 columns, a real one's but for what is given."""
    return [
        *(bidid, moment, kind, user, "windows_ie", "221.194.182.*", "3", "8", "2", "trqRTvKJBQpvjqK0uG"),
        *("3feb136f", "null", "3582857028", "336", "280", "2", "0", other.get("floor", "5"), "creative7"),
        *("300", other.get("paid", "118"), "landing9", "1458", "13866,10075"),
    ]


def write_ipinyou(folder: Path) -> None:
    folder.mkdir()

    def write(name: str, *lines: list[str]) -> None:
        (folder / name).write_text("".join("\t".join(line) + "\n" for line in lines))

    won = ipinyou_line("b1", "1")
    bids = [ipinyou_line(f"b{n}", "0", user="null", moment=f"2013061300010{n}634") for n in (1, 2)]
    write("bid.20130613.txt", *([*line[:2], *line[3:20], *line[22:]] for line in bids))
    write("imp.20130613.txt", won, ipinyou_line("b3", "1", moment="yesterday"), ipinyou_line("b4", "9"))
    write("clk.20130613.txt", ipinyou_line("b1", "2", moment="20130613000209000"))
    write("conv.20130613.txt", ipinyou_line("b1", "3", moment="20130613050209000"))
    named = (
        "click weekday hour bidid timestamp logtype ipinyouid useragent IP region city adexchange domain url"
    )
    named += (
        " urlid slotid slotwidth slotheight slotvisibility slotformat slotprice creative bidprice payprice"
    )
    prepared = [[click, "4", "00", *ipinyou_line(f"p{click}", "1", user="U2")] for click in "01"]
    write("train.log.txt", [*named.split(), "keypage", "advertiser", "usertag"], *prepared)
    write("test.log.txt", ["0", "4", "23", *ipinyou_line("q1", "1", user="U2", moment="20130613235959999")])
    (folder / "region.en.txt").write_text("3\thebei\n")


def test_ipinyou_as_published(shop: Any, tmp_path: Path) -> None:
    write_ipinyou(tmp_path / "ipinyou")
    counts = shop.counts(tmp_path / "ipinyou", source="ipinyou")
    assert counts["events"] == (2 + 3 + 1 + 3 + 1, 8, 0, 2)
    assert counts["conversions"] == (1, 1, 0, 0)
    assert shop.rows(
        "select request_id, action, ts, user_id, item_id, surface, attributes ->> 'floor_price',"
        " attributes ->> 'bid_price', attributes ->> 'paid_price' from events order by event_id"
    ) == [
        ("b1", "bid", datetime(2013, 6, 12, 16, 1, 1, 634000), "address-221.194.182.*", *AD, None),
        ("b1", "click", datetime(2013, 6, 12, 16, 2, 9), "U1", *AD, "118.0"),
        ("b1", "impression", datetime(2013, 6, 12, 16, 1, 1, 634000), "U1", *AD, "118.0"),
        ("b2", "bid", datetime(2013, 6, 12, 16, 1, 2, 634000), "address-221.194.182.*", *AD, None),
        ("p0", "impression", datetime(2013, 6, 12, 16, 1, 1, 634000), "U2", *AD, "118.0"),
        ("p1", "click", datetime(2013, 6, 12, 16, 1, 1, 634000), "U2", *AD, "118.0"),
        ("p1", "impression", datetime(2013, 6, 12, 16, 1, 1, 634000), "U2", *AD, "118.0"),
        ("q1", "impression", datetime(2013, 6, 13, 15, 59, 59, 999000), "U2", *AD, "118.0"),
    ]
    assert shop.rows("select conversion_id, ts, user_id, advertiser_id from conversions") == [
        ("b1-conversion", datetime(2013, 6, 12, 21, 2, 9), "U1", "1458")
    ]
    assert shop.rows("select ad_id, campaign_id, landing_url, format from ads") == [
        ("creative7", "1458", "landing9", "336x280")
    ]
    assert shop.rows("select advertiser_id, vertical from advertisers") == [
        ("1458", "Chinese vertical e-commerce")
    ]
    assert shop.rows("select user_id, attributes ->> 'tags' from users order by 1") == [
        ("U1", "13866,10075"),
        ("U2", "13866,10075"),
        ("address-221.194.182.*", "13866,10075"),
    ]
    assert shop.rows("select line, reason from rejects order by line") == [
        (2, 'timestamp "yesterday" is not of the form yyyyMMddHHmmssSSS'),
        (3, 'logtype "9" is not 0, 1, 2 or 3'),
    ]
    again = shop.counts(tmp_path / "ipinyou" / "clk.20130613.txt", source="ipinyou")
    assert again["events"] == (1, 0, 1, 0)


AD = ("creative7", "exchange-2", "5.0", "300.0")


def test_what_is_no_log_of_ipinyou_is_said(shop: Any, tmp_path: Path) -> None:
    (tmp_path / "region.en.txt").write_text("3\thebei\n")
    with pytest.raises(DataError, match="no log of ipinyou"):
        shop.counts(tmp_path, source="ipinyou")
    (tmp_path / "imp.20130613.txt").write_text("a\tb\tc\n")
    with pytest.raises(DataError, match="3 columns"):
        shop.counts(tmp_path, source="ipinyou")


def write_open_bandit(root: Path) -> None:
    for policy, chance in (("random", "0.5"), ("bts", "0.25")):
        folder = root / policy / "men"
        folder.mkdir(parents=True)
        (folder / "item_context.csv").write_text(
            ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n"
            f"0,0,-0.7,{policy}a,b,c\n1,1,0.4,{policy}a,d,c\n"
        )
        (folder / "men.csv").write_text(
            ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,"
            "user_feature_3,user-item_affinity_0,user-item_affinity_1\n"
            f"0,2019-11-24 00:03:13.442536+00:00,1,3,1,{chance},u,v,w,x,0.0,2.0\n"
            f"1,2019-11-24 00:04:13.442536+00:00,0,1,0,{chance},u,v,w,y,0.0,0.0\n"
            f"2,2019-11-24 00:05:13.442536+00:00,0,1,0,1.5,u,v,w,y,0.0,0.0\n"
            f"3,2019-11-24 00:06:13.442536+00:00,0,0,0,{chance},u,v,w,y,0.0,0.0\n"
        )


def test_open_bandit_of_both_policies(shop: Any, tmp_path: Path) -> None:
    write_open_bandit(tmp_path / "open")
    assert shop.counts(tmp_path / "open", source="open-bandit") == {
        "pins": (2, 2, 0, 0),
        "users": (8, 2, 6, 0),
        "events": (10, 6, 0, 4),
    }
    assert shop.rows("select pin_id, category from pins order by 1") == [("men-0", "c"), ("men-1", "c")]
    assert shop.rows(
        "select source, surface, item_id, action, position, propensity, json(attributes), count(*) over (), "
        "hour(ts), count(distinct user_id) over () from events where source = 'bts' order by event_id"
    ) == [
        ("bts", "men", "men-1", "click", 2, 0.25, '{"affinity":{"1":2.0}}', 3, 0, 2),
        ("bts", "men", "men-1", "impression", 2, 0.25, '{"affinity":{"1":2.0}}', 3, 0, 2),
        ("bts", "men", "men-0", "impression", 0, 0.25, '{"affinity":{}}', 3, 0, 2),
    ]
    assert shop.rows("select distinct reason from rejects order by 1") == [
        ('position "0" is not from 1',),
        ('propensity_score "1.5" is no probability',),
    ]
    again = shop.counts(tmp_path / "open" / "random" / "men", source="open-bandit")
    assert again["events"] == (5, 0, 3, 2)
    (tmp_path / "open" / "bts" / "men" / "men.csv").unlink()
    with pytest.raises(DataError, match=r"has no men\.csv"):
        shop.counts(tmp_path / "open", source="open-bandit")


@pytest.mark.skipif(not (SHARED_DATA / "open_bandit").is_dir(), reason="needs ../shared/data/open_bandit")
def test_the_real_open_bandit(shop: Any) -> None:
    counts = shop.counts(SHARED_DATA / "open_bandit", source="open-bandit")
    assert counts == {
        "pins": (80, 80, 0, 0),
        "users": (40_000, 317, 39_683, 0),
        "events": (40_207, 40_207, 0, 0),
    }
