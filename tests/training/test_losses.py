"""Losses: masking, and the sign and size of the log-q correction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from adstool.training.losses import (
    group_softmax,
    inclusion_log_q,
    keep_out_log,
    masked_bce,
    same_user_hits,
    sampled_softmax,
)


def test_masked_labels_give_no_loss_and_no_gradient() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.2, 0.4]], requires_grad=True)
    labels = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    weight = torch.tensor([1.0, 3.0])
    loss = masked_bce(logits, labels, weight)

    def bce(z: float, y: float) -> float:
        return float(np.log1p(np.exp(-z)) if y else np.log1p(np.exp(z)))

    assert loss.item() == pytest.approx((bce(0.3, 1) + 3 * bce(1.2, 0) + 3 * bce(0.4, 1)) / 4)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
    assert torch.isfinite(logits.grad).all()


def test_focal_loss_by_hand() -> None:
    logits, labels = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    p = 1 / (1 + np.exp(-2.0))
    expected = (0.25 * np.log(2) + (1 - p) ** 2 * -np.log(p)) / 2
    assert masked_bce(logits, labels, torch.ones(2), gamma=2.0).item() == pytest.approx(expected, rel=1e-5)


def test_log_q_is_the_chance_of_being_drawn() -> None:
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.15, 0.05])
    hits = np.zeros(4)
    for _ in range(20_000):
        drawn = np.r_[rng.choice(4, size=3, p=share), rng.integers(0, 4, 1)]
        hits[np.unique(drawn)] += 1
    log_q = inclusion_log_q(torch.tensor(share), drawn=3, uniform=1, items=4)
    np.testing.assert_allclose(np.exp(log_q.numpy()), hits / 20_000, atol=0.01)


def test_uniform_sampling_of_everything_is_the_full_softmax() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(8, 20), torch.randint(0, 20, (8,))
    certain = torch.zeros(20)  # every item is always a candidate: ln 1
    full = functional.cross_entropy(logits, target)
    torch.testing.assert_close(sampled_softmax(logits, target, certain), full)
    torch.testing.assert_close(sampled_softmax(logits, target, certain - 2.0), full)  # any uniform q


def test_the_corrected_sum_estimates_the_full_sum() -> None:
    # With the wrong sign the estimate would be far off, and so it is without the correction.
    rng = np.random.default_rng(1)
    scores, share = rng.normal(size=30), rng.dirichlet(np.ones(30) * 0.5)
    full = np.exp(scores).sum()
    estimates = []
    for _ in range(4000):
        candidates = np.unique(np.r_[rng.choice(30, 10, p=share), rng.integers(0, 30, 6)])
        log_q = inclusion_log_q(torch.tensor(share[candidates]), 10, 6, 30).numpy()
        estimates.append(np.exp(scores[candidates] - log_q).sum())
    assert np.mean(estimates) == pytest.approx(full, rel=0.02)


def test_the_chance_of_candidates_that_are_drawn_in_two_ways() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8))
    drawn = [np.unique(np.r_[rng.choice(8, 3, p=one), rng.choice(8, 2, p=two)]) for _ in range(20_000)]
    seen = np.bincount(np.concatenate(drawn), minlength=8) / 20_000
    log_q = inclusion_log_q(torch.tensor(one), 3, 0, 8, keep_out_log(torch.tensor(two), 2))
    np.testing.assert_allclose(log_q.exp().numpy(), seen, atol=0.01)


def test_a_group_is_as_probable_as_its_candidates_together() -> None:
    rng = np.random.default_rng(3)
    logits, log_q, group = rng.normal(size=(2, 5)), rng.normal(size=5), np.array([4, 7, 4, 9, 7])
    shares = np.exp(logits - log_q) / np.exp(logits - log_q).sum(axis=1, keepdims=True)
    wanted = -(np.log(shares[0, [0, 2]].sum()) + np.log(shares[1, 3])) / 2
    found = group_softmax(
        torch.tensor(logits), torch.tensor([2, 3]), torch.tensor(log_q), torch.tensor(group)
    )
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_popular_items_are_not_pushed_down_by_being_sampled_more() -> None:
    """Positives drawn 8:1 from two items liked equally by those who see them: s should tell the log ratio."""
    torch.manual_seed(0)
    share = torch.tensor([8 / 9, 1 / 9])
    learned = {}
    for corrected in (True, False):
        scores = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([scores], lr=0.05)
        for _ in range(250):
            target = torch.multinomial(share, 4, replacement=True)
            items, place = torch.unique(target, return_inverse=True)
            log_q = inclusion_log_q(share[items], 4, 0, 2) if corrected else torch.zeros(len(items))
            loss = sampled_softmax(scores[items].expand(4, -1), place, log_q)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        learned[corrected] = (scores[0] - scores[1]).item()
    # A softmax over both items has its optimum at ln 8; leaving q out, the rare item is seldom a candidate
    # and the popular one nearly always, which must not lower the popular one's score below it.
    assert learned[True] == pytest.approx(np.log(8), abs=0.6)
    assert learned[True] > learned[False]


def test_hits_of_the_same_user_are_hidden_but_never_the_target() -> None:
    users = torch.tensor([1, 2, 1, 1])
    target = torch.tensor([0, 1, 2, 0])
    hidden = same_user_hits(users, target, 4)
    assert hidden.tolist() == [
        [False, False, True, False],
        [False, False, False, False],
        [True, False, False, False],
        [False, False, True, False],
    ]
    logits = torch.zeros(4, 4)
    loss = sampled_softmax(logits, target, torch.zeros(4), hidden)
    assert loss.item() == pytest.approx((3 * np.log(3) + np.log(4)) / 4, rel=1e-5)
