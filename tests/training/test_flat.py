"""Flat tables: reading, encoding, splitting, guessing, and training on them as a user does."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from support import SHARED_DATA, cli_json, run_cli

from adstool.config import Settings
from adstool.errors import DataError
from adstool.training.flat import FlatExamples, prepare, train_flat
from adstool.training.flat_table import FlatEncoder, FlatRequest, guess_columns
from adstool.training.metrics import auc, sigmoid
from adstool.training.options import TrainOptions
from adstool.workspace import Workspace

COLUMNS = ["row", "clicked", "site", "device", "depth", "age", "price", "note"]


def write(path: Path, rows: int, seed: int, first: int = 0) -> list[dict[str, Any]]:
    """A table whose clicks depend on site, device and age; with gaps, quotes and a constant column."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(rows):
        site, device = f"site,{rng.integers(0, 12)}", rng.choice(["phone", 'desk"top'])
        age, price = float(rng.normal(40, 12)), float(rng.lognormal(4, 1.5))
        score = int(site[5:]) / 4 - 2 + (device == "phone") + (age - 40) / 20
        made.append(
            {
                "row": first + number,
                "clicked": int(rng.random() < sigmoid(np.array([score]))[0]),
                "site": site,
                "device": device,
                "depth": int(rng.integers(1, 5)),
                "age": "" if number % 10 == 0 else f"{age:.3f}",
                "price": f"{price:.2f}",
                "note": "same",
            }
        )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(made)
    return made


@pytest.fixture
def request_(tmp_path: Path) -> FlatRequest:
    write(tmp_path / "train.csv", 3000, 0)
    write(tmp_path / "test.csv.gz", 800, 1, 3000)
    columns = (("site", "device", "depth"), ("age", "price"))
    return FlatRequest(tmp_path / "train.csv", tmp_path / "test.csv.gz", None, "clicked", *columns, 5, 4)


def prepared(request: FlatRequest, tmp_path: Path) -> FlatExamples:
    return prepare(Workspace(tmp_path / "ws"), Settings(), request)


def test_codes_and_numbers_are_those_of_the_file(request_: FlatRequest, tmp_path: Path) -> None:
    examples = prepared(request_, tmp_path)
    rows = write(tmp_path / "again.csv", 800, 1, 3000)
    held = examples.splits["test"]
    assert held.stop - held.start == 800
    np.testing.assert_array_equal(examples.labels[held, 0], [row["clicked"] for row in rows])
    vocabulary = examples.encoder.vocabularies["site"]
    assert [vocabulary.code(row["site"]) for row in rows] == examples.categorical[held, 0].tolist()
    assert examples.categorical[held, 0].min() > 4  # all known: none in the unknown buckets
    train = write(tmp_path / "train-again.csv", 3000, 0)
    price = np.log1p([float(row["price"]) for row in train])
    expected = (np.log1p([float(row["price"]) for row in rows]) - price.mean()) / price.std()
    np.testing.assert_allclose(examples.numeric[held, 1], np.clip(expected, -5, 5), atol=1e-4)
    ages = np.array([float(row["age"]) for row in train if row["age"]])
    assert examples.encoder.scales[0].log == (np.abs(ages).max() > 20)
    assert (examples.numeric[held, 0][::10] == 0.0).all()  # missing


def test_a_tenth_of_training_is_held_out_when_no_file_is_given(request_: FlatRequest, tmp_path: Path) -> None:
    examples = prepared(request_, tmp_path)
    sizes = {name: part.stop - part.start for name, part in examples.splits.items()}
    assert sizes["train"] + sizes["valid"] == 3000
    assert 240 < sizes["valid"] < 360
    with_file = prepared(replace(request_, valid=request_.test), tmp_path)
    assert with_file.splits["train"] == slice(0, 3000)
    np.testing.assert_array_equal(
        with_file.labels[with_file.splits["valid"]], with_file.labels[with_file.splits["test"]]
    )


def test_prepared_once_and_again_when_a_file_changes(request_: FlatRequest, tmp_path: Path) -> None:
    first = prepared(request_, tmp_path)
    assert prepared(request_, tmp_path).fingerprint == first.fingerprint
    write(request_.train, 3100, 2)
    second = prepared(request_, tmp_path)
    assert second.fingerprint != first.fingerprint
    assert len(second.labels) == 3900
    folder = tmp_path / "ws" / "cache" / "flat"
    assert [path.name for path in folder.iterdir()] == [second.fingerprint]  # nothing is left behind


def test_parquet_reads_like_csv(request_: FlatRequest, tmp_path: Path) -> None:
    by_csv = prepared(request_, tmp_path)
    parquet = tmp_path / "train.parquet"
    duckdb.execute(f"copy (from '{request_.train}') to '{parquet}'")
    by_parquet = prepared(replace(request_, train=parquet), tmp_path)
    np.testing.assert_array_equal(by_csv.categorical, by_parquet.categorical)
    np.testing.assert_allclose(by_csv.numeric, by_parquet.numeric, atol=1e-5)


def test_columns_are_guessed(request_: FlatRequest) -> None:
    con = duckdb.connect()
    categorical, numeric = guess_columns(con, request_.train, "clicked")
    assert categorical == ("site", "device", "depth")
    assert numeric == ("age", "price")  # row differs everywhere, note nowhere


def test_encoder_comes_back(request_: FlatRequest, tmp_path: Path) -> None:
    encoder = prepared(request_, tmp_path).encoder
    encoder.save(tmp_path / "saved")
    again = FlatEncoder.load(tmp_path / "saved")
    assert again.scales == encoder.scales
    values = ["site,3", "site,99", "", None]
    for name in encoder.vocabularies:
        np.testing.assert_array_equal(
            again.vocabularies[name].encode(values), encoder.vocabularies[name].encode(values)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "age"}, "not 0 or 1"),
        ({"label": "nothing"}, "no column 'nothing'"),
        ({"categorical": ("site", "absent")}, "no column 'absent'"),
        ({"train": Path("nowhere.csv")}, "no file"),
    ],
)
def test_what_cannot_be_used_is_named(
    request_: FlatRequest, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(replace(request_, **change), tmp_path)
    folder = tmp_path / "ws" / "cache" / "flat"
    assert not folder.is_dir() or list(folder.iterdir()) == []


def test_damaged_files_are_named(request_: FlatRequest, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read"):
        prepared(replace(request_, train=broken), tmp_path)
    with pytest.raises(DataError, match="neither csv nor parquet"):
        prepared(replace(request_, train=Path(__file__)), tmp_path)


def test_names_that_are_sql_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    name = 'a"; drop table train; --'
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow([name, "y"])
        writer.writerows([[f"v{i % 3}", i % 2] for i in range(60)])
    request = FlatRequest(path, path, None, "y", (name,), (), 1, 2)
    assert prepared(request, tmp_path).encoder.vocabularies[name].cardinality == 6


def test_train_and_calibrate_on_a_flat_table_as_a_process(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 4000, 0)
    write(tmp_path / "test.csv", 1500, 1, 4000)
    assert run_cli("init", tmp_path / "ws").returncode == 0
    files = ("--train", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--label", "clicked")
    small = ("--set", "hidden=32", "--set", "learning_rate=0.005", "--batch-size", "256", "--epochs", "5")
    where = ("--workspace", tmp_path / "ws")
    result = cli_json(*where, "train", "engagement", *files, *small)
    assert {"model", "run_id", "metrics", "parameters", "rows_per_second", "seconds"} <= result.keys()
    assert (result["model"], result["run_id"]) == ("flat", "r1")
    run = tmp_path / "ws" / "models" / "flat" / "r1"
    stored = np.load(run / "predictions.npz")
    expected = auc(stored["test_labels"][:, 0], stored["test_logits"][:, 0])
    assert result["metrics"]["test"]["clicked"]["auc"] == pytest.approx(expected)
    assert expected > 0.72
    assert (run / "model.onnx").is_file()
    about = json.loads((run / "run.json").read_text())
    assert [row["epoch"] for row in about["curve"]] == list(range(1, about["epochs"] + 1))
    calibrated = cli_json(*where, "calibrate", "flat")
    assert calibrated["before"]["clicked"]["rows"] == 1500
    assert calibrated["after"]["clicked"]["log_loss"] < calibrated["before"]["clicked"]["log_loss"] + 0.005


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "bidder"), "no model 'bidder'"),
        (("train", "engagement", "--train", "x.csv"), "--test, --label"),
        (("train", "retrieval", "--label", "y"), "train engagement"),
        (("train", "engagement", "--set", "dropout"), "KEY=VALUE"),
        (("train", "engagement", "--engine", "spark"), "no engine 'spark'"),
        (("train", "retrieval", "--engine", "ray"), "not retrieval"),
        (("calibrate", "retrieval"), "no probabilities"),
    ],
)
def test_wrong_usage_exits_2(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("file", "label"), [("avazu/tr.rx.csv", "click"), ("criteo_kaggle/train.tiny.csv", "Label")]
)
def test_published_tables_train(file: str, label: str, tmp_path: Path) -> None:
    path = SHARED_DATA / file
    if not path.is_file():
        pytest.skip(f"{file} is not beside this checkout (../shared/data)")
    with open(path, newline="", encoding="utf-8") as handle:
        header, *rows = list(csv.reader(handle))
    cut = len(rows) * 3 // 4
    for name, part in (("train.csv", rows[:cut]), ("test.csv", rows[cut:])):
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([header, *part])
    con = duckdb.connect()
    categorical, numeric = guess_columns(con, tmp_path / "train.csv", label)
    assert categorical
    request = FlatRequest(
        tmp_path / "train.csv", tmp_path / "test.csv", None, label, categorical, numeric, 2, 8
    )
    options = TrainOptions(epochs=4, batch_size=256, overrides={"hidden": "32", "learning_rate": "0.003"})
    run = tmp_path / "run"
    run.mkdir()
    result = train_flat(Workspace(tmp_path / "ws"), Settings(), request, run, options)
    assert result.metrics["test"][label]["auc"] > 0.55
    assert result.metrics["test"][label]["rows"] > 300
