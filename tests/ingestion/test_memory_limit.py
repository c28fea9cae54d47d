"""A file of several times the memory DuckDB may use; tests/bench/memory_limit.py limits whole processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from adstool.config import load_settings
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.ingestion.load import Counts
from adstool.warehouse import load_sql, open_warehouse
from adstool.workspace import Workspace

ROWS = 1_800_000
LIMIT = 64_000_000  # bytes; a thread that reads jsonl takes half of it for its buffer


def test_a_file_of_four_times_the_memory_is_counted_right(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    duckdb.connect().execute(load_sql("bench_events"), {"rows": ROWS, "path": str(path)})
    with path.open("rb") as lines:
        again = [line for line, _ in zip(lines, range(1000), strict=False)]
    with path.open("ab") as lines:
        lines.writelines(again)
        lines.write(
            b'{"event_id": "bad", "ts": "never", "user_id": "u1", "item_type": "ad", "action": "x"}\n'
        )
    assert path.stat().st_size > 4 * LIMIT
    limits = {"warehouse.memory_limit": f"{LIMIT // 10**6}MB", "warehouse.threads": 1}
    settings = load_settings(None, limits, {})
    ws = Workspace(tmp_path)
    with open_warehouse(ws, settings) as con:
        counts = ingest(con, ws, [str(path)], IngestOptions(table="events")).tables["events"]
        assert counts == Counts(read=ROWS + 1001, inserted=ROWS, duplicate=1000, rejected=1)
        assert con.execute("select count(distinct event_id) from events").fetchall() == [(ROWS,)]
    shutil.rmtree(tmp_path)
