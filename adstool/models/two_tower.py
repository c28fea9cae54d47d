"""Two towers that meet in a dot product: retrieval with one head, lightweight ranking with one an action."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.models.embedding import FieldEmbedding, row_penalty
from adstool.models.inputs import Batch
from adstool.models.layers import MaskBlock, Mlp
from adstool.models.pairs import PairConfig, PairModel, Side

MAX_LOG_SCALE = math.log(100.0)  # CLIP's clamp of the learned temperature (Radford et al. 2021, 2.5)


@dataclass(frozen=True)
class TwoTowerConfig(PairConfig):
    """The sizes of a TwoTower; `dim` is that of a head's vector."""

    mask_blocks: int = 0  # parallel MaskNet blocks before the MLP; 0: none
    mask_width: int = 64  # output of each MaskNet block
    initial_scale: float = 10.0  # temperature exp(t) at the start


class Tower(Side):
    """One side, through an MLP to unit vectors."""

    def __init__(self, config: TwoTowerConfig, embedding: FieldEmbedding, of: str) -> None:
        super().__init__(config, embedding, of)
        self.heads, self.dim = len(config.heads), config.dim
        self.masks = nn.ModuleList(
            MaskBlock(self.width, config.mask_width) for _ in range(config.mask_blocks)
        )
        inputs = config.mask_blocks * config.mask_width or self.width
        self.deep = Mlp(inputs, config.hidden, config.dropout)
        # The linear path beside the MLP keeps the towers trainable when the MLP is regularised hard.
        self.project = nn.Linear(self.deep.width + inputs, self.heads * self.dim)

    def forward(self, fields: Tensor, history: Tensor | None, batch: Batch) -> Tensor:
        """This side's fields [B, columns, d] and its other inputs -> unit vectors [B, H, dim]."""
        x = self.read(fields, history, batch)
        if len(self.masks):
            x = torch.cat([block(x) for block in self.masks], dim=1)
        vectors = self.project(torch.cat([self.deep(x), x], dim=1)).view(-1, self.heads, self.dim)
        return nn.functional.normalize(vectors, dim=2, eps=1e-6)


class TwoTower(PairModel):
    """logit_h = exp(t_h) * <u_h, a_h> + b_h, with t_h learned and at most ln 100."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__(config, [])
        self.user = Tower(config, self.embedding, "user")
        self.item = Tower(config, self.embedding, "item")
        self.log_scale = nn.Parameter(torch.full((len(config.heads),), math.log(config.initial_scale)))

    def scale(self) -> Tensor:
        """exp(t) of every head, [H]."""
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()

    def pair(self, user: Tensor, item: Tensor, cross: Tensor | None) -> Tensor:
        """Logits [B, H] of rows [B or 1, H * dim] and [B, H * dim]."""
        heads, dim = len(self.config.heads), self.config.dim
        products = (user.view(-1, heads, dim) * item.view(-1, heads, dim)).sum(dim=2)
        return products * self.scale() + self.bias

    def matched(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """All heads' vectors, the user's scaled: their product is the mean of exp(t_h) * <u_h, a_h>."""
        heads = len(self.config.heads)
        scaled = user.view(len(user), heads, -1) * self.scale().unsqueeze(1) / heads
        return scaled.flatten(1), item

    def encode_user(self, batch: Batch) -> Tensor:
        """Unit vectors [B, H, dim] of the users and contexts of the batch's rows."""
        return self.encode_user_with_penalty(batch)[0]

    def encode_item(self, batch: Batch) -> Tensor:
        """Unit vectors [B, H, dim] of the items of the batch's rows."""
        return self.encode_item_with_penalty(batch)[0]

    def encode_user_with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`encode_user`, and the L2 penalty of the fields' embeddings."""
        fields, history = self.embedding(batch, self.user.columns)
        return self.user(fields, history, batch), row_penalty(fields, self.config.embedding_penalty)

    def encode_item_with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`encode_item`, and the L2 penalty of the fields' embeddings."""
        fields, _ = self.embedding(batch, self.item.columns, with_history=False)
        return self.item(fields, None, batch), row_penalty(fields, self.config.embedding_penalty)
