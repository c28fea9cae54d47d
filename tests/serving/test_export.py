"""Exported graphs against torch, and the scorers against both."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models.specs import SPEC

from adstool.config import load_settings
from adstool.errors import AdstoolError
from adstool.funnel.rank import Ranker
from adstool.models.engagement import EngagementConfig, EngagementModel
from adstool.models.inputs import InputSpec
from adstool.models.pairs import PairModel
from adstool.models.registry import KINDS, load_model, save_model
from adstool.serving import export
from adstool.serving.export import export_run, random_inputs
from adstool.serving.light import LightScorer
from adstool.serving.quantization import quantize_run
from adstool.serving.scorer import Scorer, TowerScorer, share_encoders
from adstool.training.calibration import Calibration
from adstool.training.train import TrainOptions, train_model
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

FULL = dataclasses.replace(SPEC, cardinalities=(30, 400, 12, 5))
FLAT = InputSpec(
    categorical=("a", "b"),
    categorical_sides=("item", "item"),
    cardinalities=(7, 9),
    numeric=("x",),
    numeric_sides=("item",),
    actions=("label",),
)


def numpy_inputs(spec: InputSpec, rows: int, used: int = 0) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in random_inputs(spec, rows, used, seed=5).items()}


@pytest.mark.parametrize("spec", [FULL, FLAT], ids=["impressions", "flat"])
def test_a_ranker_scores_as_in_torch_at_any_batch_size(spec: InputSpec, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EngagementModel(EngagementConfig(inputs=spec, history_used=4)).eval()
    save_model(tmp_path, "engagement", model, outputs=list(model.output_names))
    assert [path.name for path in export_run(tmp_path)] == ["model.onnx"]
    scorer = Scorer(tmp_path)
    for rows in (1, 2, 333):
        inputs = random_inputs(spec, rows, 0, seed=rows)  # histories longer than the model reads
        with torch.no_grad():
            wanted = torch.sigmoid(model(inputs)).numpy()
        got = scorer.predict({name: value.numpy() for name, value in inputs.items()})
        assert got == pytest.approx(wanted, abs=1e-5)


LIGHT = dataclasses.replace(
    FULL,
    numeric=("u", "i", "user_category_c", "content_similarity"),
    numeric_sides=("user", "item", "cross", "cross"),
)


@pytest.mark.parametrize("kind", ["two_tower", "inttower", "cold"])
def test_rows_of_users_and_items_meet_in_the_probability_of_torch(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = KINDS[kind].config(inputs=LIGHT, heads=("click", "hide"), hidden=(24, 16))
    model = KINDS[kind].model(config).eval()
    assert isinstance(model, PairModel)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.5, -1.0]))
    cross = model.cross.tolist()
    assert cross == ([2] if kind == "cold" else [])
    save_model(tmp_path, kind, model, outputs=["click", "hide"], cross=cross)
    assert sorted(path.name for path in export_run(tmp_path)) == ["item.onnx", "pair.onnx", "user.onnx"]
    scorer = LightScorer(tmp_path)
    inputs = random_inputs(LIGHT, 50, 0, seed=3)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    with torch.no_grad():
        wanted = torch.sigmoid(model(inputs)).numpy()
        first = model.user_row(inputs)[:1].expand(50, -1)
        of_one = torch.sigmoid(model.pair(first, model.item_row(inputs), model.crossed(inputs))).numpy()
    assert scorer.predict(arrays) == pytest.approx(wanted, abs=1e-5)
    user = scorer.user({name: value[:1] for name, value in arrays.items()})
    crossed = arrays["numeric"][:, cross] if cross else None
    assert scorer.probability(user, scorer.item(arrays), crossed) == pytest.approx(of_one, abs=1e-5)
    assert np.abs(of_one - wanted).max() > 1e-3


def test_rows_beyond_a_chunk_are_scored_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = EngagementModel(EngagementConfig(inputs=FULL)).eval()
    save_model(tmp_path, "engagement", model, outputs=["click", "hide"])
    export_run(tmp_path)
    inputs = numpy_inputs(FULL, 25)
    whole = Scorer(tmp_path).raw(inputs)
    monkeypatch.setattr("adstool.serving.scorer.CHUNK", 10)
    assert Scorer(tmp_path).raw(inputs) == pytest.approx(whole, abs=1e-6)


def test_a_graph_that_differs_from_its_model_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EngagementModel(EngagementConfig(inputs=FULL)).eval()
    save_model(tmp_path, "engagement", model)

    def wrong(model: object, graph: export.Graph, path: Path) -> None:
        right(model, dataclasses.replace(graph, compute=lambda b: graph.compute(b) * 1.01), path)

    right = export._write
    monkeypatch.setattr(export, "_write", wrong)
    with pytest.raises(AdstoolError, match="differ by"):
        export_run(tmp_path)
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_run_without_graphs_says_what_is_missing(tmp_path: Path) -> None:
    model = EngagementModel(EngagementConfig(inputs=FULL)).eval()
    save_model(tmp_path, "engagement", model, outputs=["click", "hide"])
    with pytest.raises(AdstoolError, match=r"model\.onnx cannot be loaded: it is not there"):
        Scorer(tmp_path).raw(numpy_inputs(FULL, 1))
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(AdstoolError, match="cannot be loaded"):
        Scorer(tmp_path).raw(numpy_inputs(FULL, 1))


def test_predictions_of_a_trained_run_are_calibrated_by_surface_and_vertical(shop: Workspace) -> None:
    run = shop.require_run("engagement", "")
    scorer = Scorer(run)
    spec = load_model(run).config.inputs
    inputs = numpy_inputs(spec, 64)
    raw = scorer.raw(inputs)
    codes = {name: inputs["categorical"][:, spec.field(name)] for name in ("surface", "vertical")}
    wanted = Calibration.load(run / "calibration.json").apply(raw, codes)
    assert min(spec.field(name) for name in codes) >= 0
    assert scorer.predict(inputs) == pytest.approx(wanted)
    assert scorer.outputs == ("click", "long_click", "save", "hide")


def test_runs_of_the_same_examples_share_one_encoder(shop: Workspace, tmp_path: Path) -> None:
    runs = [shop.require_run(name, "") for name in ("retrieval", "lightweight")]
    changed = Path(shutil.copytree(runs[1], tmp_path / "r9"))
    features = changed / "features.json"
    features.write_text(features.read_text().replace('"version": 1', '"version": 0'))
    towers = [TowerScorer(run) for run in (*runs, changed)]
    share_encoders(*towers)
    assert towers[0].encoder is towers[1].encoder
    assert towers[2].encoder is not towers[1].encoder


def test_scoring_does_not_import_torch(shop: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from adstool.serving.scorer import Scorer;"
        f"s = Scorer(Path({str(shop.require_run('engagement', ''))!r}));"
        "s._session, s.encoder, s.calibration;"
        "print([m for m in ('torch', 'lancedb', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_ranker_with_a_sequence_encoder_is_trained_quantized_and_served(shop_copy: Workspace) -> None:
    """`rank` gives the probabilities of the trained model for the state's inputs, in both precisions."""
    settings = load_settings(shop_copy.config, environment={})
    overrides = {
        "sequence": "transact",
        "sequence_dim": "8",
        "hidden": "32",
        "history_used": "8",
        "long_history": "4",
    }
    options = TrainOptions("", overrides, 2, 256, 0, None)
    with open_warehouse(shop_copy, settings) as con:
        train_model(shop_copy, settings, con, "engagement", options, export=export_run)
        result = quantize_run(shop_copy, settings, con, "engagement", max_ne_loss=0.01)
    assert result["accepted"]
    assert result["size_ratio"] < 0.6
    run = shop_copy.require_run("engagement", "")
    model, full = load_model(run), Scorer(run, quantized=False)
    with Ranker(shop_copy, settings) as ranker:
        ranked = ranker.stages(ranker.parse({"user_id": "u1"}))
        state = ranker.index.state
        rows = ranked.candidates.positions[ranked.kept] + ranker.index.corpus.first_row
        inputs = state.inputs(full.encoder, ranked.ctx, rows, full.needs)
    assert ranked.ctx.end - ranked.ctx.start > 0
    assert inputs["history_content"].shape == (1, 8, 16)
    assert inputs["nearest_content"].shape == (len(rows), 4, 16)
    batch = {name: torch.from_numpy(v.astype(np.int64 if v.dtype.kind == "i" else np.float32))
             for name, v in inputs.items()}  # fmt: skip
    with torch.no_grad():
        wanted = torch.sigmoid(model(batch)).numpy()
    assert full.predict(inputs) == pytest.approx(wanted, abs=1e-5)
    assert ranked.probability == pytest.approx(wanted, abs=0.03)
    assert wanted.std(axis=0).max() > 0.001
