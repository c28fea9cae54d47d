"""Taxonomy files, and the topics of items and queries."""

from __future__ import annotations

from pathlib import Path

import pytest

from adstool.config import Settings
from adstool.content.interest_kinds import Catalogue, topic_members, topic_queries
from adstool.content.taxonomy import Topic, load_taxonomy
from adstool.errors import DataError
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

TOML = '"home/light" = {words = ["lamp", "desk light"]}\n"play" = {categories = ["kites"], words = ["toy"]}\n'
JSON = '{"home/light": ["lamp", "desk light"], "play": {"categories": ["kites"], "words": ["toy"]}}'
CSV = "topic,word,category\nhome/light,lamp,\nhome/light,desk light,\nplay,toy,kites\n"
TOPICS = (Topic("home/light", ("lamp", "desk light")), Topic("play", ("toy",), ("kites",)))


@pytest.mark.parametrize(("name", "text"), [("t.toml", TOML), ("t.json", JSON), ("t.csv", CSV)])
def test_every_format_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with open_warehouse(Workspace(tmp_path), Settings()) as con:
        assert load_taxonomy(str(tmp_path / name), con) == TOPICS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.toml", "a = [", "is not valid TOML"),
        ("t.json", "[1]", "no topics by name"),
        ("t.json", "{}", "names no topic"),
        ("t.json", '{"a//b": ["x"]}', "no path"),
        ("t.json", '{"a": {"wrods": ["x"]}}', "other keys"),
        ("t.json", '{"a": [1]}', "lists of texts"),
        ("t.json", '{"a": []}', "neither words nor categories"),
        ("t.csv", "a,b\n1,2\n", "lacks a column"),
        ("t.txt", "", "no taxonomy"),
        ("gone.toml", None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with (
        open_warehouse(Workspace(tmp_path), Settings()) as con,
        pytest.raises(DataError, match=said) as error,
    ):
        load_taxonomy(str(tmp_path / name), con)
    assert name in error.value.message


def test_a_catalogue_without_taxonomy_has_its_categories_below_their_verticals(tmp_path: Path) -> None:
    with open_warehouse(Workspace(tmp_path), Settings()) as con:
        con.execute("insert into advertisers values ('a', 'A', 'home', null), ('b', 'B', 'sport', null)")
        con.execute("insert into campaigns (campaign_id, advertiser_id) values ('ca', 'a'), ('cb', 'b')")
        ads = [("1", "ca", "lamps"), ("2", "cb", "balls"), ("3", "cb", "lamps"), ("4", "ca", "lamps")]
        con.executemany("insert into ads (ad_id, campaign_id, category) values (?, ?, ?)", ads)
        con.execute("insert into pins (pin_id, category) values ('p', 'poems')")
        assert load_taxonomy("", con) == (
            Topic("home/lamps", (), ("lamps",)),
            Topic("poems", (), ("poems",)),
            Topic("sport/balls", (), ("balls",)),
        )


def test_items_and_queries_find_their_topics(tmp_path: Path) -> None:
    topics = (*TOPICS, Topic("home/desk", ("desk",)))
    with open_warehouse(Workspace(tmp_path), Settings()) as con:
        con.executemany(
            "insert into pins (pin_id, title, category) values (?, ?, ?)",
            [
                ("both", "a desk, and a light", None),  # desk light and desk
                ("category", "a lamp that flies", "kites"),  # the category decides before words do
                ("none", "lamps", None),  # another word than lamp
            ],
        )
        catalogue = Catalogue(con, topics)
        members = {
            (row["item_id"], row["level"], row["value"]): row["share"]
            for row in topic_members(catalogue).to_pylist()
        }
        asked = {
            (row["query"], row["level"], row["value"]): row["share"]
            for row in topic_queries(catalogue, ["light for a Desk", "toy lamp", "none"]).to_pylist()
        }
    assert members == {
        ("both", 0, "home"): 1.0,
        ("both", 1, "home/light"): 0.5,
        ("both", 1, "home/desk"): 0.5,
        ("category", 0, "play"): 1.0,
    }
    assert asked == {
        ("light for a Desk", 0, "home"): 1.0,
        ("light for a Desk", 1, "home/light"): 0.5,
        ("light for a Desk", 1, "home/desk"): 0.5,
        ("toy lamp", 0, "home"): 0.5,
        ("toy lamp", 0, "play"): 0.5,
        ("toy lamp", 1, "home/light"): 1.0,
    }
