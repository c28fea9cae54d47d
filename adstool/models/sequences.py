"""Encoders of a user's history for the ranker: what happened, in order, read with the candidate in view.

An encoder is a row of ENCODERS. It reads histories [U, L, .], newest first, and candidates [B, e], and
returns [B, width]. U is B in training; serving gives one history for all candidates of a request (U = 1), and
what does not depend on the candidate is then computed once.

None is the default: on the logs measured so far (tests/bench/sequences.py) neither beats the mean weighted by
the candidate, which the ranker has anyway, and its counters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adstool.errors import UsageError, choose

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
    long_history: int = 0  # events of the whole history nearest to the candidate that are read too; 0: none
    time_mask_hours: float = 1.0  # training hides events newer than U(0, this) before the request; 0: none


class Events(NamedTuple):
    """Events of n histories, newest first: items [n, K, e], actions [n, K] (0: none), ages in ln(1 + h)."""

    items: Tensor
    action: Tensor
    age: Tensor


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
    """What was done and how long ago: the sum of a vector of the action and of one of the age."""

    def __init__(self, actions: int, width: int) -> None:
        super().__init__()
        self.action = nn.Embedding(actions + 1, width)
        nn.init.normal_(self.action.weight, std=0.5)
        self.age = nn.Linear(AGES, width, bias=False)

    def forward(self, events: Events) -> Tensor:
        """-> [n, K, e]."""
        vectors: Tensor = self.action(events.action) + self.age(hats(events.age, AGES))
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

    def forward(self, history: Events, candidate: Tensor, near: Events | None = None) -> Tensor:
        """history [U, L], candidate [B, e], near [B, n] -> [B, width]; zeros where there are no events.

        The events near to the candidate are tokens behind those of the history.
        """
        rows, first = candidate.shape[0], self.layers[0]
        assert isinstance(first, EncoderLayer)
        user, hidden = self._tokens(history), history.action == 0
        weight, own = first.project.weight[:, : user.shape[2]], first.project.weight[:, user.shape[2] :]
        projected = torch.matmul(user, weight.T)
        if near is not None:
            nearest = self._tokens(near)
            user = torch.cat([user.expand(rows, -1, -1), nearest], dim=1)
            projected = torch.cat([projected.expand(rows, -1, -1), torch.matmul(nearest, weight.T)], dim=1)
            hidden = torch.cat([hidden.expand(rows, -1), near.action == 0], dim=1)
        projected = projected + (torch.matmul(candidate, own.T) + first.project.bias).unsqueeze(1)
        repeated = candidate.unsqueeze(1).expand(-1, user.shape[1], -1)
        x = torch.cat([user.expand(rows, -1, -1), repeated], dim=2)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, EncoderLayer)
            x = layer(x, layer.project(x) if index else projected, hidden)
        empty = hidden.unsqueeze(2)
        largest = x.masked_fill(empty, HIDDEN).amax(dim=1)
        largest = largest.masked_fill(hidden.all(dim=1, keepdim=True), 0.0)
        newest = x.masked_fill(empty, 0.0)[:, : self.latest].flatten(1)
        encoded: Tensor = self.dropout(torch.cat([self.pool(largest), newest], dim=1))
        return encoded

    def _tokens(self, events: Events) -> Tensor:
        return torch.cat([self.event(events), events.items], dim=2)


class Seen(NamedTuple):
    """Events as HSTU's candidates look at them."""

    tokens: Tensor  # [n, K, d]
    knots: Tensor  # [n, K, AGES], of their ages
    present: Tensor  # [n, K], 1 or 0


class HstuLayer(nn.Module):
    """A layer of HSTU (Zhai et al. 2024, eq. 1-3) for a history and candidates that do not see each other.

    U, V, Q, K = split(SiLU(W1 LN(X))); A = SiLU(Q K^T + bias of distance + bias of time) / N, where an event
    sees itself and older ones, a candidate itself and all events; Y = W2(LN(A V) * U) + X. What a candidate
    becomes depends on the history and itself alone, and the history does not depend on any candidate.
    """

    def __init__(self, width: int, heads: int, length: int, near: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size = heads, length + near + 1
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

    def read(self, candidate: Tensor, history: Seen, near: Seen | None) -> Tensor:
        """Candidates [B, 1, d] after they looked at the history, at the events near to them and at
        themselves."""
        gate, value, query, key = self.split(candidate)
        own = (query * key).sum(dim=3, keepdim=True) + self.distance[:, None, :1]
        seen = nn.functional.silu(own) / self.size * value + self._look(query, history, self.distance[:, 1:])
        if near is not None:
            seen = seen + self._look(query, near, self.distance[:, :1])
        return self.close(candidate, seen, gate)

    def _look(self, query: Tensor, events: Seen, distance: Tensor) -> Tensor:
        """A V of candidates [B, heads, 1, .] for events at these distances [heads, K or 1]."""
        _, value, _, key = self.split(events.tokens)
        bias = self.time(events.knots).transpose(1, 2).unsqueeze(2) + distance.unsqueeze(1)
        weights = nn.functional.silu(torch.matmul(query, key.transpose(2, 3)) + bias)
        return torch.matmul(weights * events.present[:, None, None] / self.size, value)

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
            HstuLayer(width, config.sequence_heads, length, config.long_history, dropout)
            for _ in range(config.sequence_layers)
        )
        self.older: Tensor  # newest first, so an event sees what is to its right
        self.register_buffer("older", torch.ones(length, length).triu(), persistent=False)
        self.normalize = nn.LayerNorm(width)
        self.width = width

    def forward(self, history: Events, candidate: Tensor, near: Events | None = None) -> Tensor:
        """history [U, L], candidate [B, e], near [B, n] -> [B, e]."""
        past, close = self._seen(history), self._seen(near) if near is not None else None
        x = (candidate + self.event.weight[0]).unsqueeze(1)
        hours = torch.exp(history.age)
        apart = torch.log1p((hours.unsqueeze(1) - hours.unsqueeze(2)).clamp_min(0.0))  # [i, j]: j before i
        between = hats(apart, AGES)
        mask = self.older * past.present.unsqueeze(1)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, HstuLayer)
            x = layer.read(x, past, close)
            if index + 1 < len(self.layers):
                past = past._replace(tokens=layer.remember(past.tokens, between, mask))
        encoded: Tensor = self.normalize(x.flatten(1))
        return encoded

    def _seen(self, events: Events) -> Seen:
        present = (events.action > 0).to(events.items.dtype)
        return Seen(events.items + self.event(events.action), hats(events.age, AGES), present)


def _check_heads(heads: int, width: int) -> None:
    if heads < 1 or width % heads:
        raise UsageError(
            f"--set sequence_heads={heads} does not divide the tokens' width {width}.",
            "Give a divisor, such as 2.",
        )


# (actions, history length, config, dropout) -> an encoder with `width`.
Encoder = TransAct | Hstu
ENCODERS: dict[str, Callable[[int, int, SequenceConfig, float], Encoder]] = {
    "transact": TransAct,
    "hstu": Hstu,
}


def build_sequence(actions: int, length: int, config: SequenceConfig, dropout: float) -> Encoder | None:
    """The encoder that `config` names, None for none. Raises UsageError for an unknown name or no history."""
    name = config.sequence
    if name == "none" and config.long_history:
        raise UsageError(
            "--set long_history needs an encoder that reads it.", "Add one: --set sequence=transact"
        )
    if name == "none":
        return None
    if name not in ENCODERS:
        raise UsageError(f"There is no sequence encoder '{name}'.", choose(name, ("none", *ENCODERS)))
    if not length:
        raise UsageError(
            f"--set sequence={name} reads histories, and there are none to read.",
            "Give history_used at least 1, on logged impressions; flat tables have no histories.",
        )
    for key, least in (("time_mask_hours", 0), ("long_history", 0), ("sequence_layers", 1)):
        if getattr(config, key) < least:
            raise UsageError(
                f"--set {key}={getattr(config, key)} is too small.", f"Give a number from {least}."
            )
    return ENCODERS[name](actions, length, config, dropout)
