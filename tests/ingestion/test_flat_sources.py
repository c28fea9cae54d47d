"""`ingest --source criteo|avazu`: raw published files as flat tables, and training on them by name."""

from __future__ import annotations

import csv
import gzip
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support import SHARED_DATA, cli_json, run_cli

from adstool.errors import DataError, UsageError
from adstool.ingestion.ingest import IngestOptions, dry_run_warehouse, ingest
from adstool.training.flat_named import resolve
from adstool.training.flat_table import FlatRequest
from adstool.warehouse.flat import AVAZU_CATEGORIES, CRITEO

NAMES = CRITEO.names


def criteo_rows(count: int, seed: int = 0) -> list[list[str]]:
    """Label, I1-I13, C1-C26; the label follows C1, some values are missing."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        kind = rng.randrange(4)
        numbers = [str(rng.randrange(1000)) if rng.random() < 0.8 else "" for _ in range(13)]
        words = [f"{kind:08x}", *(f"{rng.randrange(9):08x}" if rng.random() < 0.9 else "" for _ in range(25))]
        rows.append([str(int(rng.random() < 0.1 + 0.25 * kind)), *numbers, *words])
    return rows


def write(path: Path, rows: list[list[str]], mark: str, header: tuple[str, ...] = ()) -> Path:
    lines = [list(header), *rows] if header else rows
    path.write_text("".join(mark.join(row) + "\n" for row in lines))
    return path


def avazu_row(key: str, click: str, hour: str) -> list[str]:
    return [key, click, hour, *(f"v{index}" for index in range(len(AVAZU_CATEGORIES)))]


AVAZU_HEADER = ("id", "click", "hour", *AVAZU_CATEGORIES)


def test_criteo_with_and_without_names_is_the_same_table(shop: Any, tmp_path: Path) -> None:
    rows = criteo_rows(50)
    assert shop.counts(write(tmp_path / "train.txt", rows, "\t"), source="criteo") == {
        "criteo": (50, 50, 0, 0)
    }
    numbered = [[str(index), *row] for index, row in enumerate(rows)]
    named = write(tmp_path / "named.csv", numbered, ",", NAMES)
    assert shop.counts(named, source="criteo") == {"criteo": (50, 50, 0, 0)}
    columns = ", ".join(NAMES[1:])
    first = shop.rows(f"select {columns} from criteo order by rowid limit 50")
    second = shop.rows(f"select {columns} from criteo order by rowid offset 50")
    assert first == second
    expected = [
        (int(row[0]), *(float(x) if x else None for x in row[1:14]), *(x or None for x in row[14:]))
        for row in rows
    ]
    assert first == expected


def test_files_of_the_same_name_in_two_folders_are_both_kept(shop: Any, tmp_path: Path) -> None:
    for day in ("one", "two"):
        (tmp_path / day).mkdir()
        write(tmp_path / day / "part.txt", criteo_rows(20, len(day) if day == "one" else 9), "\t")
        assert shop.counts(tmp_path / day, source="criteo") == {"criteo": (20, 20, 0, 0)}
    assert shop.counts(tmp_path / "one", source="criteo") == {"criteo": (20, 0, 20, 0)}
    assert shop.rows("select count(*), count(distinct Id) from criteo") == [(40, 40)]


def test_bad_rows_are_kept_aside_with_their_line_and_reason(shop: Any, tmp_path: Path) -> None:
    rows = criteo_rows(10)
    rows[3][0] = "2"
    rows[6][2] = "many"
    path = write(tmp_path / "train.txt", rows, "\t")
    assert shop.counts(path, source="criteo") == {"criteo": (10, 8, 0, 2)}
    found = shop.rows("select table_name, file, line, reason from rejects order by line")
    assert found == [
        ("criteo", str(path), 4, 'Label "2" is not 0 or 1'),
        ("criteo", str(path), 7, 'I2 "many" is not a finite number'),
    ]


def test_avazu_hours_become_times(shop: Any, tmp_path: Path) -> None:
    rows = [
        avazu_row("1", "0", "14102100"),
        avazu_row("2", "1", "14102623"),
        avazu_row("3", "1", "14139923"),
        avazu_row("4", "", "14102100"),
        avazu_row("1", "1", "14102101"),
    ]
    path = write(tmp_path / "train.csv", rows, ",", AVAZU_HEADER)
    assert shop.counts(path, source="avazu") == {"avazu": (5, 2, 1, 2)}
    assert shop.rows("select id, click, hour, hour_of_day, weekday, C21 from avazu order by id") == [
        ("1", 0, datetime(2014, 10, 21), "0", "2", "v20"),  # a Tuesday
        ("2", 1, datetime(2014, 10, 26, 23), "23", "7", "v20"),  # a Sunday
    ]
    assert shop.rows("select line, reason from rejects order by line") == [
        (4, 'hour "14139923" is not a time YYMMDDHH'),
        (5, "click is missing"),
    ]


def test_a_dry_run_writes_no_table(shop: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt", criteo_rows(5), "\t")
    options = IngestOptions(source="criteo", dry_run=True)
    with dry_run_warehouse(shop.ws, shop.settings) as con:
        counts = ingest(con, shop.ws, [str(path)], options).tables["criteo"]
    assert (counts.read, counts.inserted) == (5, 5)
    assert not shop.ws.warehouse.exists()


def test_a_refused_file_leaves_no_empty_table(shop: Any, tmp_path: Path) -> None:
    whole = write(tmp_path / "train.txt", criteo_rows(3), "\t")
    path = tmp_path / "train.txt.gz"
    path.write_bytes(gzip.compress(whole.read_bytes())[:-9])
    with pytest.raises(DataError):
        shop.ingest(path, source="criteo")
    assert shop.rows("select count(*) from duckdb_tables() where table_name = 'criteo'") == [(0,)]


def test_what_is_not_the_format_is_refused(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="39 columns and no names"):
        shop.ingest(write(tmp_path / "test.txt", [row[1:] for row in criteo_rows(3)], "\t"), source="criteo")
    with pytest.raises(DataError, match="no column 'click'"):
        shop.ingest(write(tmp_path / "a.csv", [["1", "2"]], ",", ("id", "hour")), source="avazu")
    with pytest.raises(DataError, match="does not exist"):
        shop.ingest(tmp_path / "nowhere", source="criteo")
    with pytest.raises(UsageError, match="no source 'kaggle'"):
        shop.ingest(tmp_path, source="kaggle")


@pytest.mark.parametrize(
    ("source", "file", "rows"),
    [("criteo", "criteo_kaggle/train.tiny.csv", 1999), ("avazu", "avazu/tr.rx.csv", 2994)],
)
def test_published_files(shop: Any, source: str, file: str, rows: int) -> None:
    path = SHARED_DATA / file
    if not path.is_file():
        pytest.skip(f"{file} is not beside this checkout (../shared/data)")
    counts = shop.counts(path, source=source)[source]
    with open(path, newline="") as handle:
        unique = {row[0] for row in list(csv.reader(handle))[1:]}
    assert counts == (rows, len(unique), rows - len(unique), 0)


def request(train: str, test: str | None = None) -> FlatRequest:
    return FlatRequest(Path(train), Path(test) if test else None, None, "", (), (), 2, 8)


def test_a_table_is_trained_on_by_name(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no flat table 'criteo'") as found:
        resolve(shop.ws, shop.settings, request("criteo"))
    assert "There are no flat tables yet" in str(found.value.hint)
    path = write(tmp_path / "train.txt", criteo_rows(3000), "\t")
    shop.ingest(path, source="criteo")
    with pytest.raises(DataError, match="no flat table 'avazu'") as found:
        resolve(shop.ws, shop.settings, request("avazu"))
    assert "Flat tables: criteo" in str(found.value.hint)
    with pytest.raises(UsageError, match="given twice"):
        resolve(shop.ws, shop.settings, request("criteo", "criteo"))
    made = resolve(shop.ws, shop.settings, request("criteo"))
    assert resolve(shop.ws, shop.settings, request("criteo")) == made
    where = ("--workspace", shop.ws.root)
    held = cli_json(*where, "status")
    assert (held["tables"]["criteo"], held["stale"], held["lacking"]) == (3000, [], "events")
    shown = run_cli(*where, "status").stdout
    assert shown.endswith("Next: adstool train engagement --train criteo\n")
    small = ("--set", "hidden=16", "--set", "learning_rate=0.005", "--batch-size", "256", "--epochs", "3")
    figures = cli_json(*where, "train", "engagement", "--train", "criteo", *small)["metrics"]["test"]["Label"]
    assert figures["rows"] == 300  # the last tenth, in the file's order
    assert figures["positives"] == sum(int(row[0]) for row in criteo_rows(3000)[2700:])
    assert figures["auc"] > 0.68


def test_the_last_rows_by_time_are_the_test_set(shop: Any, tmp_path: Path) -> None:
    hours = [f"1410{21 + index // 24:02d}{index % 24:02d}" for index in range(40)]
    rows = [avazu_row(str(index), str(index % 2), hour) for index, hour in enumerate(hours)]
    shop.ingest(write(tmp_path / "b.csv", rows[::-1], ",", AVAZU_HEADER), source="avazu")
    made = resolve(shop.ws, shop.settings, request("avazu"))
    clock = [
        duckdb.sql(f"select hour_of_day::int from '{path}'").fetchall() for path in (made.train, made.test)
    ]
    assert [row[0] for row in clock[0]] == [index % 24 for index in range(36)]
    assert [row[0] for row in clock[1]] == [12, 13, 14, 15]
