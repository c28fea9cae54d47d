"""Trunks and heads against loops and torch's own layers, and every one of them as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from models.specs import SPEC, stirred
from torch import nn

from adstool.errors import UsageError
from adstool.models.engagement import EngagementConfig, EngagementModel
from adstool.models.inputs import InputSpec, config_to_json
from adstool.models.multitask import SurfaceTowers, TaskHeads
from adstool.models.registry import build_model, load_model, save_model
from adstool.models.trunks import TRUNKS, DhenLayer, SelfAttention, TrunkConfig, WukongLayer, build_trunk
from adstool.serving.export import export_run, random_inputs
from adstool.serving.quantized_graph import Recipe, quantize_graph
from adstool.serving.scorer import Scorer

INT8 = Recipe("int8", "dynamic")

SMALL = TrunkConfig(tokens=4, token_dim=6, wukong_rank=3)
MMOE = {"multitask": "mmoe", "tower_hidden": (24,)}
EVERY = [{"trunk": name} for name in TRUNKS] + [
    {"trunk": "masknet", **MMOE},
    {"tower_hidden": (32,)},
    {"surface_towers": True},
    {"trunk": "wukong", "surface_towers": True, **MMOE},
    {"sequence": "transact", "trunk": "masknet"},
    {"sequence": "hstu"},
    {"sequence": "transact", "long_history": 3},
    {"sequence": "hstu", "long_history": 3},
]


def tokens(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, SMALL.tokens, SMALL.token_dim, generator=torch.Generator().manual_seed(1))


def ranker(spec: InputSpec = SPEC, **changes: object) -> EngagementModel:
    """A ranker all of whose weights matter: those that start at zero are moved."""
    torch.manual_seed(0)
    model = EngagementModel(EngagementConfig(spec, history_used=4, **changes)).eval()
    return stirred(model)


@pytest.mark.parametrize("changes", EVERY, ids=str)
def test_a_trunk_and_its_heads_are_served_as_trained(changes: dict[str, object], tmp_path: Path) -> None:
    model = ranker(**changes)
    assert build_model("engagement", config_to_json(model.config)).config == model.config
    save_model(tmp_path, "engagement", model, outputs=list(model.output_names))
    export_run(tmp_path)
    scorer = Scorer(tmp_path)
    again = load_model(tmp_path)
    for rows in (1, 257):
        inputs = random_inputs(SPEC, rows, 0, seed=rows, long_history=3)
        arrays = {name: value.numpy() for name, value in inputs.items()}
        with torch.no_grad():
            wanted = torch.sigmoid(model(inputs)).numpy()
            assert torch.equal(again(inputs), model(inputs))
        exact = scorer.predict(arrays)
        np.testing.assert_allclose(exact, wanted, atol=1e-5)
    assert exact.std(axis=0).min() > 0.01  # what is compared differs from row to row
    (tmp_path / "int8").mkdir()
    assert quantize_graph(tmp_path / "model.onnx", tmp_path / "int8" / "model.onnx", INT8).dense
    (tmp_path / "int8" / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    rounded = Scorer(tmp_path / "int8").predict(arrays)
    assert np.abs(rounded - exact).max() > 0
    assert np.abs(rounded - exact).mean() < 0.02


@pytest.mark.parametrize("changes", EVERY, ids=str)
def test_rows_of_a_batch_do_not_influence_each_other(changes: dict[str, object]) -> None:
    model = ranker(**changes)
    inputs = random_inputs(SPEC, 16, 4, seed=2, long_history=3)
    alone = model({name: value[5:6] for name, value in inputs.items()})
    torch.testing.assert_close(model(inputs)[5:6], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_is_as_wide_as_it_says_and_trains_all_of_its_weights(name: str) -> None:
    torch.manual_seed(0)
    trunk = build_trunk(name, 23, TrunkConfig(trunk=name, hidden=(12,)))
    x = torch.randn(40, 23)
    assert trunk(x).shape == (40, trunk.width)
    (trunk(x) ** 2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())


@pytest.mark.parametrize("name", sorted(TRUNKS))
def test_recomputing_keeps_less_and_gives_the_same_gradients(name: str) -> None:
    sizes = {"trunk": name, "hidden": (64, 64), "trunk_layers": 4, "dropout": 0.2, "cross_layers": 3}
    x = torch.randn(32, 40, generator=torch.Generator().manual_seed(0))
    kept: list[int] = []
    gradients = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[-1] += value.numel()
        return value

    for recompute in (False, True):
        torch.manual_seed(1)
        trunk = build_trunk(name, 40, TrunkConfig(**sizes, recompute=recompute))  # type: ignore[arg-type]
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            outcome = trunk(x)
        outcome.square().sum().backward()
        gradients.append([parameter.grad for parameter in trunk.parameters()])
    assert kept[1] < 0.6 * kept[0]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(SMALL), nn.MultiheadAttention(SMALL.token_dim, 1, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.project.weight,
            "in_proj_bias": ours.project.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    x = tokens()
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_a_dhen_layer_normalizes_the_sum_of_its_modules_and_the_projection() -> None:
    torch.manual_seed(0)
    layer, x = DhenLayer(SMALL), tokens()
    cross, mlp, attention = layer.parts
    flat = x.flatten(1)
    matrix = cross.network.layers[0]
    crossed = (flat * (flat @ matrix.weight.T + matrix.bias) + flat).view_as(x)
    total = crossed + mlp(x) + attention(x) + x @ layer.project.weight.T
    centred = total - total.mean(2, keepdim=True)
    wanted = centred / (total.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(layer(x), wanted)


def test_wukong_takes_the_product_of_every_pair_of_tokens() -> None:
    torch.manual_seed(0)
    layer, x = WukongLayer(SMALL), tokens(1)
    pairs = np.array([[float(x[0, i] @ x[0, j]) for j in range(4)] for i in range(4)])
    wanted = pairs @ layer.columns.weight.detach().numpy().T
    np.testing.assert_allclose(layer.products(x)[0].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for parameter in layer.mlp.parameters():
            parameter.zero_()
    mixed = torch.cat([torch.zeros(1, 2, 6), (layer.compress.weight @ x[0]).unsqueeze(0)], dim=1)
    torch.testing.assert_close(layer(x), nn.functional.layer_norm(mixed + x, (6,)))


def test_every_task_reads_its_own_mixture_of_experts() -> None:
    torch.manual_seed(0)
    heads = TaskHeads(5, 2, multitask="mmoe", experts=3, expert_hidden=(4,), tower_hidden=(3,))
    x = torch.randn(2, 5)
    assert heads.experts is not None
    assert heads.towers is not None
    gates = (x @ heads.experts.gates.weight.T + heads.experts.gates.bias).detach().numpy()
    for row in range(2):
        for task in range(2):
            weights = np.exp(gates[row, 3 * task : 3 * task + 3])
            outputs = [expert(x[row : row + 1]) for expert in heads.experts.experts]
            mixed = sum(float(w) * o for w, o in zip(weights / weights.sum(), outputs, strict=True))
            wanted = heads.towers[task](mixed) @ heads.weight[task] + heads.bias[task]
            torch.testing.assert_close(heads(x)[row, task], wanted[0])


def test_a_surface_has_its_own_tower_and_an_unseen_one_keeps_the_shared_logits() -> None:
    torch.manual_seed(0)
    towers = SurfaceTowers(5, 2, surfaces=6, unknown=2, width=4)
    x = torch.randn(6, 5)
    surface = torch.arange(6)
    assert not towers(x, surface).any()  # before training, no surface differs
    with torch.no_grad():
        towers.out.normal_()
        towers.bias.normal_()
    added = towers(x, surface)
    assert not added[:3].any()  # missing, and the two codes that unseen surfaces share
    for code in (3, 4, 5):
        part = slice(4 * (code - 3), 4 * (code - 2))
        inside = torch.relu(x[code] @ towers.inside.weight[part].T + towers.inside.bias[part])
        torch.testing.assert_close(added[code], inside @ towers.out[part] + towers.bias[code - 3])


def test_runs_from_before_there_were_trunks_load() -> None:
    model = ranker()
    state = {key.removeprefix("trunk."): value for key, value in model.state_dict().items()}
    assert "cross.layers.0.weight" in state
    again = EngagementModel(model.config).eval()
    again.load_state_dict(state)
    inputs = random_inputs(SPEC, 8, 4, seed=1)
    assert torch.equal(again(inputs), model(inputs))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"trunk": "dcn"}, "dcn"),
        ({"multitask": "ple"}, "ple"),
        ({"trunk": "dhen", "dhen_modules": ("cross", "fm")}, "fm"),
        ({"trunk": "dhen", "dhen_modules": ()}, "empty"),
        ({"trunk": "wukong", "tokens": 1}, "tokens"),
        ({"multitask": "mmoe", "experts": 0}, "expert"),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        ranker(**changes)


def test_surface_towers_need_a_surface() -> None:
    flat = InputSpec(("a",), ("context",), (7,), ("x",), ("context",), ("label",))
    with pytest.raises(UsageError, match="surface"):
        EngagementModel(EngagementConfig(flat, surface_towers=True))
