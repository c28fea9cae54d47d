"""The heavy ranker: a trunk over fields, numerics, content and history, then the heads of every action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adstool.errors import UsageError
from adstool.models.amounts import AmountHeads
from adstool.models.embedding import FieldEmbedding, cosine, row_penalty
from adstool.models.inputs import Batch, InputSpec
from adstool.models.layers import HistoryPool, PiecewiseLinear
from adstool.models.multitask import SurfaceTowers, TaskHeads
from adstool.models.sequences import Events, ItemTokens, SequenceConfig, build_sequence
from adstool.models.trunks import TrunkConfig, build_trunk

POSITIONS = 64  # positions beyond share the last bias
QUIET = 0.1  # what an encoder's output is first multiplied with


@dataclass(frozen=True)
class EngagementConfig(TrunkConfig, SequenceConfig):
    """The sizes of an EngagementModel; those of its trunk and sequence encoder are inherited."""

    inputs: InputSpec
    embedding_dim: int = 16  # d of every categorical value
    embedding_std: float = 0.05  # of the first values of the embeddings
    dense_init: str = "uniform"  # of linear layers: uniform (torch's own) | xavier (normal, biases at zero)
    id_dropout: float = 0.5  # chance that an id is hidden in training: buckets learn, ids do not overfit
    content_width: int = 16  # width of the projections of the content vectors
    numeric_bins: int = 8  # quantile bins a numeric column; 0: numerics enter as they are only
    numeric_width: int = 32  # width of the layer over the bins
    history_used: int = 20  # most recent history entries that are read; 0: none
    embedding_penalty: float = 1e-3  # L2 on the embedding rows that a batch reads
    max_rows: int = 0  # the most rows of the embedding table; more values than that share rows by hashing
    hashes: int = 2  # rows that are summed for a value when they do, 1 to 4
    multitask: str = "shared"  # shared | mmoe: what the heads read
    experts: int = 4  # mmoe: experts
    expert_hidden: tuple[int, ...] = (64,)  # mmoe: widths of an expert
    tower_hidden: tuple[int, ...] = ()  # widths of each action's own tower; none: one linear layer
    surface_towers: bool = False  # whether each surface adds a small tower of its own to the logits
    surface_width: int = 8  # hidden units of a surface's tower


class EngagementModel(nn.Module):
    """Logits of every action for (user, item) pairs."""

    def __init__(self, config: EngagementConfig) -> None:
        super().__init__()
        self.config = config
        spec = config.inputs
        dim = config.embedding_dim
        self.embedding = FieldEmbedding(
            spec,
            dim,
            config.history_used,
            config.id_dropout,
            config.max_rows,
            config.hashes,
            config.embedding_std,
        )
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
        used = self.embedding.history_used if self.candidate_fields else 0
        self.sequence = build_sequence(len(spec.actions), used, config, config.dropout)
        if self.sequence is not None:
            self.tokens = ItemTokens(dim, spec.content_dim, config.sequence_dim)
            # It starts small: beside features of unit size, an encoder that knows nothing yet is noise.
            self.sequence_gain = nn.Parameter(torch.full((self.sequence.width,), QUIET))
            width += self.sequence.width
        self.trunk = build_trunk(config.trunk, width, config)
        self.heads = self._build_heads(self.trunk.width)
        self.amounts = self._build_amounts(self.trunk.width)
        self.surfaces = self._build_surfaces(self.trunk.width) if config.surface_towers else None
        self.position_bias = nn.Embedding(POSITIONS, len(spec.actions)) if spec.positions else None
        if self.position_bias is not None:
            nn.init.zeros_(self.position_bias.weight)
        if config.dense_init == "xavier":
            self.trunk.apply(_xavier)
        elif config.dense_init != "uniform":
            raise UsageError(f"--set dense_init={config.dense_init} is not known.", "Use uniform or xavier.")
        self.register_load_state_dict_pre_hook(_rename_trunk)  # type: ignore[no-untyped-call]

    def _build_heads(self, inputs: int) -> TaskHeads:
        config = self.config
        return TaskHeads(
            inputs,
            len(config.inputs.actions),
            multitask=config.multitask,
            experts=config.experts,
            expert_hidden=config.expert_hidden,
            tower_hidden=config.tower_hidden,
            dropout=config.dropout,
        )

    def _build_amounts(self, inputs: int) -> AmountHeads | None:
        spec = self.config.inputs
        columns = [spec.actions.index(name) for name in spec.amounts]
        return AmountHeads(inputs, columns, spec.amount_losses) if columns else None

    def _build_surfaces(self, inputs: int) -> SurfaceTowers:
        spec = self.config.inputs
        field = spec.field("surface")
        if field < 0:
            raise UsageError(
                "--set surface_towers=true needs a column 'surface'.", "Leave out surface_towers."
            )
        return SurfaceTowers(
            inputs,
            len(spec.actions),
            spec.cardinalities[field],
            spec.unknown_buckets,
            self.config.surface_width,
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that `forward` reads, in the order of adstool.features.dataset.INPUTS."""
        names = ["categorical"] + (["numeric"] if self.config.inputs.numeric else [])
        names += ["item_content", "user_content"] if self.with_content else []
        if self.history is not None:
            names += [name for name, _ in self.embedding.history_fields] + ["history_action", "history_age"]
        if self.sequence is not None and self.with_content:
            names.append("history_content")
        if self.sequence is not None and self.config.long_history:
            names += [name.replace("history", "nearest") for name, _ in self.embedding.history_fields]
            names += ["nearest_action", "nearest_age"] + (["nearest_content"] if self.with_content else [])
        return (*names, "position") if self.position_bias is not None else tuple(names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The action of every column of the logits."""
        return self.config.inputs.actions

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, A] of the batch's rows; SHARED_INPUTS may have one row that stands for all."""
        return self.with_penalty(batch)[0]

    def with_penalty(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [B, A], and the L2 penalty of the fields' embeddings (a scalar) for the training loss."""
        return self.with_trunk(batch)[:2]

    def served(self, batch: Batch) -> Tensor:
        """Probabilities [B, A] and, beside them, expected typical amounts of the actions that have one."""
        logits, _, shared = self.with_trunk(batch)
        probability = torch.sigmoid(logits)
        if self.amounts is None:
            return probability
        return torch.cat([probability, self.amounts(shared, logits)], dim=1)

    def with_trunk(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """`with_penalty`, and what the heads read, [B, trunk width]."""
        fields, history = self.embedding(batch)
        parts = self._parts(batch, fields, history)
        shared = self.trunk(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        logits: Tensor = self.heads(shared)
        if self.surfaces is not None:
            surface = batch["categorical"][:, self.config.inputs.field("surface")]
            logits = logits + self.surfaces(shared, surface)
        if self.position_bias is not None:
            logits = logits + self._bias_of(batch["position"])
        return logits, row_penalty(fields, self.config.embedding_penalty), shared

    def _parts(self, batch: Batch, fields: Tensor, history: Tensor | None) -> list[Tensor]:
        """What the trunk reads, side by side: fields [B, F * d], numerics, content, history."""
        parts = [fields.flatten(1)]
        if self.config.inputs.numeric:
            parts.append(batch["numeric"])
            if self.bins is not None:
                parts.append(self.bins(batch["numeric"]))
        if self.with_content:
            parts += self._content(batch["user_content"], batch["item_content"])
        if self.history is not None:
            assert history is not None
            used = self.embedding.history_used
            candidate = fields[:, self.candidate_fields].flatten(1)
            action, age = batch["history_action"][:, :used], batch["history_age"][:, :used]
            parts.append(self.history(history, action, age, candidate))
            if self.sequence is not None:
                parts.append(self._sequence(batch, fields, history, action, age))
        return parts

    def _sequence(self, batch: Batch, fields: Tensor, history: Tensor, action: Tensor, age: Tensor) -> Tensor:
        assert self.sequence is not None
        seen = batch["history_content"][:, : action.shape[1]] if self.with_content else None
        events = Events(self.tokens(history, seen), action, age)
        near: Events | None = None
        if self.config.long_history:
            tokens = self.tokens(self.embedding.events(batch, "nearest"), batch.get("nearest_content"))
            near = Events(tokens, batch["nearest_action"], batch["nearest_age"])
        own = fields[:, self.candidate_fields].sum(dim=1)
        candidate = self.tokens(own, batch["item_content"] if self.with_content else None)
        encoded: Tensor = self.sequence(events, candidate, near)
        return encoded * self.sequence_gain

    def _content(self, user: Tensor, item: Tensor) -> list[Tensor]:
        projected_user = self.user_content(user)
        projected_item = self.item_content(item)
        own = projected_user.expand_as(projected_item)
        return [own, projected_item, projected_user * projected_item, cosine(user, item)]

    def _bias_of(self, position: Tensor) -> Tensor:
        assert self.position_bias is not None
        # Position 1 is the reference: its bias is zero, and so is that of an unknown position (0), so that
        # serving at position 1 reads the model's logits as they are.
        place = position.clamp(0, POSITIONS - 1)
        biased: Tensor = self.position_bias(place)
        return biased * (place > 1).unsqueeze(1).to(biased.dtype)


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _rename_trunk(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Runs of before there were trunks hold the layers of dcnv2 as the model's own."""
    for key in list(state):
        for part in ("cross.", "deep."):
            if key.startswith(prefix + part):
                state[f"{prefix}trunk.{key.removeprefix(prefix)}"] = state.pop(key)
