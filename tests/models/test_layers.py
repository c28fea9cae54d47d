"""Layers against hand-written numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adstool.models.layers import CrossNet, HistoryPool, MaskBlock, Mlp, PiecewiseLinear, quantile_edges


def weights(layer: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy().astype(np.float64)


def test_cross_layers_follow_the_paper() -> None:
    torch.manual_seed(0)
    net = CrossNet(5, 3)
    x0 = np.random.default_rng(0).normal(size=(7, 5))
    x = x0
    for layer in net.layers:
        w, b = weights(layer)
        x = x0 * (x @ w.T + b) + x
    got = net(torch.tensor(x0, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-5)


def test_cross_layers_of_low_rank() -> None:
    net = CrossNet(9, 1, rank=2)
    down, up = net.layers[0]
    x0 = np.random.default_rng(0).normal(size=(4, 9))
    w, b = weights(up)
    expected = x0 * (x0 @ down.weight.detach().numpy().T @ w.T + b) + x0
    got = net(torch.tensor(x0, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert isinstance(CrossNet(9, 1, rank=8).layers[0], torch.nn.Linear)  # as wide as the full matrix


def test_mask_block_follows_the_paper() -> None:
    torch.manual_seed(1)
    block = MaskBlock(6, 4)
    x = np.random.default_rng(1).normal(size=(3, 6))

    def norm(v: np.ndarray) -> np.ndarray:
        return (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5)

    w1, b1 = weights(block.mask[0])
    w2, b2 = weights(block.mask[2])
    mask = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
    w3, b3 = weights(block.project[0])
    expected = np.maximum(norm((norm(x) * mask) @ w3.T + b3), 0)
    got = block(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_bins_are_the_share_of_each_bin_below_the_value() -> None:
    layer = PiecewiseLinear(1, 3, 1)
    layer.set_edges(torch.tensor([[0.0, 1.0, 3.0, 3.0]]))  # the last bin has no width
    with torch.no_grad():
        layer.project.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        layer.project.bias.zero_()
    got = layer(torch.tensor([[-1.0], [0.5], [2.0], [9.0]])).squeeze(1).tolist()
    assert got == pytest.approx([0.0, 0.5, 6.0, 111.0], abs=1e-4)


def test_quantile_edges_are_numpys() -> None:
    values = np.random.default_rng(2).normal(size=(500, 3)).astype(np.float32)
    edges = quantile_edges(torch.from_numpy(values), 4).numpy()
    np.testing.assert_allclose(edges, np.quantile(values, np.linspace(0, 1, 5), axis=0).T, atol=1e-5)


def test_history_pool_is_a_softmax_with_an_empty_slot() -> None:
    torch.manual_seed(3)
    pool = HistoryPool(4, actions=2, query_inputs=3)
    rng = np.random.default_rng(3)
    tokens = rng.normal(size=(2, 3, 4)).astype(np.float32)
    action = np.array([[1, 2, 0], [2, 0, 0]])
    age = rng.random((2, 3)).astype(np.float32)
    query = rng.normal(size=(2, 3)).astype(np.float32)
    got = pool(torch.tensor(tokens), torch.tensor(action), torch.tensor(age), torch.tensor(query)).detach()
    w, b = weights(pool.query)
    table = pool.action.weight.detach().numpy()
    beta = np.log1p(np.exp(pool.decay.item()))
    for row in range(2):
        seen = [place for place in range(3) if action[row, place] > 0]
        q = w @ query[row] + b
        vectors = [tokens[row, p] + table[action[row, p]] for p in seen]
        scores = np.array([q @ v / 2.0 - beta * age[row, p] for p, v in zip(seen, vectors, strict=True)])
        share = np.exp(scores) / (1.0 + np.exp(scores).sum())
        pooled = sum(s * v for s, v in zip(share, vectors, strict=True))
        np.testing.assert_allclose(got[row, :4], pooled, rtol=1e-4, atol=1e-5)
        assert float(got[row, 4]) == pytest.approx(share.sum(), abs=1e-5)


def test_an_empty_history_pools_to_zeros() -> None:
    pool = HistoryPool(4, actions=2)
    nothing = pool(torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3))
    assert torch.equal(nothing, torch.zeros(2, 5))


def test_mlp_without_layers_is_the_identity() -> None:
    x = torch.randn(2, 3)
    net = Mlp(3, ())
    assert torch.equal(net(x), x)
    assert net.width == 3


def test_bins_of_a_run_of_before_are_turned() -> None:
    """Weights were once kept with the columns outside and the bins inside; the layer says the same."""
    layer, x = PiecewiseLinear(3, 4, 2), torch.randn(5, 3)
    low, inverse = torch.rand(3, 4), 1.0 + torch.rand(3, 4)
    before = {"low": low, "inverse_width": inverse}
    before |= {"project.weight": torch.randn(2, 12), "project.bias": torch.randn(2)}
    inside = ((x.unsqueeze(2) - low) * inverse).clamp(0.0, 1.0).flatten(1)
    wanted = inside @ before["project.weight"].T + before["project.bias"]
    layer.load_state_dict(before)
    torch.testing.assert_close(layer(x), wanted)
