"""IntTower: every layer of the user's side meets several vectors of the item (Li et al. 2022)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.models.embedding import FieldEmbedding
from adstool.models.inputs import Batch
from adstool.models.layers import LightSE
from adstool.models.pairs import PairConfig, PairModel, Side
from adstool.models.two_tower import MAX_LOG_SCALE


@dataclass(frozen=True)
class IntTowerConfig(PairConfig):
    """The sizes of an IntTower; `dim` is that of one vector, of which each side has several."""

    user_vectors: int = 2  # of every user layer and head
    item_vectors: int = 4  # of the item's last layer, for all heads
    initial_scale: float = 4.0  # temperature exp(t) at the start


class IntSide(Side):
    """One side, its fields weighed by a light squeeze-excitation, through hidden layers to unit vectors.

    The user's vectors come from its inputs and every hidden layer, the item's from its last layer.
    """

    def __init__(self, config: IntTowerConfig, embedding: FieldEmbedding, of: str) -> None:
        super().__init__(config, embedding, of)
        self.dim = config.dim
        self.squeeze = LightSE(len(self.columns))
        widths = [self.width, *config.hidden]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout))
            for before, after in itertools.pairwise(widths)
        )
        self.every = of == "user"
        vectors = len(config.heads) * config.user_vectors if self.every else config.item_vectors
        # The item's one projection also sees its inputs: the linear path of a Tower.
        read = widths if self.every else [widths[0] + widths[-1]]
        self.vectors = vectors * len(read)
        self.project = nn.ModuleList(nn.Linear(width, vectors * config.dim) for width in read)

    def forward(self, fields: Tensor, history: Tensor | None, batch: Batch) -> Tensor:
        """Unit vectors [B, n, dim]; the user's layer by layer, within a layer head by head."""
        x = self.read(self.squeeze(fields), history, batch)
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        if not self.every:
            states = [torch.cat([states[0], states[-1]], dim=1)]
        made = [project(state) for project, state in zip(self.project, states, strict=True)]
        vectors = torch.cat(made, dim=1).view(-1, self.vectors, self.dim)
        return nn.functional.normalize(vectors, dim=2, eps=1e-6)


class IntTower(PairModel):
    """logit_h = exp(t_h) * mean over layers l and vectors i of max_j <u_lhi, a_j> + b_h.

    The paper sums where this takes the mean; the learned temperature makes them the same.
    """

    def __init__(self, config: IntTowerConfig) -> None:
        super().__init__(config, [])
        self.user = IntSide(config, self.embedding, "user")
        self.item = IntSide(config, self.embedding, "item")
        self.log_scale = nn.Parameter(torch.full((len(config.heads),), math.log(config.initial_scale)))

    def pair(self, user: Tensor, item: Tensor, cross: Tensor | None) -> Tensor:
        """Logits [B, H] of rows [B or 1, layers * H * user_vectors * dim] and [B, item_vectors * dim]."""
        config = self.config
        heads, dim = len(config.heads), config.dim
        asked = user.view(len(user), -1, dim)
        shown = item.view(-1, config.item_vectors, dim)
        if len(user) == 1:  # one product of matrices for all candidates
            products = (shown.reshape(-1, dim) @ asked[0].T).view(-1, config.item_vectors, asked.shape[1])
        else:
            products = shown @ asked.transpose(1, 2)
        best = products.amax(dim=1).view(-1, len(config.hidden) + 1, heads, config.user_vectors)
        scale = self.log_scale.clamp(max=MAX_LOG_SCALE).exp()
        return best.mean(dim=(1, 3)) * scale + self.bias

    def matched(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """The scaled mean of the user's vectors and the mean of the item's: the contrastive regulariser's."""
        dim = self.config.dim
        scale = self.log_scale.clamp(max=MAX_LOG_SCALE).exp().mean()
        return user.view(len(user), -1, dim).mean(1) * scale, item.view(len(item), -1, dim).mean(1)
