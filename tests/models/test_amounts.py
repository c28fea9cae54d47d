"""Heads of amounts: at the minimum of each loss the expected amount is the mean that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adstool.models.amounts import LOSSES, AmountHeads


def minimised(loss: str, amounts: torch.Tensor, logits: torch.Tensor) -> float:
    """What a head that sees nothing but ones expects once its loss is least."""
    heads = AmountHeads(1, [0], [loss])
    x, weight = torch.ones(len(amounts), 1), torch.ones(len(amounts))
    optimizer = torch.optim.LBFGS(heads.parameters(), max_iter=200, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = heads.loss(x, amounts[:, None], weight)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        expected: torch.Tensor = heads(x, logits[:, None])
    return float(expected[0, 0])


def test_every_loss_has_its_mean_at_the_minimum() -> None:
    rng = np.random.default_rng(0)
    happened = rng.random(20_000) < 0.2
    durations = np.where(happened, rng.lognormal(1.0, 0.8, 20_000), 0.0)
    y = torch.from_numpy(durations.astype(np.float32))
    rate = torch.full((len(y),), float(torch.logit(torch.tensor(happened.mean()))))
    assert minimised("poisson", y, rate) == pytest.approx(durations.mean(), rel=1e-3)
    # Odds of the weighted logistic regression: the amounts over the rows where nothing happened.
    assert minimised("weighted", y, rate) == pytest.approx(durations.sum() / (~happened).sum(), rel=1e-3)
    logs = np.log(durations[happened])
    lognormal = happened.mean() * np.exp(logs.mean() + logs.var() / 2)
    assert minimised("lognormal", y, rate) == pytest.approx(lognormal, rel=1e-3)
    assert lognormal == pytest.approx(durations.mean(), rel=0.05)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_not_known_teaches_nothing(loss: str) -> None:
    heads = AmountHeads(2, [1], [loss])
    heads.typical.fill_(3.0)
    x, weight = torch.randn(5, 2), torch.ones(5)
    amounts = torch.tensor([[2.0], [0.0], [float("nan")], [7.0], [float("nan")]])
    gradients = []
    for seen in (x, torch.where(torch.isnan(amounts), 100.0, x)):
        heads.zero_grad()
        heads.loss(seen, amounts, weight).backward()  # type: ignore[no-untyped-call]
        gradients.append(heads.linear.weight.grad.clone())  # type: ignore[union-attr]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_heads_start_at_the_mean_of_all_impressions(loss: str) -> None:
    rng = np.random.default_rng(1)
    happened = rng.random(5000) < 0.3
    y = np.where(happened, rng.lognormal(2.0, 0.4, 5000), 0.0)
    seen = np.where(rng.random(5000) < 0.1, np.nan, y)
    heads = AmountHeads(3, [0, 1], [loss, loss])
    heads.start_from(torch.from_numpy(np.stack([seen, np.zeros(5000)], axis=1).astype(np.float32)))
    torch.nn.init.zeros_(heads.linear.weight)
    logits = torch.full((1, 2), float(np.log(0.3 / 0.7)))
    with torch.no_grad():
        expected = heads(torch.randn(1, 3), logits) * heads.typical
    wanted = y.mean() / (1 - happened.mean()) if loss == "weighted" else y.mean()
    assert float(expected[0, 0]) == pytest.approx(wanted, rel=0.08)
    assert heads.typical.tolist() == [pytest.approx(np.nanmean(seen[happened]), rel=1e-4), 1.0]
