"""Filters of searches against brute force; attributes kept up to date without embedding anything again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import run_cli

from adstool.commands.search import _moment
from adstool.content import embedding, vectors
from adstool.content.attributes import ATTRIBUTES, SCHEMA, Filter, read_attributes
from adstool.content.embedding import embed_items
from adstool.content.vectors import ItemVectors, VectorTable, active_model, load_vectors
from adstool.errors import AdstoolError
from adstool.workspace import Workspace

Shop = Any
START = datetime(2026, 10, 1)
CATEGORIES = ("o'neill", 'quote "x"', "%", "null", None)


def made(count: int, dim: int) -> tuple[list[ItemVectors], pa.Table]:
    """Random unit vectors and attributes with unknown values among them."""
    rng = np.random.default_rng(4)
    drawn = rng.normal(size=(count, dim)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    rows = [ItemVectors(f"a{i}", "h", None, None, None, None, None, v) for i, v in enumerate(drawn)]
    days = rng.integers(0, 30, size=(count, 2))
    columns: dict[str, list[Any]] = {
        "item_id": [f"a{i}" for i in range(count)],
        "category": [CATEGORIES[i % 5] for i in range(count)],
        "advertiser_id": [f"v{i % 7}" if i % 6 else None for i in range(count)],
        "active_from": [START + timedelta(days=int(day)) for day in days[:, 0]],
        "active_until": [START + timedelta(days=int(sum(day))) for day in days],
    }
    for field in ATTRIBUTES:
        columns.setdefault(field.name, [None] * count)
    return rows, pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


@pytest.mark.parametrize("indexed", [False, True])
def test_filtered_search_finds_what_brute_force_finds(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, indexed: bool
) -> None:
    monkeypatch.setattr(vectors, "INDEX_ABOVE", 100 if indexed else 10_000)
    rows, attributes = made(600, 12)
    table = VectorTable.create(Workspace(tmp_path), "ad", "m", 12)
    table.write(rows[:500], replacing=False, attributes=attributes)
    table.maintain()
    table.write(rows[500:], replacing=False, attributes=attributes)  # rows the index does not know yet
    assert len(table._table.list_indices()) == (1 if indexed else 0)
    known = attributes.to_pylist()
    moment = datetime(2026, 10, 15, 12)
    asked = [
        Filter(categories=("o'neill",)),
        Filter(categories=('quote "x"', "%"), advertisers=("v1", "v2")),
        Filter(active_at=moment),
        Filter(active_at=moment.replace(tzinfo=UTC), categories=("null",)),
        Filter(advertisers=("x' or '1'='1",)),
    ]
    query = np.asarray(rows[17].joint)
    for among in asked:
        passing = {
            row["item_id"]
            for row in known
            if (not among.categories or row["category"] in among.categories)
            and (not among.advertisers or row["advertiser_id"] in among.advertisers)
            and (among.active_at is None or row["active_from"] <= moment <= row["active_until"])
        }
        cosines = {row.item_id: float(np.asarray(row.joint) @ query) for row in rows}
        expected = sorted(passing, key=lambda item_id: -cosines[item_id])[:20]
        found = table.nearest(query, 20, among=among)
        assert [item_id for item_id, _ in found] == expected
        assert (len(expected) > 0) == ("x' or '1'='1" not in among.advertisers)


def fill(shop: Shop) -> None:
    """Six ads of two campaigns, of which one has no dates, and a pin."""
    shop.fill(6)
    shop.pin("p", "red shoe", None, "shoe")
    shop.con.execute("insert into advertisers (advertiser_id, name) values ('v1', 'One'), ('v2', 'Two')")
    shop.con.execute(
        "insert into campaigns (campaign_id, advertiser_id, starts_at, ends_at) values"
        " ('c1', 'v1', '2026-10-01', '2026-10-20'), ('c2', 'v2', null, null)"
    )
    shop.con.execute("update ads set campaign_id = case when ad_id < 'ad003' then 'c1' else 'c2' end")
    shop.con.execute("update ads set created_at = '2026-10-05' where ad_id = 'ad004'")


def found(shop: Shop, kind: str = "ad", **asked: Any) -> set[str]:
    """Item ids that pass a filter, by the table of the model in use."""
    table = VectorTable.open(shop.ws, kind, active_model(shop.ws).slug)
    assert table is not None
    return {item_id for item_id, _ in table.nearest(np.ones(16), 100, among=Filter(**asked))}


def test_a_change_of_metadata_alone_is_written_and_nothing_embedded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shop)
    assert embed_items(shop.ws, shop.settings, shop.con).described == 0  # written with the vectors
    assert found(shop, advertisers=("v1",)) == {"ad000", "ad001", "ad002"}
    assert found(shop, active_at=datetime(2026, 10, 4)) == {"ad000", "ad001", "ad002", "ad003", "ad005"}
    assert found(shop, active_at=datetime(2026, 10, 21)) == {"ad003", "ad004", "ad005"}
    assert found(shop, "pin", active_at=datetime(2026, 1, 1), categories=("shoe",)) == {"p"}
    before = load_vectors(shop.ws, "ad")
    monkeypatch.setattr(embedding, "load_clip", pytest.fail)
    shop.con.execute("update campaigns set ends_at = '2026-11-30' where campaign_id = 'c1'")
    shop.con.execute("update ads set category = 'sale', price = 3.5 where ad_id = 'ad005'")
    done = embed_items(shop.ws, shop.settings, shop.con)
    assert (done.embedded, done.skipped, done.described) == (0, 7, 4)
    assert found(shop, active_at=datetime(2026, 10, 21)) == {f"ad00{number}" for number in range(6)}
    assert found(shop, categories=("sale",)) == {"ad005"}
    after = load_vectors(shop.ws, "ad")
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])
    assert embed_items(shop.ws, shop.settings, shop.con).described == 0


def test_a_table_of_an_earlier_version_is_completed_in_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shop)
    embed_items(shop.ws, shop.settings, shop.con)
    before = load_vectors(shop.ws, "ad")
    slug = active_model(shop.ws).slug
    for kind in ("ad", "pin"):
        old = VectorTable.open(shop.ws, kind, slug)
        assert old is not None
        old._table.drop_columns([field.name for field in ATTRIBUTES])
        assert not old.describes
    assert len(found(shop)) == 6  # still searched, as long as nothing is filtered
    with pytest.raises(AdstoolError, match="before they could be filtered"):
        found(shop, categories=("dress",))
    monkeypatch.setattr(embedding, "load_clip", pytest.fail)
    done = embed_items(shop.ws, shop.settings, shop.con)
    assert (done.embedded, done.skipped, done.described) == (0, 7, 7)
    table = VectorTable.open(shop.ws, "ad", slug)
    assert table is not None
    stored = table.columns(*SCHEMA.names).sort_by("item_id")
    assert stored.to_pylist() == read_attributes(shop.con, "ad", slug).to_pylist()
    assert set(stored["model"].to_pylist()) == {slug}
    after = load_vectors(shop.ws, "ad")
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])


def test_many_small_writes_leave_few_fragments_and_versions(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "KEEP_VERSIONS", timedelta(milliseconds=20))
    rows, attributes = made(110, 8)
    table = VectorTable.create(Workspace(tmp_path), "ad", "m", 8)
    most_fragments = most_versions = 0
    for number, row in enumerate(rows):
        table.write([row], replacing=False, attributes=attributes)
        if number % 2 == 0:
            changed = attributes.slice(number, 1).set_column(10, "metadata_hash", pa.array([str(number)]))
            table.describe(changed)
        table.maintain()
        most_fragments = max(most_fragments, table._table.stats()["fragment_stats"]["num_fragments"])
        most_versions = max(most_versions, len(table._table.list_versions()))
    assert most_fragments <= vectors.COMPACT_ABOVE
    assert most_versions <= vectors.CLEAN_ABOVE
    ids, stored = table.vectors("joint")
    assert ids == sorted(row.item_id for row in rows)
    np.testing.assert_array_equal(stored, np.stack([r.joint for r in sorted(rows, key=lambda r: r.item_id)]))


def test_the_verb_filters(shop: Shop) -> None:
    fill(shop)
    embed_items(shop.ws, shop.settings, shop.con)
    shop.con.close()
    words = ["--json", "--workspace", shop.ws.root, "search", "red lamp", "-k", "50"]
    chosen = ["--advertiser", "v1", "--advertiser", "v2", "--category", "dress", "--active-at"]
    asked = run_cli(*words, *chosen, "2026-10-21T00:00:00Z")
    assert asked.returncode == 0, asked.stderr
    assert {hit["item_id"] for hit in json.loads(asked.stdout)["results"]} == {"ad003"}
    now = _moment("now")
    assert now is not None
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
    wrong = run_cli(*words, "--active-at", "soon")
    assert wrong.returncode == 2
    assert "--active-at" in wrong.stderr
