"""An interaction net for thousands of candidates, after COLD (Wang et al. 2020): a small MLP over pairs.

What a layer over [user, item, user * item, cross] makes of the user is added up once a request and what it
makes of the item is kept in the index, so a candidate costs the products with user * item and cross alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.errors import UsageError
from adstool.features.cross import cross_columns
from adstool.models.embedding import FieldEmbedding
from adstool.models.inputs import Batch
from adstool.models.layers import LightSE, Mlp
from adstool.models.pairs import PairConfig, PairModel, Side


@dataclass(frozen=True)
class ColdConfig(PairConfig):
    """The sizes of a Cold; `dim` is that of the vectors that are multiplied."""

    pair_hidden: tuple[int, ...] = (16,)  # widths of the layers over a pair
    # features.cross.GROUPS that are read. By tests/bench/lightweight.py regret with `category` alone is what
    # it is with five groups, at a sixth of their time.
    cross: tuple[str, ...] = ("category",)


class ColdSide(Side):
    """One side: a vector to multiply, its part of the first layer over pairs, and its part of the logits."""

    def __init__(self, config: ColdConfig, embedding: FieldEmbedding, of: str) -> None:
        super().__init__(config, embedding, of)
        self.squeeze = LightSE(len(self.columns))
        self.deep = Mlp(self.width, config.hidden, config.dropout)
        outputs = config.dim + config.pair_hidden[0] + len(config.heads)
        self.project = nn.Linear(self.deep.width + self.width, outputs)

    def forward(self, fields: Tensor, history: Tensor | None, batch: Batch) -> Tensor:
        """Rows [B, dim + pair_hidden[0] + H]."""
        x = self.read(self.squeeze(fields), history, batch)
        row: Tensor = self.project(torch.cat([self.deep(x), x], dim=1))
        return row


class Cold(PairModel):
    """logits = W_L MLP(ReLU(p_u + p_a + W [u * a, x])) + V [u * a, x] + q_u + q_a + b.

    (u, p_u, q_u) is the user's row, (a, p_a, q_a) the item's, x the cross features.
    """

    def __init__(self, config: ColdConfig) -> None:
        super().__init__(config, cross_columns(config.inputs.numeric, config.cross))
        if not config.pair_hidden:
            raise UsageError("--set pair_hidden is empty.", "Try --set pair_hidden=32.")
        self.user = ColdSide(config, self.embedding, "user")
        self.item = ColdSide(config, self.embedding, "item")
        heads, first = len(config.heads), config.pair_hidden[0]
        read = config.dim + len(self.cross)
        self.both = nn.Linear(read, first + heads, bias=False)
        self.deep = Mlp(first, config.pair_hidden[1:])
        self.out = nn.Linear(self.deep.width, heads, bias=False)

    def pair(self, user: Tensor, item: Tensor, cross: Tensor | None) -> Tensor:
        """Logits [B, H] of rows [B or 1, dim + first + H] and [B, dim + first + H] and cross [B, K]."""
        dim, first = self.config.dim, self.config.pair_hidden[0]
        product = user[:, :dim] * item[:, :dim]
        read = product if cross is None else torch.cat([product, cross], dim=1)
        made = self.both(read) + item[:, dim:] + user[:, dim:]
        hidden = torch.relu(made[:, :first])
        logits: Tensor = self.out(self.deep(hidden)) + made[:, first:] + self.bias
        return logits

    def matched(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors that are multiplied, weighed as the first head's direct path weighs them."""
        dim, first = self.config.dim, self.config.pair_hidden[0]
        return user[:, :dim] * self.both.weight[first, :dim], item[:, :dim]
