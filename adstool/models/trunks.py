"""Trunks: how a ranker's inputs meet each other before its heads. A trunk is a row of TRUNKS.

A trunk maps x [B, inputs] to [B, trunk.width]. Those that work on tokens (dhen, wukong) first cut x into
`tokens` vectors by one learned linear map, so that fields, numerics, content and history all take part and
the cost does not grow with the number of fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adstool.errors import UsageError, choose
from adstool.models.layers import CrossNet, MaskBlock, Mlp


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """The sizes of the trunks; a model's config inherits them, and each trunk reads those it names."""

    trunk: str = "dcnv2"  # dcnv2 | masknet | dhen | wukong
    cross_layers: int = 2  # dcnv2: cross layers
    cross_rank: int = 0  # dcnv2: their matrices as products of two thin ones of this rank; 0: full matrices
    hidden: tuple[int, ...] = (128, 64)  # widths of the MLP: beside the crosses, else on top of the trunk
    dropout: float = 0.1  # after every hidden layer
    mask_blocks: int = 4  # masknet: parallel blocks
    mask_width: int = 64  # masknet: width of a block's output
    tokens: int = 16  # dhen, wukong: vectors that x is cut into
    token_dim: int = 16  # dhen, wukong: numbers a vector
    trunk_layers: int = 2  # dhen, wukong: layers
    dhen_modules: tuple[str, ...] = ("cross", "mlp", "attention")  # dhen: what a layer adds up
    wukong_rank: int = 8  # wukong: columns of the projection that the pairwise products are taken with
    recompute: bool = False  # whether training makes activations of the layers again instead of keeping them


class Trunk(nn.Module):
    """What every trunk has beside its layers."""

    width: int  # of its output

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.recompute = config.recompute

    def through(self, part: nn.Module, x: Tensor) -> Tensor:
        """part(x); in training with `recompute`, x alone is kept for the way back (Chen et al. 2016)."""
        if self.recompute and self.training and torch.is_grad_enabled():
            outcome: Tensor = checkpoint(part, x, use_reentrant=False)
            return outcome
        plain: Tensor = part(x)
        return plain


class Dcnv2(Trunk):
    """DCN-V2's parallel structure (Wang et al. 2021, fig. 1b): crosses beside an MLP."""

    def __init__(self, inputs: int, config: TrunkConfig) -> None:
        super().__init__(config)
        layers = config.cross_layers
        self.cross = CrossNet(inputs, layers, config.cross_rank) if layers else None
        self.deep = Mlp(inputs, config.hidden, config.dropout)
        self.width = (inputs if self.cross else 0) + self.deep.width

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, width]."""
        deep = self.through(self.deep, x)
        return deep if self.cross is None else torch.cat([self.through(self.cross, x), deep], dim=1)


class MaskNet(Trunk):
    """The parallel MaskNet (Wang et al. 2021, fig. 4): mask blocks side by side, then an MLP."""

    def __init__(self, inputs: int, config: TrunkConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(MaskBlock(inputs, config.mask_width) for _ in range(config.mask_blocks))
        self.deep = Mlp(config.mask_blocks * config.mask_width, config.hidden, config.dropout)
        self.width = self.deep.width

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, width]."""
        deep: Tensor = self.deep(torch.cat([self.through(block, x) for block in self.blocks], dim=1))
        return deep


class TokenTrunk(Trunk):
    """x cut into tokens, layers [B, T, d] -> [B, T, d] over them, and an MLP on the outcome."""

    def __init__(self, inputs: int, config: TrunkConfig, layer: Callable[[TrunkConfig], nn.Module]) -> None:
        super().__init__(config)
        size = config.tokens * config.token_dim
        self.shape = (config.tokens, config.token_dim)
        self.cut = nn.Linear(inputs, size)
        self.layers = nn.Sequential(*(layer(config) for _ in range(config.trunk_layers)))
        self.deep = Mlp(size, config.hidden, config.dropout)
        self.width = self.deep.width

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, width]."""
        tokens = self.cut(x).unflatten(1, self.shape)
        for layer in self.layers:
            tokens = self.through(layer, tokens)
        deep: Tensor = self.deep(tokens.flatten(1))
        return deep


class DhenLayer(nn.Module):
    """A layer of DHEN (Zhang et al. 2022, eq. 2-3): LN(sum of modules(X) + X W), X [B, T, d]."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        unknown = sorted(set(config.dhen_modules) - set(DHEN_MODULES))
        if unknown or not config.dhen_modules:
            wrong = f"has no {unknown[0]!r}" if unknown else "is empty"
            raise UsageError(f"--set dhen_modules {wrong}.", f"Choose some of {', '.join(DHEN_MODULES)}.")
        self.parts = nn.ModuleList(DHEN_MODULES[name](config) for name in config.dhen_modules)
        self.project = nn.Linear(config.token_dim, config.token_dim, bias=False)
        self.normalize = nn.LayerNorm(config.token_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        total = self.project(x)
        for part in self.parts:
            total = total + part(x)
        normalized: Tensor = self.normalize(total)
        return normalized


class _Flattened(nn.Module):
    """A network over all numbers of the tokens at once."""

    def __init__(self, network: nn.Module, config: TrunkConfig) -> None:
        super().__init__()
        self.network = network
        self.shape = (config.tokens, config.token_dim)

    def forward(self, x: Tensor) -> Tensor:
        outcome: Tensor = self.network(x.flatten(1)).unflatten(1, self.shape)
        return outcome


def _cross(config: TrunkConfig) -> nn.Module:
    return _Flattened(CrossNet(config.tokens * config.token_dim, 1, config.cross_rank), config)


def _mlp(config: TrunkConfig) -> nn.Module:
    size = config.tokens * config.token_dim
    inside = max(size // 2, 8)
    return _Flattened(nn.Sequential(nn.Linear(size, inside), nn.ReLU(), nn.Linear(inside, size)), config)


class SelfAttention(nn.Module):
    """Scaled dot-product attention of the tokens to each other, one head (Vaswani et al. 2017, eq. 1).

    Written out, since the exporter turns these products into plain nodes that quantize like other layers.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.token_dim, 3 * config.token_dim)
        self.output = nn.Linear(config.token_dim, config.token_dim)
        self.temperature = config.token_dim**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        query, key, value = self.project(x).chunk(3, dim=2)
        weights = torch.softmax(torch.matmul(query, key.transpose(1, 2)) * self.temperature, dim=2)
        attended: Tensor = self.output(torch.matmul(weights, value))
        return attended


DHEN_MODULES: dict[str, Callable[[TrunkConfig], nn.Module]] = {
    "cross": _cross,
    "mlp": _mlp,
    "attention": SelfAttention,
}


class WukongLayer(nn.Module):
    """A layer of Wukong (Zhang et al. 2024, section 3): LN(concat(FMB(X), LCB(X)) + X), X [B, T, d].

    FMB is an MLP of LN(flatten(X X^T Y)), Y [T, rank] learned: products of all pairs of tokens at the cost of
    `rank` of them. LCB is a linear map among tokens. Each gives half of the tokens.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        tokens, dim, rank = config.tokens, config.token_dim, config.wukong_rank
        if tokens < 2:
            raise UsageError(
                f"--set trunk=wukong needs at least 2 tokens, not {tokens}.", "Give more: --set tokens=16"
            )
        crossed = tokens // 2
        self.crossed = (crossed, dim)
        self.columns = nn.Linear(tokens, rank, bias=False)  # Y
        self.normalize = nn.LayerNorm(tokens * rank)
        self.mlp = nn.Sequential(
            nn.Linear(tokens * rank, crossed * dim), nn.ReLU(), nn.Linear(crossed * dim, crossed * dim)
        )
        self.compress = nn.Linear(tokens, tokens - crossed, bias=False)
        self.outcome = nn.LayerNorm(dim)

    def products(self, x: Tensor) -> Tensor:
        """X X^T Y, as X (X^T Y): [B, T, d] -> [B, T, rank]."""
        return torch.matmul(x, self.columns(x.transpose(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        crossed = self.mlp(self.normalize(self.products(x).flatten(1))).unflatten(1, self.crossed)
        linear = self.compress(x.transpose(1, 2)).transpose(1, 2)
        normalized: Tensor = self.outcome(torch.cat([crossed, linear], dim=1) + x)
        return normalized


TRUNKS: dict[str, Callable[[int, TrunkConfig], Trunk]] = {
    "dcnv2": Dcnv2,
    "masknet": MaskNet,
    "dhen": lambda inputs, config: TokenTrunk(inputs, config, DhenLayer),
    "wukong": lambda inputs, config: TokenTrunk(inputs, config, WukongLayer),
}


def build_trunk(name: str, width: int, config: TrunkConfig) -> Trunk:
    """The trunk `name` over x [B, width], with fresh weights; its output's width is its `.width`.

    Raises UsageError for an unknown name.
    """
    if name not in TRUNKS:
        raise UsageError(f"There is no trunk '{name}'.", choose(name, TRUNKS))
    return TRUNKS[name](width, config)
