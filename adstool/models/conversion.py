"""The conversion model: p(click) and p(conversion of each kind | click) over the heavy ranker's trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adstool.errors import UsageError
from adstool.models.engagement import POSITIONS, EngagementConfig, EngagementModel
from adstool.models.inputs import Batch
from adstool.models.multitask import TaskHeads


@dataclass(frozen=True)
class ConversionConfig(EngagementConfig):
    """The sizes of a ConversionModel; `inputs.actions` are those of the histories, not its outputs."""

    outputs: tuple[str, ...] = ()  # served logits: click, then a kind of conversion each
    aside: tuple[str, ...] = ()  # outputs that only training reads: imputed labels, rates of delay
    tower_hidden: tuple[int, ...] = (32,)  # widths of each output's own tower over the shared trunk


class ConversionHeads(TaskHeads):
    """The served outputs as TaskHeads has them, then those aside, a linear layer over the trunk.

    What is aside does not teach the trunk: delays of conversions made it worse at telling who converts.
    """

    def __init__(self, inputs: int, tasks: int, aside: int, **sizes: Any) -> None:
        super().__init__(inputs, tasks, **sizes)
        self.aside = nn.Linear(inputs, aside) if aside else None
        if self.aside is not None:
            nn.init.normal_(self.aside.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, tasks + aside]."""
        served = super().forward(x)
        return served if self.aside is None else torch.cat([served, self.aside(x.detach())], dim=1)


class ConversionModel(EngagementModel):
    """Logits of a click and, given a click, of each kind of conversion.

    p(click and conversion of kind k) = sigmoid(logit 0) * sigmoid(logit k): the entire-space decomposition of
    ESMM (Ma et al. 2018, eq. 1). Kinds do not exclude each other. Raises UsageError without a kind, or with
    surface_towers, which are the engagement ranker's.
    """

    config: ConversionConfig

    def __init__(self, config: ConversionConfig) -> None:
        if len(config.outputs) < 2:
            raise UsageError(
                f"The log has no kind of conversion to predict beside {config.outputs}.",
                "Ingest conversions, or mend conversion.kinds.",
            )
        if config.surface_towers:
            raise UsageError(
                "--set surface_towers=true is not of the conversion model.", "Leave out surface_towers."
            )
        super().__init__(config)
        if self.position_bias is not None:
            self.position_bias = nn.Embedding(POSITIONS, len(config.outputs) + len(config.aside))
            nn.init.zeros_(self.position_bias.weight)

    def _build_amounts(self, inputs: int) -> None:
        """None: how much users engage is the engagement ranker's."""

    def served(self, batch: Batch) -> Tensor:
        """Probabilities [B, 1 + K] of a click, and of each kind given a click."""
        return torch.sigmoid(self(batch))

    def _build_heads(self, inputs: int) -> TaskHeads:
        config = self.config
        return ConversionHeads(
            inputs,
            len(config.outputs),
            len(config.aside),
            multitask=config.multitask,
            experts=config.experts,
            expert_hidden=config.expert_hidden,
            tower_hidden=config.tower_hidden,
            dropout=config.dropout,
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """The served outputs, in the order of the logits' columns."""
        return self.config.outputs

    def forward(self, batch: Batch) -> Tensor:
        """Served logits [B, 1 + K]."""
        return self.with_penalty(batch)[0][:, : len(self.config.outputs)]

    @torch.no_grad()
    def set_biases(self, rates: Tensor) -> None:
        """Start all outputs, those aside included, at these probabilities, each within (0, 1)."""
        served = len(self.config.outputs)
        logits = torch.logit(rates.float())
        self.heads.bias.copy_(logits[:served])
        aside = self.heads.aside
        if isinstance(aside, nn.Linear):
            aside.bias.copy_(logits[served:])
