"""The conversion model: p(click) and p(conversion of each kind | click) over the heavy ranker's trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.models.engagement import POSITIONS, EngagementConfig, EngagementModel
from adstool.models.inputs import Batch
from adstool.models.layers import Mlp


@dataclass(frozen=True)
class ConversionConfig(EngagementConfig):
    """The sizes of a ConversionModel; `inputs.actions` are those of the histories, not its outputs."""

    outputs: tuple[str, ...] = ()  # served logits: click, then a kind of conversion each
    aside: tuple[str, ...] = ()  # outputs that only training reads: imputed labels, rates of delay
    tower: tuple[int, ...] = (32,)  # widths of each output's own layers over the shared trunk


class Towers(nn.Module):
    """An MLP of its own for every output: [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.towers = nn.ModuleList(Mlp(inputs, hidden, dropout) for _ in range(outputs))
        self.last = nn.ModuleList(nn.Linear(hidden[-1] if hidden else inputs, 1) for _ in range(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for layer in self.last:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """One logit an output."""
        logits = [last(tower(x)) for tower, last in zip(self.towers, self.last, strict=True)]
        return torch.cat(logits, dim=1) + self.bias


class ConversionModel(EngagementModel):
    """Logits of a click and, given a click, of each kind of conversion.

    p(click and conversion of kind k) = sigmoid(logit 0) * sigmoid(logit k): the entire-space decomposition of
    ESMM (Ma et al. 2018, eq. 1). Kinds do not exclude each other.
    """

    config: ConversionConfig

    def __init__(self, config: ConversionConfig) -> None:
        super().__init__(config)
        every = len(config.outputs) + len(config.aside)
        shared: nn.Module = self.heads
        assert isinstance(shared, nn.Linear)
        self.heads = Towers(shared.in_features, every, config.tower, config.dropout)  # type: ignore[assignment]
        if self.position_bias is not None:
            self.position_bias = nn.Embedding(POSITIONS, every)
            nn.init.zeros_(self.position_bias.weight)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The served outputs, in the order of the logits' columns."""
        return self.config.outputs

    def forward(self, batch: Batch) -> Tensor:
        """Served logits [B, 1 + K]."""
        return self.with_penalty(batch)[0][:, : len(self.config.outputs)]

    @torch.no_grad()
    def set_biases(self, rates: Tensor) -> None:
        """Start the first outputs at these probabilities."""
        assert isinstance(self.heads, Towers)
        self.heads.bias[: len(rates)] = torch.logit(rates.float())
