"""The loss of stage alignment against sorting, hand-worked numbers and the algebra of learned weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adstool.training.alignment import cut_loss, first, inside, neural_sort, standardised, weighed


def test_a_sharp_relaxed_sort_is_the_sort() -> None:
    scores = torch.tensor([[0.3, -1.0, 2.0, 0.9], [4.0, 3.0, 1.0, 2.0]])
    order = neural_sort(scores, tau=0.01)
    assert order.argmax(dim=2).tolist() == torch.argsort(-scores, dim=1).tolist()
    torch.testing.assert_close(order.sum(dim=2), torch.ones(2, 4))
    for depth in (1, 2, 4):
        torch.testing.assert_close(inside(order, depth), first(scores, depth).float(), atol=1e-4, rtol=0)


def test_a_relaxed_sort_worked_by_hand() -> None:
    # n = 2, s = (1, 0): sum_j |s_i - s_j| = (1, 1); rank 1 has (3 - 2) s = (1, 0), rank 2 has (-1, 0).
    order = neural_sort(torch.tensor([[1.0, 0.0]]), tau=2.0)
    sure = 1 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(order[0], [[sure, 1 - sure], [1 - sure, sure]], rtol=1e-6)
    np.testing.assert_allclose(inside(order, 1)[0], [sure, 1 - sure], rtol=1e-6)


def test_the_cut_is_lost_by_what_belongs_inside_and_is_not() -> None:
    chance = torch.tensor([[0.9, 0.2, 0.4]])
    wanted = torch.tensor([[True, True, False]])
    by_hand = -(np.log(0.9) + np.log(0.2) + np.log(0.6)) / 3
    assert float(cut_loss(chance, wanted)) == pytest.approx(by_hand)


def test_descent_lifts_what_the_next_stage_wants() -> None:
    torch.manual_seed(0)
    worth = torch.randn(8, 30)
    scores = torch.randn(8, 30, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        order = neural_sort(standardised(scores), tau=50.0)
        cut_loss(inside(order, 5), first(worth, 5)).backward()
        optimizer.step()
    assert (first(scores, 5) & first(worth, 5)).sum() > 36  # of 40; chance would give 7


def test_learned_weights_balance_the_parts() -> None:
    parts = [torch.tensor(4.0), torch.tensor(0.25)]
    log_weights = torch.zeros(2, requires_grad=True)
    assert float(weighed(parts, log_weights.detach())) == pytest.approx(0.5 * 4.25)
    optimizer = torch.optim.Adam([log_weights], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        weighed(parts, log_weights).backward()
        optimizer.step()
    # d/dw (.5 L / w^2 + ln w) = 0 where w^2 = L.
    np.testing.assert_allclose(np.exp(2 * log_weights.detach().numpy()), [4.0, 0.25], rtol=1e-2)
