"""What the models of pairs share: two sides that are computed apart and meet in a cheap last step.

A side's row does not depend on the other side, so rows of items are kept in the index, the user's is computed
once a request, and only `pair` is done for every candidate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adstool.models.embedding import FieldEmbedding, row_penalty
from adstool.models.inputs import ITEM_SIDES, USER_SIDES, Batch, InputSpec
from adstool.models.layers import HistoryPool


@dataclass(frozen=True)
class PairConfig:
    """The sizes that every model of pairs has."""

    inputs: InputSpec
    heads: tuple[str, ...] = ("engage",)  # the outputs
    dim: int = 32  # d of a vector of one side
    embedding_dim: int = 16  # d of every categorical value
    hidden: tuple[int, ...] = (128,)  # widths of both sides' MLPs
    dropout: float = 0.1  # after every hidden layer
    id_dropout: float = 0.5  # chance that an id is hidden in training: buckets learn, ids do not overfit
    content_width: int = 32  # width of the projections of the content vectors
    history_used: int = 20  # most recent history entries that are read; 0: none
    embedding_penalty: float = 1e-3  # L2 on the embedding rows that a batch reads
    loss_parts: int = 0  # parts of the loss whose weights are learned with the model; 0: none are


class Side(nn.Module):
    """One side's inputs as one vector [B, width]: field embeddings, numerics, content and history."""

    def __init__(self, config: PairConfig, embedding: FieldEmbedding, of: str) -> None:
        """of: user (with context and history) | item."""
        super().__init__()
        spec = config.inputs
        sides = USER_SIDES if of == "user" else ITEM_SIDES
        columns, numeric = spec.columns(sides), spec.numeric_columns(sides)
        self.columns: Tensor
        self.numeric: Tensor
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.register_buffer("numeric", torch.tensor(numeric, dtype=torch.int64), persistent=False)
        self.content_name = f"{of}_content"
        self.history_used = embedding.history_used
        self.content = nn.Linear(spec.content_dim, config.content_width) if spec.content_dim else None
        history = of == "user" and bool(embedding.history_fields)
        self.pool = HistoryPool(config.embedding_dim, len(spec.actions)) if history else None
        self.width = len(columns) * config.embedding_dim + len(numeric)
        self.width += config.content_width if self.content is not None else 0
        self.width += config.embedding_dim + 1 if history else 0
        self.inputs = ("categorical",) + (("numeric",) if numeric else ())
        self.inputs += (self.content_name,) if self.content is not None else ()
        if history:
            names = (name for name, _ in embedding.history_fields)
            self.inputs += (*names, "history_action", "history_age")

    def read(self, fields: Tensor, history: Tensor | None, batch: Batch) -> Tensor:
        """This side's fields [B, columns, d], the history's tokens and the batch -> [B, width]."""
        parts = [fields.flatten(1)]
        if len(self.numeric):
            parts.append(batch["numeric"].index_select(1, self.numeric))
        if self.content is not None:
            parts.append(self.content(batch[self.content_name]))
        if self.pool is not None and history is not None:
            used = self.history_used
            action, age = batch["history_action"][:, :used], batch["history_age"][:, :used]
            parts.append(self.pool(history, action, age))
        return torch.cat(parts, dim=1)


class PairModel(nn.Module, ABC):
    """Logits [B, H] of pairs from rows of users [B, U] and of items [B, V] and what belongs to both [B, K].

    A subclass has the modules `user` and `item` (Sides whose call gives rows) and the method `pair`.
    """

    user: Side
    item: Side
    cross: Tensor  # int64 [K], the columns of `numeric` that `pair` reads

    def __init__(self, config: PairConfig, cross: list[int]) -> None:
        super().__init__()
        self.config: Any = config
        self.embedding = FieldEmbedding(
            config.inputs, config.embedding_dim, config.history_used, config.id_dropout
        )
        self.bias = nn.Parameter(torch.zeros(len(config.heads)))
        if config.loss_parts:
            self.log_weights = nn.Parameter(torch.zeros(config.loss_parts))
        self.register_buffer("cross", torch.tensor(cross, dtype=torch.int64), persistent=False)

    @abstractmethod
    def pair(self, user: Tensor, item: Tensor, cross: Tensor | None) -> Tensor:
        """Logits [B, H] of rows user [B or 1, U], item [B, V] and cross [B, K] (None where K = 0)."""

    @abstractmethod
    def matched(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows, vectors [B, D] and [C, D] whose products say who fits what, for the in-batch softmax."""

    @property
    def user_inputs(self) -> tuple[str, ...]:
        """The inputs that `user_row` reads."""
        return self.user.inputs

    @property
    def item_inputs(self) -> tuple[str, ...]:
        """The inputs that `item_row` reads."""
        return self.item.inputs

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that a pair needs."""
        crossing = ("numeric",) if len(self.cross) else ()
        return tuple(dict.fromkeys((*self.user_inputs, *self.item_inputs, *crossing)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The heads, in the order of the logits' columns."""
        return tuple(self.config.heads)

    def user_row(self, batch: Batch) -> Tensor:
        """Rows [B, U] of the users and contexts of a batch."""
        fields, history = self.embedding(batch, self.user.columns)
        row: Tensor = self.user(fields, history, batch)
        return row.flatten(1)

    def item_row(self, batch: Batch) -> Tensor:
        """Rows [B, V] of the items of a batch."""
        fields, _ = self.embedding(batch, self.item.columns, with_history=False)
        row: Tensor = self.item(fields, None, batch)
        return row.flatten(1)

    def crossed(self, batch: Batch) -> Tensor | None:
        """What `pair` reads of the pairs of a batch, [B, K]; None where it reads nothing."""
        return batch["numeric"].index_select(1, self.cross) if len(self.cross) else None

    def with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits [B, H], the L2 penalty of the embeddings, and the rows of both sides, by one lookup."""
        fields, history = self.embedding(batch)
        user = self.user(fields.index_select(1, self.user.columns), history, batch).flatten(1)
        item = self.item(fields.index_select(1, self.item.columns), None, batch).flatten(1)
        penalty = row_penalty(fields, self.config.embedding_penalty)
        return self.pair(user, item, self.crossed(batch)), penalty, user, item

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, H] of the batch's pairs."""
        return self.with_penalty(batch)[0]
