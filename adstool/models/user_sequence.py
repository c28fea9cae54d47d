"""The user's vector from what he engaged with, in order: PinnerFormer's idea at the size of a laptop.

A decayed mean of the items' embeddings, its decay learned, through a matrix that starts as the identity, and,
if asked for, what causal attention adds to that. The same table embeds what was engaged with and what is
looked for: started from item-to-item similarity, the model is near that baseline before any training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_LOG_SCALE = math.log(100.0)  # CLIP's clamp of the learned temperature (Radford et al. 2021, 2.5)


@dataclass(frozen=True)
class UserSequenceConfig:
    """The sizes of a UserSequence."""

    items: int  # codes 0 .. items - 1; 0 is the padding behind the end
    dim: int = 64  # d of an embedding
    length: int = 50  # most recent engagements that are read
    ordered: bool = True  # False: a plain mean, which does not know what came last
    layers: int = 0  # of causal attention beside the mean
    heads: int = 2
    dropout: float = 0.3  # of the numbers of an embedding
    event_dropout: float = 0.2  # of whole engagements
    initial_decay: float = 0.35  # of the weight, e^-0.35 = .7 an engagement
    initial_scale: float = 10.0  # temperature exp(t) at the start


class CausalBlock(nn.Module):
    """Pre-norm attention over what came before, with a learned bias by distance, and an MLP.

    Both start as nothing, so that the input passes unchanged.
    """

    def __init__(self, config: UserSequenceConfig) -> None:
        super().__init__()
        width = config.dim
        self.heads, self.dropout = config.heads, config.dropout
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.LayerNorm(width)
        self.deep = nn.Linear(width, 2 * width)
        self.deep_out = nn.Linear(2 * width, width)
        self.distance = nn.Parameter(torch.zeros(config.heads, config.length))
        for layer in (self.out, self.deep_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]; position t sees positions 0 .. t."""
        batch, length, width = x.shape
        apart = distances(length, x.device)
        bias = self.distance[:, apart.clamp_min(0)].masked_fill(apart < 0, -1e9)
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropped = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropped)
        seen = self.out(seen.transpose(1, 2).reshape(batch, length, width))
        x = x + functional.dropout(seen, self.dropout, self.training)
        deep = self.deep_out(functional.gelu(self.deep(self.after(x))))
        return x + functional.dropout(deep, self.dropout, self.training)


class UserSequence(nn.Module):
    """logit = exp(t) · ⟨h, e_a⟩ + b_a: h after every engagement, e_a and b_a rows of the tables."""

    def __init__(self, config: UserSequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.items, config.dim, sparse=True)
        nn.init.normal_(self.table.weight, std=config.dim**-0.5)
        self.bias = nn.Embedding(config.items, 1, sparse=True)
        nn.init.zeros_(self.bias.weight)
        self.project = nn.Linear(config.dim, config.dim, bias=False)
        nn.init.eye_(self.project.weight)
        self.decay = nn.Parameter(torch.tensor(config.initial_decay), requires_grad=config.ordered)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.layers))
        self.share = nn.Parameter(torch.tensor(0.1), requires_grad=config.layers > 0)  # of attention
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.initial_scale)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """What a product of vectors stands for."""
        return ("engage",)

    def scale(self) -> Tensor:
        """exp(t), a scalar."""
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()

    def states(self, items: Tensor, row: Tensor, place: Tensor) -> Tensor:
        """Codes int64 [B, T], oldest first and zeros behind the end -> h [n, d]: what the engagements of row
        row[i] up to place place[i] tell."""
        there = (items > 0).unsqueeze(-1).float()
        if self.training and self.config.event_dropout > 0:
            there = there * (torch.rand_like(there) >= self.config.event_dropout)
        tokens = functional.dropout(self.table(items), self.config.dropout, self.training) * there
        apart = distances(items.shape[1], items.device)
        rate = self.decay.clamp_min(0.0) if self.config.ordered else torch.zeros_like(self.decay)
        weight = torch.exp(-rate * apart.clamp_min(0).float()).masked_fill(apart < 0, 0.0)
        mean = (weight @ tokens) / (weight @ there).clamp_min(1e-6)
        state: Tensor = self.project(mean[row, place])
        if len(self.blocks):
            x = tokens * math.sqrt(self.config.dim)
            for block in self.blocks:
                x = block(x)
            seen = functional.layer_norm(x[row, place], (self.config.dim,))
            state = state + self.share * seen / math.sqrt(self.config.dim)
        return state

    def logits(self, states: Tensor, codes: Tensor) -> Tensor:
        """States [n, d] and codes [m] -> [n, m]."""
        scores: Tensor = states @ self.table(codes).T * self.scale() + self.bias(codes).T
        return scores

    def user_vectors(self, items: Tensor) -> Tensor:
        """Codes [B, T] as `states` reads them -> [B, d + 1]: the newest state times exp(t), and 1."""
        newest = (items > 0).sum(dim=1).clamp_min(1) - 1
        rows = torch.arange(items.shape[0], device=items.device)
        state = self.states(items, rows, newest) * self.scale()
        return torch.cat([state, torch.ones_like(state[:, :1])], dim=1)

    def item_vectors(self, codes: Tensor) -> Tensor:
        """Codes [n] -> [n, d + 1]: embedding and bias, whose product with a user's vector is the logit."""
        return torch.cat([self.table(codes), self.bias(codes)], dim=1)


def distances(length: int, device: torch.device) -> Tensor:
    """How many places column j lies before row i, int64 [length, length]; negative behind it."""
    place = torch.arange(length, device=device)
    return place[:, None] - place[None, :]
