"""Which files are taken, as what, and where their pictures may lie."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adstool.errors import DataError, UsageError
from adstool.ingestion.checksum import KeyCounter
from adstool.ingestion.images import ImageFolder
from adstool.ingestion.inputs import find_inputs, sniff, table_of
from adstool.ingestion.readers import nearest

EVENT = {"event_id": "e1", "ts": 1_760_000_000, "user_id": "u", "item_type": "ad", "action": "click"}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("events.jsonl", "events"),
        ("events-2026-10-01.jsonl.gz", "events"),
        ("ads_catalog.csv", "ads"),
        ("users1.parquet", "users"),
        ("adserver.csv", None),
        ("eventsource.csv", None),
        ("Events.csv", None),
    ],
)
def test_the_start_of_a_name_is_the_table(name: str, table: str | None) -> None:
    assert table_of(name) == table


def test_a_folder_gives_its_data_files_catalogues_first(tmp_path: Path) -> None:
    for name in ("events-b.jsonl", "events-a.csv.gz", "users.csv", "README.md", "world.json", ".events.csv"):
        (tmp_path / name).write_bytes(gzip.compress(b"a\n") if name.endswith("gz") else b"a\n")
    for name in ("truth/users.csv", "images/ads.csv", ".git/users.csv", "deep/ads.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("a\n")
    found = find_inputs([str(tmp_path)], None, None, tmp_path)
    assert [(item.path.name, item.table, item.format) for item in found] == [
        ("users.csv", "users", "csv"),
        ("ads.csv", "ads", "csv"),
        ("events-a.csv.gz", "events", "csv"),
        ("events-b.jsonl", "events", "jsonl"),
    ]


def test_what_cannot_be_taken_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    odd = tmp_path / "log.jsonl"
    odd.write_text("{}")
    with pytest.raises(UsageError, match="does not say which table"):
        find_inputs([str(odd)], None, None, tmp_path)
    with pytest.raises(UsageError, match="no table 'clicks'"):
        find_inputs([str(odd)], "clicks", None, tmp_path)
    with pytest.raises(UsageError, match="no format 'xml'"):
        find_inputs([str(odd)], "events", "xml", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no file"):
        find_inputs([str(empty)], None, None, tmp_path)
    for data, words in [
        (b"[{}]", "one JSON array"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04zip", "compressed in a way"),
    ]:
        odd.write_bytes(data)
        with pytest.raises(DataError, match=words):
            find_inputs([str(odd)], "events", None, tmp_path)


def test_contents_say_the_format_when_names_do_not() -> None:
    assert [sniff(head) for head in (b"PAR1..", b' \n{"a":1}', b"\xef\xbb\xbf{", b"a,b\n")] == [
        "parquet",
        "jsonl",
        "jsonl",
        "csv",
    ]


def test_nearest_column() -> None:
    assert nearest("user_id", ["UserID", "user_name"]) == "UserID"
    assert nearest("ts", ["colour", "timestamp"]) == "timestamp"
    assert nearest("user_id", ["colour", "price"]) is None


def test_mapping_renames_and_the_replaced_column_becomes_an_attribute(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl"
    theirs = {**EVENT, "uid": "real", "what": "save", "when": "2026-10-01"}
    path.write_text(json.dumps(theirs))
    shop.ingest(path, mapping={"uid": "user_id", "what": "action", "when": "ts"})
    found = shop.rows("select user_id, action, ts::varchar, attributes from events")
    attributes = {"user_id": "u", "action": "click", "ts": EVENT["ts"]}
    assert found[0][:3] == ("real", "save", "2026-10-01 00:00:00")
    assert json.loads(found[0][3]) == attributes
    twin = shop.ws.root / "events.csv"
    twin.write_text(",".join(theirs) + "\n" + ",".join(map(str, theirs.values())) + "\n")
    assert shop.counts(twin, mapping={"uid": "user_id", "what": "action", "when": "ts"})["events"][2] == 1


def test_a_wrong_mapping_or_column_names_the_likely_one(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl"
    path.write_text(json.dumps({("uid" if key == "user_id" else key): value for key, value in EVENT.items()}))
    with pytest.raises(DataError, match=r"no column 'user_id', which events must have") as missing:
        shop.ingest(path)
    assert "--map uid=user_id" in missing.value.hint
    with pytest.raises(UsageError, match="no column 'userid'") as unknown:
        shop.ingest(path, mapping={"uid": "userid"})
    assert "--map uid=user_id" in unknown.value.hint
    with pytest.raises(DataError) as absent:
        shop.ingest(path, mapping={"nobody": "user_id"})
    assert "'nobody', which is not a column" in absent.value.hint
    with pytest.raises(UsageError, match="two columns for 'ts'"):
        shop.ingest(path, mapping={"a": "ts", "b": "ts"})
    assert shop.rows("select count(*) from events") == [(0,)]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_what_goes_in_comes_out_and_goes_in_again_as_duplicates(shop: Any, tmp_path: Path, form: str) -> None:
    path = shop.ws.root / "events.jsonl"
    rows = [{**EVENT, "event_id": f"e{n}", "position": n, "note": {"n": n}} for n in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    shop.ingest(path)
    before = shop.rows("from events order by event_id")
    from adstool.warehouse.readonly import Answer, locked_down

    out = tmp_path / f"events-out.{form}"
    with locked_down(shop.ws, shop.settings) as con:
        assert Answer(con, "select * from events").write(out) == 5
    assert shop.counts(out) == {"events": (5, 0, 5, 0)}
    other = type(shop)(tmp_path / "other")
    other.ingest(out)
    assert other.rows("from events order by event_id") == before


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\nuser_id\nu1\n", "is empty"),
        (b"user_id\ru1\ru2\r", "no list of columns"),
        (b"user_id,user_id\na,b\n", "two columns called 'user_id'"),
        (b"id,country\na,de\n", "no column 'user_id'"),
    ],
)
def test_a_csv_without_a_sound_first_line_is_refused_whole(shop: Any, data: bytes, said: str) -> None:
    path = shop.ws.root / "users.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said) as refused:
        shop.ingest(path)
    assert "--map id=user_id" in refused.value.hint or said != "no column 'user_id'"


@pytest.mark.parametrize(
    "text",
    ["user_id;country\nu1;de\n", "user_id\tcountry\nu1\tde\n", ' user_id ,"country"\r\nu1,"de"\r\n\r\n'],
)
def test_delimiters_quotes_and_line_ends_of_csv(shop: Any, text: str) -> None:
    path = shop.ws.root / "users.csv"
    path.write_bytes(text.encode())
    assert shop.counts(path) == {"users": (1, 1, 0, 0)}
    assert shop.rows("select user_id, country from users") == [("u1", "de")]


def test_zstd_is_read(shop: Any) -> None:
    path = shop.ws.root / "events.jsonl.zst"
    with pa.output_stream(str(path), compression="zstd") as target:
        target.write(json.dumps(EVENT).encode())
    assert shop.counts(path) == {"events": (1, 1, 0, 0)}


def test_a_picture_may_not_leave_its_folder(shop: Any, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    (pictures / "a.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    os.symlink(tmp_path / "secret.png", pictures / "link.png")
    os.symlink(tmp_path, pictures / "up")
    values = {
        "in": ("pictures/a.png", str(pictures / "a.png")),
        "dots": ("pictures/../pictures/./a.png", str(pictures / "a.png")),
        "absolute": (str(pictures / "a.png"), str(pictures / "a.png")),
        "absent": ("pictures/none.png", str(pictures / "none.png")),
        "url": ("https://example.com/../a.png", "https://example.com/../a.png"),
        "none": ("", None),
        "out": ("../secret.png", "refused"),
        "root": ("/etc/passwd", "refused"),
        "symlink": ("pictures/link.png", "refused"),
        "through": ("pictures/up/secret.png", "refused"),
        "file": ("file:///etc/passwd", "refused"),
        "folder": (".", "refused"),
    }
    path = folder / "pins.csv"
    path.write_text("pin_id,image\n" + "".join(f"{key},{value}\n" for key, (value, _) in values.items()))
    shop.ingest(path)
    held = dict(shop.rows("select pin_id, image from pins"))
    assert held == {key: end for key, (_, end) in values.items() if end != "refused"}
    refused = dict(shop.rows("select line, reason from rejects"))
    lines = [line for line, (_, end) in enumerate(values.values(), start=2) if end == "refused"]
    assert sorted(refused) == lines
    assert all("leaves the folder" in reason or "file:" in reason for reason in refused.values())


def test_images_option_moves_the_folder(shop: Any, tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "b.png").write_bytes(b"x")
    path = shop.ws.root / "ads.csv"
    path.write_text("ad_id,campaign_id,image\na1,c1,b.png\na2,c1,../b.png\n")
    assert shop.counts(path, images=tmp_path / "shots") == {"ads": (2, 1, 0, 1)}
    assert shop.rows("select image from ads") == [(str(tmp_path / "shots" / "b.png"),)]


def test_a_nul_in_a_path_is_refused(tmp_path: Path) -> None:
    assert ImageFolder(tmp_path).resolve("a\0b")[0] is None


values = st.one_of(st.none(), st.text(max_size=8), st.integers(), st.booleans(), st.just('": null'))
objects = st.dictionaries(st.text(max_size=5), st.one_of(values, st.lists(values, max_size=3)), max_size=6)


@given(rows=st.lists(objects, max_size=8), seed=st.integers(0, 99), compact=st.booleans())
def test_the_key_counter_never_counts_too_few(rows: list[dict[str, Any]], seed: int, compact: bool) -> None:
    form = (",", ":") if compact else (", ", ": ")
    data = "\n".join(json.dumps(row, separators=form) for row in rows).encode()
    counter = KeyCounter()
    rng = random.Random(seed)
    rest = data
    while rest:
        cut = rng.randrange(1, 12)
        counter.update(rest[:cut])
        rest = rest[cut:]
    keys = sum(value is not None for row in rows for value in row.values())
    assert counter.finish() >= keys
    plain = all(isinstance(v, int) or v is None for row in rows for v in row.values())
    if plain and not any(mark in key for row in rows for key in row for mark in '":n \t\r\\'):
        assert counter.bound == keys
