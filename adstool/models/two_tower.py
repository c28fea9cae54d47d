"""Two towers that meet in a dot product: retrieval with one head, lightweight ranking with one an action."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.models.embedding import FieldEmbedding, row_penalty
from adstool.models.inputs import ITEM_SIDES, USER_SIDES, Batch, InputSpec
from adstool.models.layers import HistoryPool, MaskBlock, Mlp

MAX_LOG_SCALE = math.log(100.0)  # CLIP's clamp of the learned temperature (Radford et al. 2021, 2.5)


@dataclass(frozen=True)
class TwoTowerConfig:
    """The sizes of a TwoTower."""

    inputs: InputSpec
    heads: tuple[str, ...] = ("engage",)  # one vector of `dim` each
    dim: int = 32  # d of a head's vector
    embedding_dim: int = 16  # d of every categorical value
    hidden: tuple[int, ...] = (128,)  # widths of both towers' MLPs
    mask_blocks: int = 0  # parallel MaskNet blocks before the MLP; 0: none
    mask_width: int = 64  # output of each MaskNet block
    dropout: float = 0.1  # after every hidden layer
    id_dropout: float = 0.5  # chance that an id is hidden in training: buckets learn, ids do not overfit
    content_width: int = 32  # width of the projections of the content vectors
    history_used: int = 20  # most recent history entries that are read; 0: none
    embedding_penalty: float = 1e-3  # L2 on the embedding rows that a batch reads
    initial_scale: float = 10.0  # temperature exp(t) at the start


class Tower(nn.Module):
    """One side: field embeddings, numerics, content and history, through an MLP to unit vectors."""

    def __init__(self, config: TwoTowerConfig, columns: list[int], numeric: list[int], history: bool) -> None:
        super().__init__()
        spec = config.inputs
        self.columns: Tensor
        self.numeric: Tensor
        self.heads = len(config.heads)
        self.dim = config.dim
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.register_buffer("numeric", torch.tensor(numeric, dtype=torch.int64), persistent=False)
        self.has_numeric = bool(numeric)
        width = len(columns) * config.embedding_dim + len(numeric)
        self.content = nn.Linear(spec.content_dim, config.content_width) if spec.content_dim else None
        width += config.content_width if self.content is not None else 0
        self.pool = HistoryPool(config.embedding_dim, len(spec.actions)) if history else None
        width += config.embedding_dim + 1 if history else 0
        self.masks = nn.ModuleList(MaskBlock(width, config.mask_width) for _ in range(config.mask_blocks))
        inputs = config.mask_blocks * config.mask_width or width
        self.deep = Mlp(inputs, config.hidden, config.dropout)
        # The linear path beside the MLP keeps the towers trainable when the MLP is regularised hard.
        self.project = nn.Linear(self.deep.width + inputs, self.heads * self.dim)

    def forward(
        self, fields: Tensor, numeric: Tensor | None, content: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """This side's fields [B, columns, d] and its other inputs -> unit vectors [B, H, dim]."""
        parts = [fields.flatten(1)]
        if self.has_numeric:
            assert numeric is not None
            parts.append(numeric.index_select(1, self.numeric))
        if self.content is not None:
            assert content is not None
            parts.append(self.content(content))
        if pooled is not None:
            parts.append(pooled)
        x = torch.cat(parts, dim=1)
        if len(self.masks):
            x = torch.cat([block(x) for block in self.masks], dim=1)
        vectors = self.project(torch.cat([self.deep(x), x], dim=1)).view(-1, self.heads, self.dim)
        return nn.functional.normalize(vectors, dim=2, eps=1e-6)


class TwoTower(nn.Module):
    """logit_h = exp(t_h) * <u_h, a_h> + b_h, with t_h learned and at most ln 100."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        spec = config.inputs
        self.embedding = FieldEmbedding(spec, config.embedding_dim, config.history_used, config.id_dropout)
        has_history = bool(self.embedding.history_fields)
        user, item = spec.columns(USER_SIDES), spec.columns(ITEM_SIDES)
        self.user = Tower(config, user, spec.numeric_columns(USER_SIDES), has_history)
        self.item = Tower(config, item, spec.numeric_columns(ITEM_SIDES), False)
        self.log_scale = nn.Parameter(torch.full((len(config.heads),), math.log(config.initial_scale)))
        self.bias = nn.Parameter(torch.zeros(len(config.heads)))

    @property
    def user_inputs(self) -> tuple[str, ...]:
        """The inputs that `encode_user` reads."""
        names = ["categorical"] + (["numeric"] if self.user.has_numeric else [])
        names += ["user_content"] if self.user.content is not None else []
        if self.user.pool is not None:
            names += [name for name, _ in self.embedding.history_fields] + ["history_action", "history_age"]
        return tuple(names)

    @property
    def item_inputs(self) -> tuple[str, ...]:
        """The inputs that `encode_item` reads."""
        names = ["categorical"] + (["numeric"] if self.item.has_numeric else [])
        return (*names, "item_content") if self.item.content is not None else tuple(names)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that both towers together read."""
        return tuple(dict.fromkeys((*self.user_inputs, *self.item_inputs)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The head of every vector."""
        return self.config.heads

    def scale(self) -> Tensor:
        """exp(t) of every head, [H]."""
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()

    def encode_user(self, batch: Batch) -> Tensor:
        """Unit vectors [B, H, dim] of the users and contexts of the batch's rows."""
        return self._user(batch)[0]

    def encode_item(self, batch: Batch) -> Tensor:
        """Unit vectors [B, H, dim] of the items of the batch's rows."""
        return self._item(batch)[0]

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, H] of the batch's (user, item) pairs."""
        return self.with_penalty(batch)[0]

    def with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits [B, H], the L2 penalty of the fields' embeddings, user and item vectors [B, H, dim].

        Both towers read their rows in one lookup.
        """
        fields, history = self.embedding(batch)
        user_fields = fields.index_select(1, self.user.columns)
        item_fields = fields.index_select(1, self.item.columns)
        pooled = self._pool(history, batch)
        user = self.user(user_fields, batch.get("numeric"), batch.get("user_content"), pooled)
        item = self.item(item_fields, batch.get("numeric"), batch.get("item_content"), None)
        logits = (user * item).sum(dim=2) * self.scale() + self.bias
        return logits, row_penalty(fields, self.config.embedding_penalty), user, item

    def encode_user_with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`encode_user`, and the L2 penalty of the fields' embeddings."""
        return self._user(batch)

    def encode_item_with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`encode_item`, and the L2 penalty of the fields' embeddings."""
        return self._item(batch)

    def _user(self, batch: Batch) -> tuple[Tensor, Tensor]:
        fields, history = self.embedding(batch, self.user.columns)
        pooled = self._pool(history, batch)
        vectors = self.user(fields, batch.get("numeric"), batch.get("user_content"), pooled)
        return vectors, row_penalty(fields, self.config.embedding_penalty)

    def _item(self, batch: Batch) -> tuple[Tensor, Tensor]:
        fields, _ = self.embedding(batch, self.item.columns, with_history=False)
        vectors = self.item(fields, batch.get("numeric"), batch.get("item_content"), None)
        return vectors, row_penalty(fields, self.config.embedding_penalty)

    def _pool(self, history: Tensor | None, batch: Batch) -> Tensor | None:
        if self.user.pool is None or history is None:
            return None
        used = self.embedding.history_used
        pooled: Tensor = self.user.pool(
            history, batch["history_action"][:, :used], batch["history_age"][:, :used]
        )
        return pooled
