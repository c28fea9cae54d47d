"""A ranker that goes on while models, calibration and index change below it."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.funnel import loaded
from adstool.funnel.index import build_index
from adstool.funnel.rank import Ranker
from adstool.serving.quantization import quantize_run
from adstool.serving.rows import Int8Rows
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, read_json, write_json

REQUEST = {"user_id": "u1", "request_id": "q"}


def new_run(ws: Workspace, name: str, *, current: bool = True) -> str:
    """A copy of the run in use as the next one."""
    run = ws.require_run(name, "")
    following = f"r{int(run.name[1:]) + 1}"
    shutil.copytree(run, run.parent / following)
    if current:
        ws.set_current(name, following)
    return following


def clicks(ranker: Ranker) -> list[float]:
    return [ad["predictions"]["click"] for ad in ranker.rank(REQUEST)["ads"]]


def test_what_is_new_serves_from_the_next_request_on(shop_copy: Workspace, settings: Settings) -> None:
    ranker = Ranker(shop_copy, settings)
    before = clicks(ranker)
    waiting = ranker.log.pending
    assert not ranker.refresh()
    new_run(shop_copy, "engagement")
    assert ranker.heavy.run_dir.name == "r1"  # nothing happens inside a request
    assert ranker.refresh()
    assert ranker.heavy.run_dir.name == "r2"
    assert not ranker.refresh()
    assert ranker.log.pending == waiting  # candidates of before are not lost
    # The run in use without calibration, and calibrated again.
    path = ranker.heavy.run_dir / "calibration.json"
    document = read_json(path)
    path.unlink()
    assert ranker.refresh()
    assert ranker.heavy.calibration is None
    write_json(path, document)
    assert ranker.refresh()
    assert clicks(ranker) == pytest.approx(before)
    # Quantized: other graphs of the same run.
    with open_warehouse(shop_copy, settings) as con:
        quantize_run(shop_copy, settings, con, "engagement", max_ne_loss=0.5)
    assert ranker.heavy.variant == ""
    assert ranker.refresh()
    assert ranker.heavy.variant == ".int8"
    new_run(shop_copy, "index")
    assert ranker.refresh()
    assert ranker.index.directory.name == "r2"


@pytest.mark.parametrize(
    ("model", "damage"),
    [
        ("engagement", "model.onnx"),
        ("engagement", "config.json"),
        ("engagement", "features.json"),
        ("index", "two_tower.npy"),
        ("index", "index.json"),
        ("index", "state/counter_item_sums.npy"),
        ("index", "state/users.parquet"),
    ],
)
@pytest.mark.parametrize("missing", [True, False])
def test_a_broken_run_is_not_taken(
    shop_copy: Workspace,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    damage: str,
    missing: bool,
) -> None:
    ranker = Ranker(shop_copy, settings)
    before = clicks(ranker)
    following = new_run(shop_copy, model)
    path = shop_copy.models / model / following / damage
    whole = path.read_bytes()
    if missing:
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 3])
    for _ in range(3):
        assert not ranker.refresh()
        assert clicks(ranker) == pytest.approx(before)
    said = [record.getMessage() for record in caplog.records if "go on" in record.getMessage()]
    assert len(said) == 1  # not at every request
    assert "index r1 and engagement r1" in said[0]
    # Copied by hand, it may be whole a moment later although no pointer changed.
    path.write_bytes(whole)
    assert not ranker.refresh()
    monkeypatch.setattr(loaded, "RETRY_SECONDS", 0.0)
    ranker._refusals._until = 0.0
    assert ranker.refresh()
    assert clicks(ranker) == pytest.approx(before)


def test_a_model_of_other_features_waits_for_its_index(
    shop_copy: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ranker = Ranker(shop_copy, settings)
    run = shop_copy.models / "engagement" / new_run(shop_copy, "engagement")
    features = run / "features.json"
    features.write_text(features.read_text().replace('"version": 1', '"version": 0'))
    assert not ranker.refresh()
    assert "other features than" in caplog.text
    assert clicks(ranker)


def test_an_index_of_a_newer_adstool_is_not_taken(
    shop_copy: Workspace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ranker = Ranker(shop_copy, settings)
    path = shop_copy.models / "index" / new_run(shop_copy, "index") / "index.json"
    write_json(path, {**read_json(path), "format": 99})
    assert not ranker.refresh()
    assert "has format 99" in caplog.text
    assert clicks(ranker)
    with pytest.raises(AdstoolError, match="format 99"):
        Ranker(shop_copy, settings)


def test_int8_vectors_serve_in_a_quarter_of_the_room(shop_copy: Workspace, settings: Settings) -> None:
    small = dataclasses.replace(settings, index=dataclasses.replace(settings.index, vectors="int8"))
    ranker = Ranker(shop_copy, small)
    request = ranker.parse(REQUEST)
    before = ranker.stages(request)
    with open_warehouse(shop_copy, small) as con, shop_copy.new_run("index") as run:
        made = build_index(shop_copy, small, con, run)
    assert made["vectors"]["form"] == "int8"
    assert all(0.9 < kept <= 1.0 for kept in made["vectors"]["kept"].values())
    assert ranker.refresh()
    corpus = ranker.index.corpus
    for vectors in (corpus.two_tower, corpus.lightweight):
        assert isinstance(vectors, Int8Rows)
        assert isinstance(vectors.codes.base, np.memmap)
    after = ranker.stages(request)
    assert not after.fallbacks
    light = dict(zip(before.candidates.positions.tolist(), before.light.tolist(), strict=True))
    both = [place for place, one in enumerate(after.candidates.positions.tolist()) if one in light]
    assert len(both) > 0.9 * len(light)
    wanted = np.array([light[int(after.candidates.positions[place])] for place in both])
    assert after.light[both] == pytest.approx(wanted, rel=0.02, abs=1e-3)
    assert np.corrcoef(after.light[both], wanted)[0, 1] > 0.999
    wrong = dataclasses.replace(settings, index=dataclasses.replace(settings.index, vectors="int7"))
    with open_warehouse(shop_copy, wrong) as con, pytest.raises(AdstoolError, match="int7"):
        build_index(shop_copy, wrong, con, shop_copy.root / "elsewhere")
