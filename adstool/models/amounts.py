"""Heads of how much, for actions that are counted or timed: the expected amount of an impression."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

LOSSES = ("lognormal", "weighted", "poisson")
LARGEST = 12.0  # of the log of an amount in typical ones: e^12 is beyond any, and finite


class AmountHeads(nn.Module):
    """E[amount | impression] of V actions, in typical amounts (the mean of training where it happened).

    `lognormal`: ln amount given that it happened is normal with mean a(x) and a learned deviation s, so that
    E = p(happened) exp(a + s^2 / 2). `weighted`: logistic regression with positives weighted by the amount,
    whose odds exp(a) are the expected amount where it happens seldom (Covington et al. 2016, section 4.2).
    `poisson`: exp(a) is the expected count of an impression.
    """

    def __init__(self, inputs: int, columns: Sequence[int], losses: Sequence[str]) -> None:
        """columns: of the logits and labels, the actions that have an amount; losses: one of LOSSES each."""
        super().__init__()
        self.columns, self.losses = list(columns), tuple(losses)
        self.linear = nn.Linear(inputs, len(self.columns))
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.log_deviation = nn.Parameter(torch.zeros(len(self.columns)))
        self.typical: Tensor
        self.register_buffer("typical", torch.ones(len(self.columns)))

    @torch.no_grad()
    def start_from(self, amounts: Tensor) -> None:
        """Start at what can be said of every impression alike; amounts [N, V] of training, nan not known."""
        for place, loss in enumerate(self.losses):
            y = amounts[:, place]
            y = y[~torch.isnan(y)]
            there = y[y > 0]
            if not len(there):
                continue
            self.typical[place] = there.mean()
            logs = torch.log(there / there.mean())
            if loss == "lognormal":
                self.linear.bias[place] = logs.mean()
                self.log_deviation[place] = torch.log(logs.std(correction=0).clamp_min(0.05))
            else:
                rows = len(y) if loss == "poisson" else max(len(y) - len(there), 1)
                self.linear.bias[place] = math.log(len(there) / rows)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """x [B, inputs] and the logits of all actions [B, A] -> expected typical amounts [B, V]."""
        a = self.linear(x).float()
        expected = []
        for place, (column, loss) in enumerate(zip(self.columns, self.losses, strict=True)):
            exponent = a[:, place]
            if loss == "lognormal":
                exponent = exponent + torch.exp(2.0 * self.log_deviation[place]) / 2.0
                exponent = exponent + functional.logsigmoid(logits[:, column].float())
            expected.append(torch.exp(exponent.clamp(-LARGEST, LARGEST)))
        return torch.stack(expected, dim=1)

    def loss(self, x: Tensor, amounts: Tensor, weight: Tensor) -> Tensor:
        """The losses summed over actions and averaged over rows. amounts [B, V] as logged, nan where not
        known; weight [B]."""
        a = self.linear(x).float()
        total = a.new_zeros(())
        for place, loss in enumerate(self.losses):
            known = ~torch.isnan(amounts[:, place])
            y = torch.where(known, amounts[:, place], 0.0) / self.typical[place]
            rows = self._row_loss(loss, a[:, place], y, self.log_deviation[place])
            total = total + (rows * known * weight).sum()
        mean: Tensor = total / weight.sum().clamp_min(1e-6)
        return mean

    @staticmethod
    def _row_loss(loss: str, a: Tensor, y: Tensor, log_deviation: Tensor) -> Tensor:
        if loss == "poisson":
            return torch.exp(a.clamp(max=LARGEST)) - y * a
        if loss == "weighted":
            return torch.where(y > 0, y * functional.softplus(-a), functional.softplus(a))
        apart = (torch.log(y.clamp_min(1e-6)) - a) * torch.exp(-log_deviation)
        return torch.where(y > 0, 0.5 * apart.square() + log_deviation, 0.0)
