"""Real catalogues: columns found by name, pictures kept inside, damage named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import SHARED_DATA, cli_json, run_cli

from adstool.errors import DataError
from adstool.world.config import WorldConfig
from adstool.world.real import guess_columns, read_catalogue

FASHION = SHARED_DATA / "fashion"
CATEGORIES = ("Lamps", "Sofas", "Rugs")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """60 items: the name, the kind and the picture's hue; one picture outside the folder, one not there."""
    (tmp_path / "pics").mkdir()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "red").save(secret)
    rows = []
    for i in range(60):
        colour = ("red", "blue", "black")[i % 3]
        Image.new("RGB", (20, 20), colour).save(tmp_path / "pics" / f"{i}.png")
        image = "../secret.png" if i == 4 else "gone.png" if i == 5 else f"{i}.png"
        rows.append(
            (f"sku-{i}", f"Cosy {CATEGORIES[i % 3][:-1]} {i % 7}", CATEGORIES[i % 3], image, f"${10 + i}.50")
        )
    with open(tmp_path / "shop.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["SKU", "Product Name", "Category", "Image File", "Price"])
        writer.writerows(rows)
    return tmp_path / "shop.csv"


def test_columns_are_found_by_name() -> None:
    names = [
        "id",
        "image",
        "title",
        "gender",
        "masterCategory",
        "subCategory",
        "articleType",
        "baseColour",
        "usage",
    ]
    found = guess_columns(names)
    assert found.pop("vertical") == "masterCategory"
    assert found.pop("category") == "articleType"
    assert found.pop("style") == "baseColour"
    assert found == {"id": "id", "title": "title", "image": "image"}
    with pytest.raises(DataError, match="no column for the category; it has sku, name"):
        guess_columns(["sku", "name"])


def test_a_shop_becomes_a_world(shop: Path, tmp_path: Path) -> None:
    made = cli_json(
        "sample",
        tmp_path / "w",
        "--catalog",
        shop,
        "--images",
        shop.parent / "pics",
        "--users",
        "30",
        "--days",
        "3",
    )
    assert made["tables"]["ads"] == made["tables"]["pins"] == 30
    with open(tmp_path / "w" / "ads.csv", newline="", encoding="utf-8") as handle:
        ads = list(csv.DictReader(handle))
    with open(tmp_path / "w" / "pins.csv", newline="", encoding="utf-8") as handle:
        pins = list(csv.DictReader(handle))
    for row in ads:
        number = int(row["ad_id"].removeprefix("sku-"))
        assert row["title"] == f"Cosy {CATEGORIES[number % 3][:-1]} {number % 7}"
        assert row["category"] == CATEGORIES[number % 3]
        assert float(row["price"]) == 10.5 + number
    image = {row.get("ad_id") or row["pin_id"]: row["image"] for row in (*ads, *pins)}
    assert len(image) == 60
    # Without its own picture an item falls back on none; a path out of the folder is not followed.
    assert image["sku-4"] == image["sku-5"] == ""
    assert sorted(p.name for p in (tmp_path / "w" / "images").iterdir()) == sorted(
        f"{i}.png" for i in range(60) if i not in (4, 5)
    )
    world = json.loads((tmp_path / "w" / "world.json").read_text())
    assert world["settings"]["catalog"]["pictures"] == 58
    assert "--catalog shop.csv" in world["command"]


def test_the_style_is_the_hue_where_no_column_says_it(shop: Path) -> None:
    raw, _ = read_catalogue(shop, shop.parent / "pics", WorldConfig(ads=30, pins=30))
    for item, style, picture in zip(raw.ids, raw.style, raw.pictures, strict=True):
        expected = ("red", "blue", "dark")[int(item.removeprefix("sku-")) % 3]
        if picture is not None:
            assert raw.words.styles[style] == expected


def test_damage_is_named(shop: Path, tmp_path: Path) -> None:
    config = WorldConfig(ads=30, pins=30)
    text = shop.read_text()
    (tmp_path / "twice.csv").write_text(text.replace("sku-7,", "sku-8,"))
    with pytest.raises(DataError, match=r"ids must be there and differ; look at 'sku-8'"):
        read_catalogue(tmp_path / "twice.csv", None, config)
    (tmp_path / "empty.csv").write_text("id,title,category\n")
    with pytest.raises(DataError, match="has no rows"):
        read_catalogue(tmp_path / "empty.csv", None, config)
    (tmp_path / "latin.csv").write_bytes("id,title,category\n1,Caf\xe9,x\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        read_catalogue(tmp_path / "latin.csv", None, config)
    with pytest.raises(DataError, match="has 60 items; 50 ads and 30 pins were asked for"):
        read_catalogue(shop, None, WorldConfig(ads=50, pins=30))
    done = run_cli("sample", tmp_path / "w", "--catalog", tmp_path / "gone.csv")
    assert done.returncode == 1
    assert "cannot be read: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_ids_that_need_quoting_survive(tmp_path: Path) -> None:
    with open(tmp_path / "odd.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "title", "category"])
        writer.writerows([[f'a"{i}\\,é', f'Thing "{i}"', "odd"] for i in range(50)])
    cli_json("sample", tmp_path / "w", "--catalog", tmp_path / "odd.csv", "--users", "20", "--days", "2")
    from world.conftest import load

    events = load(tmp_path / "w", WorldConfig()).events
    shown = {e["item_id"] for e in events if e["item_type"] != "query"}
    assert shown
    assert shown <= {f'a"{i}\\,é' for i in range(50)}


@pytest.mark.skipif(
    not FASHION.is_dir(), reason="../shared/data/fashion (real product pictures) is not on this machine"
)
def test_the_fashion_catalogue(tmp_path: Path) -> None:
    words = (
        "--catalog",
        FASHION / "items.csv",
        "--images",
        FASHION,
        "--ads",
        "300",
        "--pins",
        "200",
        "--users",
        "200",
    )
    made = cli_json("sample", tmp_path / "w", *words)
    assert made["tables"]["ads"] == 300
    assert made["tables"]["events"] > 5000
    with open(FASHION / "items.csv", newline="", encoding="utf-8") as handle:
        titles = {row["id"]: row["title"] for row in csv.DictReader(handle)}
    with open(tmp_path / "w" / "ads.csv", newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            assert row["title"] == titles[row["ad_id"]]
            assert np.asarray(Image.open(tmp_path / "w" / row["image"])).size > 0
            assert float(row["price"]) > 0
