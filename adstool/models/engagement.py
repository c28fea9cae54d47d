"""The heavy ranker: DCN-V2 crosses beside an MLP, over fields, numerics, content and history."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.models.embedding import FieldEmbedding, cosine, row_penalty
from adstool.models.inputs import Batch, InputSpec
from adstool.models.layers import CrossNet, HistoryPool, Mlp, PiecewiseLinear

POSITIONS = 64  # positions beyond share the last bias


@dataclass(frozen=True)
class EngagementConfig:
    """The sizes of an EngagementModel."""

    inputs: InputSpec
    embedding_dim: int = 16  # d of every categorical value
    cross_layers: int = 2  # DCN-V2 cross layers
    cross_rank: int = 0  # their matrices as products of two thin ones of this rank; 0: full matrices
    hidden: tuple[int, ...] = (128, 64)  # widths of the MLP
    dropout: float = 0.1  # after every hidden layer
    id_dropout: float = 0.5  # chance that an id is hidden in training: buckets learn, ids do not overfit
    content_width: int = 16  # width of the projections of the content vectors
    numeric_bins: int = 8  # quantile bins a numeric column; 0: numerics enter as they are only
    numeric_width: int = 32  # width of the layer over the bins
    history_used: int = 20  # most recent history entries that are read; 0: none
    embedding_penalty: float = 1e-3  # L2 on the embedding rows that a batch reads


class EngagementModel(nn.Module):
    """Logits of every action for (user, item) pairs."""

    def __init__(self, config: EngagementConfig) -> None:
        super().__init__()
        self.config = config
        spec = config.inputs
        dim = config.embedding_dim
        self.embedding = FieldEmbedding(spec, dim, config.history_used, config.id_dropout)
        width = self.embedding.fields * dim + len(spec.numeric)
        self.bins: PiecewiseLinear | None = None
        if config.numeric_bins and spec.numeric:
            self.bins = PiecewiseLinear(len(spec.numeric), config.numeric_bins, config.numeric_width)
            width += config.numeric_width
        self.with_content = spec.content_dim > 0
        if self.with_content:
            self.user_content = nn.Linear(spec.content_dim, config.content_width)
            self.item_content = nn.Linear(spec.content_dim, config.content_width)
            width += 3 * config.content_width + 1
        shared = [spec.field(spec.history_item), spec.field(spec.history_category)]
        self.candidate_fields = [field for field in shared if field >= 0]
        self.history: HistoryPool | None = None
        if self.embedding.history_used and self.candidate_fields:
            self.history = HistoryPool(dim, len(spec.actions), dim * len(self.candidate_fields))
            width += dim + 1
        self.cross = CrossNet(width, config.cross_layers, config.cross_rank) if config.cross_layers else None
        self.deep = Mlp(width, config.hidden, config.dropout)
        self.heads = nn.Linear((width if self.cross else 0) + self.deep.width, len(spec.actions))
        nn.init.normal_(self.heads.weight, std=0.01)
        nn.init.zeros_(self.heads.bias)
        self.position_bias = nn.Embedding(POSITIONS, len(spec.actions)) if spec.positions else None
        if self.position_bias is not None:
            nn.init.zeros_(self.position_bias.weight)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that `forward` reads, in the order of adstool.features.dataset.INPUTS."""
        names = ["categorical"] + (["numeric"] if self.config.inputs.numeric else [])
        names += ["item_content", "user_content"] if self.with_content else []
        if self.history is not None:
            names += [name for name, _ in self.embedding.history_fields] + ["history_action", "history_age"]
        return (*names, "position") if self.position_bias is not None else tuple(names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The action of every column of the logits."""
        return self.config.inputs.actions

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, A] of the batch's rows."""
        return self.with_penalty(batch)[0]

    def with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [B, A], and the L2 penalty of the fields' embeddings (a scalar) for the training loss."""
        fields, history = self.embedding(batch)
        parts = [fields.flatten(1)]
        if self.config.inputs.numeric:
            parts.append(batch["numeric"])
            if self.bins is not None:
                parts.append(self.bins(batch["numeric"]))
        if self.with_content:
            parts += self._content(batch["user_content"], batch["item_content"])
        if self.history is not None:
            used = self.embedding.history_used
            candidate = fields[:, self.candidate_fields].flatten(1)
            action, age = batch["history_action"][:, :used], batch["history_age"][:, :used]
            parts.append(self.history(history, action, age, candidate))
        x = torch.cat(parts, dim=1)
        deep = self.deep(x)
        logits: Tensor = self.heads(deep if self.cross is None else torch.cat([self.cross(x), deep], dim=1))
        if self.position_bias is not None:
            logits = logits + self._bias_of(batch["position"])
        return logits, row_penalty(fields, self.config.embedding_penalty)

    def _content(self, user: Tensor, item: Tensor) -> list[Tensor]:
        projected_user = self.user_content(user)
        projected_item = self.item_content(item)
        return [projected_user, projected_item, projected_user * projected_item, cosine(user, item)]

    def _bias_of(self, position: Tensor) -> Tensor:
        assert self.position_bias is not None
        # Position 1 is the reference: its bias is zero, and so is that of an unknown position (0), so that
        # serving at position 1 reads the model's logits as they are.
        place = position.clamp(0, POSITIONS - 1)
        biased: Tensor = self.position_bias(place)
        return biased * (place > 1).unsqueeze(1).to(biased.dtype)
