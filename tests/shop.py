"""A small workspace with trained models and an index, made once for the tests of serving and funnel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adstool.config import load_settings
from adstool.content.semantic_ids import train_semantic
from adstool.content.vectors import ActiveModel, ItemVectors, VectorTable, set_active_model
from adstool.funnel.index import build_index
from adstool.ingestion.ingest import IngestOptions, ingest
from adstool.serving.export import export_run
from adstool.training.calibration import calibrate_run
from adstool.training.train import TrainOptions, train_model
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, write_text
from adstool.world.config import WorldConfig
from adstool.world.generate import generate

DIM = 16  # of the content vectors


def make_shop(root: Path) -> Workspace:
    """A world, its warehouse, vectors, models and index below `root`."""
    world = WorldConfig(users=120, ads=60, pins=40, days=6, seed=3, requests_per_user_day=0.8)
    generate(world, root / "world", None, None)
    ws = Workspace(root / "shop")
    write_text(ws.config, "[funnel]\nretrieve = 40\nlightweight = 20\nslate = 5\n")
    settings = load_settings(ws.config, environment={})
    with open_warehouse(ws, settings) as con:
        ingest(con, ws, [str(root / "world")], IngestOptions())
        _embed(ws, con)
        train_semantic(ws, settings, con)
        for name in ("retrieval", "lightweight", "engagement"):
            options = TrainOptions("", {}, 2, 256, 0, None)
            train_model(ws, settings, con, name, options, export=export_run)
        calibrate_run(ws.require_run("engagement", ""))
        with ws.new_run("index") as run:
            build_index(ws, settings, con, run)
    return ws


def _embed(ws: Workspace, con) -> None:  # type: ignore[no-untyped-def]
    """Content vectors by category with noise, as an embedding of pictures would give."""
    random = np.random.default_rng(0)
    centres: dict[str, np.ndarray] = {}
    set_active_model(ws, ActiveModel("by-category", "by-category", "", DIM))
    for kind, table in (("ad", "ads"), ("pin", "pins")):
        rows = []
        for item, category in con.execute(f"select {kind}_id, category from {table} order by 1").fetchall():
            vector = centres.setdefault(category, random.normal(size=DIM)) + 0.5 * random.normal(size=DIM)
            unit = (vector / np.linalg.norm(vector)).astype(np.float32)
            rows.append(ItemVectors(item, item, item, None, None, None, unit, unit))
        VectorTable.create(ws, kind, "by-category", DIM).write(rows, replacing=False)
