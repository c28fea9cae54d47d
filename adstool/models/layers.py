"""The layers that the rankers and towers are built from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Mlp(nn.Sequential):
    """Linear, optional LayerNorm, ReLU and dropout for every width: [B, inputs] -> [B, hidden[-1]]."""

    def __init__(self, inputs: int, hidden: Sequence[int], dropout: float = 0.0, norm: bool = False) -> None:
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(nn.Linear(inputs, width))
            if norm:
                layers.append(nn.LayerNorm(width))
            layers.append(nn.ReLU())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            inputs = width
        super().__init__(*layers)
        self.width = inputs


class CrossNet(nn.Module):
    """The cross network of DCN-V2 (Wang et al. 2021, eq. 1): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l.

    With a rank, W_l = U_l V_l (eq. 2 without experts).
    """

    def __init__(self, width: int, layers: int, rank: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_linear(width, rank) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        """[B, width] -> [B, width]."""
        cross = _AddProduct.apply if torch.is_grad_enabled() else torch.addcmul
        x = x0
        for layer in self.layers:
            x = cross(x, x0, layer(x))
        return x


class _AddProduct(torch.autograd.Function):
    """torch.addcmul, whose own gradient also multiplies each product by its factor of 1: 3 % of a step."""

    @staticmethod
    def forward(context: Any, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """x + left * right."""
        context.save_for_backward(left, right)
        return torch.addcmul(x, left, right.to(x.dtype))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, left and right."""
        left, right = context.saved_tensors
        (gradient,) = gradients
        return gradient, gradient * right, (gradient * left).to(right.dtype)


def _linear(width: int, rank: int) -> nn.Module:
    if not 0 < rank < width // 2:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))


class MaskBlock(nn.Module):
    """One block of a parallel MaskNet (Wang et al. 2021, eq. 5-8): ReLU(LN(W (LN(x) * mask(x)))).

    The mask is instance-guided: a two-layer network of the same input, wider inside by `expansion`.
    """

    def __init__(self, inputs: int, outputs: int, expansion: float = 0.5) -> None:
        super().__init__()
        inside = max(int(inputs * expansion), 8)
        self.normalize = nn.LayerNorm(inputs)
        self.mask = nn.Sequential(nn.Linear(inputs, inside), nn.ReLU(), nn.Linear(inside, inputs))
        self.project = nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        projected: Tensor = self.project(self.normalize(x) * self.mask(x))
        return projected


class LightSE(nn.Module):
    """Light squeeze-excitation over fields (Li et al. 2022, IntTower): E' = E + softmax(W mean_d(E)) * E."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(fields, fields)

    def forward(self, fields: Tensor) -> Tensor:
        """[B, F, d] -> [B, F, d]."""
        weight = torch.softmax(self.weigh(fields.mean(dim=2)), dim=1)
        return fields * (1.0 + weight.unsqueeze(2))


class PiecewiseLinear(nn.Module):
    """Numeric columns as positions within the quantile bins of training, then one dense layer.

    x becomes clip((x - lo_t) / (hi_t - lo_t), 0, 1) for each bin t (Gorishniy et al. 2022, eq. 1): what a
    tree gets from its thresholds, a network gets from these. The edges are stored with the weights.
    """

    def __init__(self, columns: int, bins: int, outputs: int) -> None:
        super().__init__()
        self.lower: Tensor  # [bins, columns]: ONNX Runtime is fast where the last axis is the long one
        self.steepness: Tensor  # [bins, columns], 1 / (hi - lo)
        self.bins = bins
        edges = torch.linspace(-2.0, 2.0, bins + 1).unsqueeze(1).repeat(1, columns)
        self.register_buffer("lower", edges[:-1].clone())
        self.register_buffer("steepness", 1.0 / (edges[1:] - edges[:-1]))
        self.project = nn.Linear(columns * bins, outputs)
        self.project.weight.data = _bins_outside(self.project.weight.data, bins)
        self.register_load_state_dict_pre_hook(_turn_bins)  # type: ignore[no-untyped-call]

    def set_edges(self, edges: Tensor) -> None:
        """Take quantile edges [columns, bins + 1]; bins of no width switch from 0 to 1 at their edge."""
        widths = (edges[:, 1:] - edges[:, :-1]).clamp_min(1e-3)
        self.lower.copy_(edges[:, :-1].T)
        self.steepness.copy_(1.0 / widths.T)

    def forward(self, x: Tensor) -> Tensor:
        """[B, columns] -> [B, outputs]."""
        inside = ((x.unsqueeze(1) - self.lower) * self.steepness).clamp(0.0, 1.0)
        projected: Tensor = self.project(inside.flatten(1))
        return projected


def _bins_outside(weight: Tensor, bins: int) -> Tensor:
    """Weights [outputs, columns * bins] for inputs in the order of bins, then columns."""
    return weight.reshape(len(weight), -1, bins).transpose(1, 2).flatten(1)


def _turn_bins(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Runs of before hold the columns outside and the bins inside."""
    if f"{prefix}low" in state:
        low, inverse = state.pop(f"{prefix}low"), state.pop(f"{prefix}inverse_width")
        state[f"{prefix}lower"], state[f"{prefix}steepness"] = low.T, inverse.T
        name = f"{prefix}project.weight"
        state[name] = _bins_outside(state[name], low.shape[1])


def quantile_edges(values: Tensor, bins: int) -> Tensor:
    """Edges [M, bins + 1] at the quantiles of the columns of `values` [N, M], for PiecewiseLinear."""
    points = torch.linspace(0.0, 1.0, bins + 1)
    # A column at a time: torch sorts copies of all that it is given.
    return torch.stack([torch.quantile(column, points) for column in values.T])


class HistoryPool(nn.Module):
    """A weighted mean of history tokens; weights from a query, the token's action and its age.

    score_l = q . t_l / sqrt(d) - softplus(beta) * age_l, softmax over the entries and one empty slot of
    score 0: an empty history, or one where nothing matches, pools to zeros. With a query from the candidate
    this is the target attention of DIN (Zhou et al. 2018) at the cost of one small product.
    """

    def __init__(self, dim: int, actions: int, query_inputs: int = 0) -> None:
        """`query_inputs`: width of the candidate's vector; 0: the query is learned, the same for all."""
        super().__init__()
        self.action = nn.Embedding(actions + 1, dim)
        nn.init.normal_(self.action.weight, std=0.05)
        self.decay = nn.Parameter(torch.tensor(-2.0))
        self.temperature = dim**-0.5
        self.query = nn.Linear(query_inputs, dim) if query_inputs else None
        self.learned = None if query_inputs else nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor, action: Tensor, age: Tensor, query: Tensor | None = None) -> Tensor:
        """tokens [U, K, d], action [U, K] (0: padding), age [U, K] in log hours, query [B, .] -> [B, d + 1].

        U is B, or 1 for one history that stands for all. The last column is the total weight that entries
        got: how well they match the query.
        """
        tokens = tokens + self.action(action)
        if self.query is not None:
            wanted = self.query(query).unsqueeze(2)
            scores = torch.matmul(tokens, wanted).squeeze(2) * self.temperature
        else:
            assert self.learned is not None
            scores = torch.matmul(tokens, self.learned) * self.temperature
        scores = scores - nn.functional.softplus(self.decay) * age
        scores = scores.masked_fill(action == 0, -1e9)
        empty = torch.zeros_like(scores[:, :1])
        weights = torch.softmax(torch.cat([scores, empty], dim=1), dim=1)[:, :-1]
        pooled = torch.matmul(weights.unsqueeze(1), tokens).squeeze(1)
        return torch.cat([pooled, weights.sum(dim=1, keepdim=True)], dim=1)
