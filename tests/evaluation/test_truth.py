"""Finding the truth and matching it to the log, row by row."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adstool.config import EvaluationSettings, Settings
from adstool.errors import AdstoolError
from adstool.evaluation.truth import IMPRESSIONS, locate_truth, true_probabilities
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

START = datetime(2026, 11, 2)


@pytest.fixture
def con(tmp_path: Path):  # type: ignore[no-untyped-def]
    with open_warehouse(Workspace(tmp_path), Settings()) as opened:
        yield opened


def _loaded(con: duckdb.DuckDBPyConnection, path: Path, inserted: int) -> None:
    con.execute(
        "insert into files values ('f', ?, 'events', 1, ?, 0, 0, now()::timestamp)", [str(path), inserted]
    )


def test_the_truth_lies_beside_an_ingested_file(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert locate_truth(con, Settings()) is None
    truth = tmp_path / "world" / "truth"
    truth.mkdir(parents=True)
    _loaded(con, tmp_path / "world" / "events-1.jsonl", 0)
    pq.write_table(pa.table({"request_id": ["r"]}), truth / IMPRESSIONS)
    assert locate_truth(con, Settings()) is None  # nothing of that world came in
    _loaded(con, tmp_path / "world" / "events-2.jsonl", 3)
    assert locate_truth(con, Settings()) == truth


def test_a_named_folder_without_truth_is_an_error(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    settings = Settings(evaluation=EvaluationSettings(truth=str(tmp_path)))
    with pytest.raises(AdstoolError, match=r"evaluation\.truth"):
        locate_truth(con, settings)


def test_every_row_gets_the_probability_of_its_own_impression(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    rows = 300
    user = random.integers(0, 5, rows)
    item = random.integers(0, 7, rows)
    moment = [START + timedelta(seconds=int(s)) for s in np.arange(rows) // 3]
    request = np.arange(rows) // 3
    for i in range(rows):
        con.execute(
            "insert into events (event_id, ts, user_id, item_type, item_id, action, request_id)"
            " values (?, ?, ?, 'ad', ?, 'impression', ?)",
            [
                f"e{i}",
                moment[i],
                f"u{user[request[i] * 3]}",
                f"a{(item[request[i] * 3] + i % 3) % 7}",
                f"r{request[i]}",
            ],
        )
    shown = [(f"r{request[i]}", f"a{(item[request[i] * 3] + i % 3) % 7}") for i in range(rows)]
    p = random.random(rows)
    known = np.arange(rows) % 10 != 0  # a tenth is not in the truth
    pq.write_table(
        pa.table(
            {
                "request_id": [r for (r, _), k in zip(shown, known, strict=True) if k],
                "item_id": [a for (_, a), k in zip(shown, known, strict=True) if k],
                "p_click": p[known],
                "p_other": p[known] / 2,
            }
        ),
        tmp_path / IMPRESSIONS,
    )
    people = [f"u{n}" for n in range(5)]
    dataset = SimpleNamespace(
        ts=np.array([int((m - datetime(1970, 1, 1)).total_seconds() * 1e6) for m in moment]),
        user=np.array([user[request[i] * 3] for i in range(rows)]),
        item_row=np.array([(item[request[i] * 3] + i % 3) % 7 for i in range(rows)]),
        items=SimpleNamespace(ids=[f"a{n}" for n in range(7)]),
        users=SimpleNamespace(column=lambda name: pa.chunked_array([people])),
    )
    found = true_probabilities(con, tmp_path, dataset, slice(60, rows), ("click", "hide"))  # type: ignore[arg-type]
    assert set(found) == {"click"}  # the truth says nothing of hides
    wanted = np.where(known, p, np.nan)[60:]
    np.testing.assert_array_equal(found["click"], wanted)
    with pytest.raises(duckdb.Error):
        con.execute("select * from evaluated_rows")  # nothing is left behind
