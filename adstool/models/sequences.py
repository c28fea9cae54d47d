"""Encoders of a user's history for the ranker: what happened, in order, read with the candidate in view.

An encoder is a row of ENCODERS. It reads histories [U, L, .], newest first, and candidates [B, e], and
returns [B, width]. U is B in training; serving gives one history for all candidates of a request (U = 1), and
what does not depend on the candidate is then computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adstool.errors import UsageError

AGES = 9  # knots of the age encoding, at ln(1 + hours) = 0, 1 .. 8: the last is four months
HIDDEN = -1e9  # the score of what must not be attended to


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """The sizes of the sequence encoders; a model's config inherits them."""

    sequence: str = "none"  # none | transact | hstu: what reads the history beside its weighted mean
    sequence_dim: int = 32  # e, the width of an item in a sequence
    sequence_layers: int = 2
    sequence_heads: int = 2
    sequence_hidden: int = 32  # transact: width of the feed-forward layers
    sequence_latest: int = 10  # transact: newest tokens that the trunk reads one by one
    time_mask_hours: float = 1.0  # training hides events newer than U(0, this) before the request; 0: none


class ItemTokens(nn.Module):
    """Vectors of items for a sequence, by the same weights in the history and as candidate.

    An item is its rows of the field tables and its content vector, so an item nobody has seen has the vector
    of its category, of a shared id and of what it shows.
    """

    def __init__(self, field_dim: int, content_dim: int, width: int) -> None:
        super().__init__()
        self.fields = nn.Linear(field_dim, width)
        self.content = nn.Linear(content_dim, width, bias=False) if content_dim else None
        self.normalize = nn.LayerNorm(width)

    def forward(self, fields: Tensor, content: Tensor | None) -> Tensor:
        """Summed rows [..., field_dim] and content vectors [..., content_dim] -> [..., width]."""
        vectors = self.fields(fields)
        if self.content is not None:
            assert content is not None
            vectors = vectors + self.content(content)
        normalized: Tensor = self.normalize(vectors)
        return normalized


def hats(x: Tensor, knots: int) -> Tensor:
    """The weights of the knots 0 .. knots - 1 in a linear interpolation at x: [...] -> [..., knots].

    Continuous in x, unlike buckets: rounding in another runtime cannot move an event to another bucket.
    """
    places = torch.arange(knots, device=x.device, dtype=x.dtype)
    return (1.0 - (x.clamp(0.0, knots - 1.0).unsqueeze(-1) - places).abs()).clamp_min(0.0)


class EventTokens(nn.Module):
    """What was done and how long ago: the sum of a vector of the action and of one of the age, [U, L, e]."""

    def __init__(self, actions: int, width: int) -> None:
        super().__init__()
        self.action = nn.Embedding(actions + 1, width)
        nn.init.normal_(self.action.weight, std=0.5)
        self.age = nn.Linear(AGES, width, bias=False)

    def forward(self, action: Tensor, age: Tensor) -> Tensor:
        """action [U, L] (0: padding), age [U, L] in ln(1 + hours)."""
        vectors: Tensor = self.action(action) + self.age(hats(age, AGES))
        return vectors


class EncoderLayer(nn.Module):
    """A transformer layer with its norms behind (Vaswani et al. 2017): x = LN(x + attention), LN(x + MLP)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, projected: Tensor, hidden: Tensor) -> Tensor:
        """x [B, L, d], its projection [B, L, 3 d], hidden [U, L] true where nobody may look -> [B, L, d]."""
        rows, length, width = x.shape
        shape = (rows, length, self.heads, width // self.heads)
        query, key, value = (part.reshape(shape).transpose(1, 2) for part in projected.chunk(3, dim=2))
        scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[3] ** -0.5  # [B, heads, L, L]
        weights = torch.softmax(scores.masked_fill(hidden[:, None, None], HIDDEN), dim=3)
        seen = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        x = self.first(x + self.output(seen))
        result: Tensor = self.second(x + self.mlp(x))
        return result


class TransAct(nn.Module):
    """TransAct (Xia et al. 2023, section 3.3): a transformer over tokens [action; item; candidate].

    Its output is a linear map of the maximum over all tokens beside the newest tokens one by one. The
    candidate is in every token, so attention runs for each candidate; the first layer's projection is split,
    and its share of action and item is computed once for all candidates of a request.
    """

    def __init__(self, actions: int, length: int, config: SequenceConfig, dropout: float) -> None:
        super().__init__()
        width = 3 * config.sequence_dim
        _check_heads(config.sequence_heads, width)
        self.event = EventTokens(actions, config.sequence_dim)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.sequence_heads, config.sequence_hidden)
            for _ in range(config.sequence_layers)
        )
        self.latest = min(config.sequence_latest, length)
        self.pool = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.width = width * (1 + self.latest)

    def forward(self, items: Tensor, action: Tensor, age: Tensor, candidate: Tensor) -> Tensor:
        """items [U, L, e], action and age [U, L], candidate [B, e] -> [B, width]; zeros without events."""
        hidden = action == 0
        user = torch.cat([self.event(action, age), items], dim=2)
        rows, length = candidate.shape[0], user.shape[1]
        x = torch.cat([user.expand(rows, -1, -1), candidate.unsqueeze(1).expand(-1, length, -1)], dim=2)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, EncoderLayer)
            projected = layer.project(x) if index else _split_projection(layer.project, user, candidate)
            x = layer(x, projected, hidden)
        empty = hidden.unsqueeze(2)
        largest = x.masked_fill(empty, HIDDEN).amax(dim=1)
        largest = largest.masked_fill(hidden.all(dim=1, keepdim=True), 0.0)
        newest = x.masked_fill(empty, 0.0)[:, : self.latest].flatten(1)
        encoded: Tensor = self.dropout(torch.cat([self.pool(largest), newest], dim=1))
        return encoded


class HstuLayer(nn.Module):
    """A layer of HSTU (Zhai et al. 2024, eq. 1-3) for a history and candidates that do not see each other.

    U, V, Q, K = split(SiLU(W1 LN(X))); A = SiLU(Q K^T + bias of distance + bias of time) / N, where an event
    sees itself and older ones, a candidate itself and all events; Y = W2(LN(A V) * U) + X. What a candidate
    becomes depends on the history and itself alone, and the history does not depend on any candidate.
    """

    def __init__(self, width: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size = heads, length + 1
        self.normalize, self.inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 4 * width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.distance = nn.Parameter(torch.zeros(heads, length + 1))  # of an event from who looks at it
        self.time = nn.Linear(AGES, heads, bias=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x [n, T, d] -> U [n, T, d], and V, Q, K [n, heads, T, d / heads]."""
        gate, *rest = nn.functional.silu(self.project(self.normalize(x))).chunk(4, dim=2)
        n, length, width = x.shape
        shape = (n, length, self.heads, width // self.heads)
        value, query, key = (part.reshape(shape).transpose(1, 2) for part in rest)
        return gate, value, query, key

    def close(self, x: Tensor, seen: Tensor, gate: Tensor) -> Tensor:
        """W2(LN(A V) * U) + X from A V [n, heads, T, d / heads]."""
        joined = self.inner(seen.transpose(1, 2).flatten(2)) * gate
        result: Tensor = x + self.dropout(self.output(joined))
        return result

    def read(self, candidate: Tensor, history: Tensor, knots: Tensor, present: Tensor) -> Tensor:
        """Candidates [B, 1, d] after they looked at the history [U, L, d] and at themselves."""
        gate, value, query, key = self.split(candidate)
        _, values, _, keys = self.split(history)
        bias = self.time(knots).transpose(1, 2).unsqueeze(2) + self.distance[:, None, 1:]  # [U, heads, 1, L]
        scores = torch.matmul(query, keys.transpose(2, 3)) + bias
        weights = nn.functional.silu(scores) * present[:, None, None] / self.size
        own = (query * key).sum(dim=3, keepdim=True) + self.distance[:, None, :1]
        seen = torch.matmul(weights, values) + nn.functional.silu(own) / self.size * value
        return self.close(candidate, seen, gate)

    def remember(self, history: Tensor, between: Tensor, mask: Tensor) -> Tensor:
        """The history [U, L, d] after each event looked at itself and at older ones.

        between: knots [U, L, L, AGES] of the time between two events. mask [U, L, L]: who may see whom.
        """
        gate, value, query, key = self.split(history)
        places = torch.arange(history.shape[1], device=history.device)
        distance = self.distance[:, (places - places.unsqueeze(1)).clamp_min(0)]  # [heads, L, L]
        bias = self.time(between).permute(0, 3, 1, 2) + distance
        weights = nn.functional.silu(torch.matmul(query, key.transpose(2, 3)) + bias)
        seen = torch.matmul(weights * mask.unsqueeze(1) / self.size, value)
        return self.close(history, seen, gate)


class Hstu(nn.Module):
    """HSTU as a ranker: tokens item + action of the history, and the candidate as one more token each.

    The history passes all layers but the last once for all candidates of a request; a candidate costs one
    token a layer.
    """

    def __init__(self, actions: int, length: int, config: SequenceConfig, dropout: float) -> None:
        super().__init__()
        width = config.sequence_dim
        _check_heads(config.sequence_heads, width)
        self.event = nn.Embedding(actions + 1, width)  # 0: the candidate, of which nothing is known yet
        nn.init.normal_(self.event.weight, std=0.5)
        self.layers = nn.ModuleList(
            HstuLayer(width, config.sequence_heads, length, dropout) for _ in range(config.sequence_layers)
        )
        self.older: Tensor  # newest first, so an event sees what is to its right
        self.register_buffer("older", torch.ones(length, length).triu(), persistent=False)
        self.normalize = nn.LayerNorm(width)
        self.width = width

    def forward(self, items: Tensor, action: Tensor, age: Tensor, candidate: Tensor) -> Tensor:
        """items [U, L, e], action and age [U, L], candidate [B, e] -> [B, e]."""
        present = (action > 0).to(items.dtype)
        history = items + self.event(action)
        x = (candidate + self.event.weight[0]).unsqueeze(1)
        knots = hats(age, AGES)
        hours = torch.exp(age)
        apart = torch.log1p((hours.unsqueeze(1) - hours.unsqueeze(2)).clamp_min(0.0))  # [i, j]: j before i
        between = hats(apart, AGES)
        mask = self.older * present.unsqueeze(1)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, HstuLayer)
            x = layer.read(x, history, knots, present)
            if index + 1 < len(self.layers):
                history = layer.remember(history, between, mask)
        encoded: Tensor = self.normalize(x.flatten(1))
        return encoded


def _check_heads(heads: int, width: int) -> None:
    if heads < 1 or width % heads:
        raise UsageError(f"sequence_heads={heads} does not divide the tokens' width {width}.", "Try 2.")


def _split_projection(project: nn.Linear, user: Tensor, candidate: Tensor) -> Tensor:
    """project([user; candidate]) with the user's share made once: [U, L, m], [B, n] -> [B, L, outputs]."""
    shared, own = project.weight[:, : user.shape[2]], project.weight[:, user.shape[2] :]
    return torch.matmul(user, shared.T) + (torch.matmul(candidate, own.T) + project.bias).unsqueeze(1)


# (actions, history length, config, dropout) -> an encoder with `width`.
Encoder = TransAct | Hstu
ENCODERS: dict[str, Callable[[int, int, SequenceConfig, float], Encoder]] = {
    "transact": TransAct,
    "hstu": Hstu,
}


def build_sequence(
    actions: int, length: int, config: SequenceConfig, dropout: float
) -> TransAct | Hstu | None:
    """The encoder that `config` names, None for none. Raises UsageError for an unknown name or no history."""
    name = config.sequence
    if name == "none":
        return None
    if name not in ENCODERS:
        raise UsageError(f"There is no sequence encoder '{name}'.", f"Known: none, {', '.join(ENCODERS)}.")
    if not length:
        raise UsageError(
            f"sequence={name} reads histories, and there are none to read.",
            "Give history_used at least 1, on logged impressions; flat tables have no histories.",
        )
    if config.time_mask_hours < 0:
        raise UsageError(f"time_mask_hours is {config.time_mask_hours}.", "Give hours from 0.")
    return ENCODERS[name](actions, length, config, dropout)
