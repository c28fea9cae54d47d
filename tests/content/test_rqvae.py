"""The RQ-VAE: what leaves it encodes as it does itself, and dead codes come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from content.test_semantic_ids import blobs

from adstool.content.codebooks import Codebooks
from adstool.content.rqvae import RqVae, RqVaeConfig, fit_rqvae
from adstool.content.semantic_quality import reconstruction, usage

QUICK = RqVaeConfig(latent=8, hidden=32, batch_size=128, steps=300)


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, Codebooks, list[dict[str, float]]]:
    points = blobs(500, clusters=12)
    return points, *fit_rqvae(points, [4, 8, 8], 0, QUICK)


def test_it_learns_and_all_codes_live(
    fitted: tuple[np.ndarray, Codebooks, list[dict[str, float]]],
) -> None:
    points, books, curve = fitted
    codes = books.encode(points).astype(np.int64)
    errors = [level["relative_mse"] for level in reconstruction(books, points, codes)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.4
    assert all(level["dead"] == 0 for level in usage(codes, books.sizes))
    assert books.sizes == (4, 8, 8)
    assert books.dim == 12
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]


def test_the_same_seed_gives_the_same_codebooks() -> None:
    points = blobs(200)
    quick = RqVaeConfig(latent=4, hidden=8, batch_size=64, steps=40)
    state = torch.random.get_rng_state()
    first, again = (fit_rqvae(points, [4, 4], 5, quick)[0] for _ in range(2))
    for one, other in zip(first.levels, again.levels, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.encode(points), again.encode(points))
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws have moved


def test_arrays_do_what_the_layers_do() -> None:
    torch.manual_seed(0)
    model = RqVae(12, QUICK)
    points = torch.from_numpy(blobs(50))
    from adstool.content.rqvae import _arrays

    books = Codebooks((np.zeros((2, 8), np.float32),), _arrays(model.encoder), _arrays(model.decoder), 1.0)
    with torch.no_grad():
        latent = model.encoder(points)
        decoded = model.decoder(torch.zeros(1, 8))
    np.testing.assert_allclose(books.latent(points.numpy()), latent.numpy(), atol=1e-5)
    np.testing.assert_allclose(books.decode(np.zeros((1, 1), dtype=int)), decoded.numpy(), atol=1e-5)


def test_quantizing_takes_the_nearest_code_of_each_level_and_commits_to_it() -> None:
    model = RqVae(2, QUICK)
    model.start([torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])], 10)
    total, commitment, codes, before = model.quantize(torch.tensor([[5.0, 0.5], [0.0, 1.0]]))
    assert [level.tolist() for level in codes] == [[1, 0], [0, 1]]
    assert total.tolist() == [[5.0, 0.0], [0.0, 1.0]]
    # |(1, .5)|^2 and |(0, 1)|^2 before the codes of level 2; |(0, .5)|^2 and 0 after them.
    assert float(commitment) == pytest.approx((1.25 + 1.0) / 2 + (0.25 + 0.0) / 2)
    assert before[1].tolist() == [[1.0, 0.5], [0.0, 1.0]]


def test_codebooks_are_moving_averages() -> None:
    model = RqVae(2, RqVaeConfig(latent=2, decay=0.9, dead_below=0.0))
    model.start([torch.tensor([[1.0, 1.0], [5.0, 5.0]])], 4)  # as if each stood for 2
    chosen, left = torch.tensor([0, 0, 0]), torch.tensor([[0.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
    assert model.follow([chosen], [left], torch.Generator()) == 0
    counts = 0.9 * 2 + 0.1 * 3
    sums = 0.9 * 2 + 0.1 * 3
    assert model.codebooks[0][0].tolist() == pytest.approx([sums / counts] * 2)
    assert model.codebooks[0][1].tolist() == pytest.approx([5.0, 5.0])


def test_a_dead_code_moves_into_the_data() -> None:
    model = RqVae(2, RqVaeConfig(latent=2, decay=0.5, dead_below=0.1))
    model.start([torch.tensor([[0.0, 0.0], [99.0, 99.0]])], 8)
    left = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    chosen = torch.zeros(8, dtype=torch.int64)
    died = [model.follow([chosen], [left], torch.Generator().manual_seed(2)) for _ in range(8)]
    # An even share is 4; halved at each step, the unused code falls below .4 at the fourth and is moved.
    assert died == [0, 0, 0, 1, 0, 0, 0, 1]
    assert any(torch.allclose(model.codebooks[0][1], row) for row in left)
