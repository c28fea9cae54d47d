"""`embed --engine ray`: two workers leave the table that one process leaves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run_cli

from adstool.config import Settings, load_settings
from adstool.content.embedding import embed_items
from adstool.content.vectors import SIDES, VectorTable, active_model
from adstool.distributed.embedding import ray_engine
from adstool.errors import AdstoolError
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace
from adstool.world.config import WorldConfig
from adstool.world.generate import generate

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is an extra: adstool[ray]"
)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    """Two workspaces over one small catalogue."""
    root = tmp_path_factory.mktemp("ray").resolve()
    generate(WorldConfig(users=20, ads=90, pins=40, days=2, seed=3), root / "world", None, None)
    made = []
    for name in ("local", "ray"):
        ws = Workspace(root / name)
        ws.root.mkdir()
        ws.config.write_text('[content]\nbatch_size = 2\nprecision = "fp32"\n', encoding="utf-8")
        with open_warehouse(ws, settings_of(ws)) as con:
            ingest(con, ws, [str(root / "world")], IngestOptions())
        made.append(ws)
    return made[0], made[1]


def settings_of(ws: Workspace) -> Settings:
    return load_settings(ws.config, environment={})


def rows_of(ws: Workspace, kind: str) -> dict[str, dict[str, Any]]:
    model = active_model(ws)
    assert model is not None
    table = VectorTable.open(ws, kind, model.slug)
    assert table is not None
    return {row["item_id"]: row for row in table._table.search().limit(None).to_arrow().to_pylist()}


def assert_equal_tables(left: Workspace, right: Workspace) -> None:
    for kind in ("ad", "pin"):
        expected, found = rows_of(left, kind), rows_of(right, kind)
        assert found.keys() == expected.keys()
        assert len(found) > 0
        for item_id, row in expected.items():
            for name, value in row.items():
                if name in SIDES and value is not None:
                    np.testing.assert_allclose(found[item_id][name], value, atol=1e-5)
                else:
                    assert found[item_id][name] == value, (item_id, name)


@needs_ray
def test_two_workers_leave_the_table_of_one_process(shops: tuple[Workspace, Workspace]) -> None:
    local, spread = shops
    for ws, engine in ((local, None), (spread, ray_engine(2))):
        with open_warehouse(ws, settings_of(ws)) as con:
            done = embed_items(ws, settings_of(ws), con, engine=engine)
            assert (done.embedded, done.failed, done.described) == (130, 0, 0)
    assert_equal_tables(local, spread)
    gone = Path(next(iter(_images(spread))))
    kept = gone.read_bytes()
    gone.write_bytes(b"damaged")  # both see it: one world
    try:
        for ws, engine in ((local, None), (spread, ray_engine(2))):
            with open_warehouse(ws, settings_of(ws)) as con:
                con.execute("update ads set title = title || ' sale' where right(ad_id, 1) in ('1', '5')")
                again = embed_items(ws, settings_of(ws), con, engine=engine)
                assert again.embedded >= 18
                assert again.failed == 1
                assert again.embedded + again.skipped + again.failed == 130
        assert_equal_tables(local, spread)
    finally:
        gone.write_bytes(kept)


def _images(ws: Workspace) -> list[str]:
    with open_warehouse(ws, settings_of(ws), read_only=True) as con:
        rows = con.execute("select image from pins where image is not null order by pin_id").fetchall()
    return [row[0] for row in rows]


@needs_ray
def test_a_worker_that_fails_is_told(
    shops: tuple[Workspace, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ws = shops
    with open_warehouse(ws, settings_of(ws)) as con:
        con.execute("update pins set title = title || ' today'")

        def lose_the_table(work: Any) -> Any:
            engine = ray_engine(1)(work)
            for plan in work.plans:
                plan.attributes = plan.attributes.rename_columns(
                    [f"x_{name}" if name != "item_id" else name for name in plan.attributes.column_names]
                )
            return engine

        with pytest.raises(AdstoolError, match="A worker failed: KeyError"):
            embed_items(ws, settings_of(ws), con, engine=lose_the_table)
        assert embed_items(ws, settings_of(ws), con).embedded == 40  # nothing was lost


def test_without_ray_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AdstoolError) as caught:
        ray_engine(2)
    assert "pip install 'adstool[ray]'" in caught.value.hint


def test_wrong_use_of_the_engine_is_told() -> None:
    for words in (["--engine", "spark"], ["--workers", "2"]):
        refused = run_cli("embed", *words)
        assert refused.returncode == 2
        assert "try:" in refused.stderr
