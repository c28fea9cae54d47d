"""One embedding table for all categorical fields: a row offset a field, one lookup, sparse gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adstool.errors import UsageError
from adstool.models.inputs import Batch, InputSpec

PRIME = (1 << 31) - 1
# Multipliers and shifts drawn once from 1 .. PRIME - 1: part of the format, since runs are read with them.
HASHES = (
    (1103515245, 374761393),
    (1664525413, 668265263),
    (1597334677, 1013904223),
    (742938285, 950706376),
)


class FieldEmbedding(nn.Module):
    """Embeds the categorical columns and, through the same rows, the history columns.

    Column f owns the rows offsets[f] .. offsets[f] + cardinalities[f] - 1. A history column looks up the rows
    of the categorical column whose codes it holds, so an item has one vector wherever it appears.
    Gradients are sparse: a step costs what the batch touches, whatever the table's size.
    """

    def __init__(
        self,
        spec: InputSpec,
        dim: int,
        history_used: int = 0,
        id_dropout: float = 0.0,
        max_rows: int = 0,
        hashes: int = 2,
        std: float = 0.05,
    ) -> None:
        """`history_used`: how many of the most recent history entries are embedded (0: none).

        `id_dropout`: the chance, in training, that a code is replaced by one of the unknown buckets, for
        columns large enough to hold ids; so that the buckets know what to say about ids never seen.
        `max_rows`: the most rows the table may have (0: as many as there are values). A value of more values
        than that is the sum of the rows that `hashes` hash functions give it (Svenstrup et al. 2017, without
        weights): two values are alike only where all of their hashes are. `std`: of the first vectors.
        """
        super().__init__()
        self.offsets: Tensor
        self.identifying: Tensor
        self.dim = dim
        self.fields = len(spec.cardinalities)
        self.history_used = min(history_used, spec.history_length) if spec.has_history else 0
        self.id_dropout = id_dropout if spec.unknown_buckets else 0.0
        self.unknown_buckets = spec.unknown_buckets
        sizes = torch.tensor(spec.cardinalities, dtype=torch.int64)
        offsets = torch.cumsum(sizes, 0) - sizes
        self.rows = sum(spec.cardinalities)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("identifying", sizes > 4 * max(spec.unknown_buckets, 1), persistent=False)
        self.history_fields = [
            (name, spec.field(column))
            for name, column in (
                ("history_item", spec.history_item),
                ("history_category", spec.history_category),
            )
            if self.history_used and spec.field(column) >= 0
        ]
        if not 1 <= hashes <= len(HASHES):
            raise UsageError(f"--set hashes={hashes} is not from 1 to {len(HASHES)}.", "Try --set hashes=2")
        self.hashes = hashes if 0 < max_rows < self.rows else 0
        self.table = nn.Embedding(max_rows if self.hashes else max(self.rows, 1), dim, sparse=True)
        nn.init.normal_(self.table.weight, std=std / max(self.hashes, 1) ** 0.5)

    def forward(
        self, batch: Batch, columns: Tensor | None = None, with_history: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Fields [B, F, d], and history tokens [U, K, d] (the sum of the history columns) or None.

        The history inputs have U rows: B, or one that stands for all.

        `columns`: the indices of the categorical columns wanted; None: all F.
        """
        codes = batch["categorical"]
        offsets, identifying = self.offsets, self.identifying
        if columns is not None:
            codes = codes.index_select(1, columns)
            offsets, identifying = offsets[columns], identifying[columns]
        if self.training and self.id_dropout > 0:
            codes = self._forget(codes, identifying)
        history_fields = self.history_fields if with_history else []
        past = [batch[name][:, : self.history_used] + self.offsets[field] for name, field in history_fields]
        if not past:
            return self._look_up(codes + offsets), None
        used = [self.history_used] * len(past)
        if len(past[0]) != len(codes):  # one history for all rows
            fields = self._look_up(codes + offsets)
            histories = torch.split(self._look_up(torch.cat(past, dim=1)), used, dim=1)
        else:
            looked_up = self._look_up(torch.cat([codes + offsets, *past], dim=1))
            # Split, not slices: its gradient is one concatenation.
            fields, *rest = torch.split(looked_up, [codes.shape[1], *used], dim=1)
            histories = tuple(rest)
        return fields, histories[0] if len(histories) == 1 else histories[0] + histories[1]

    def events(self, batch: Batch, kind: str) -> Tensor:
        """Tokens [n, K, d] of the events in the inputs <kind>_item and <kind>_category, as in `forward`."""
        parts = [
            batch[name.replace("history", kind)] + self.offsets[field] for name, field in self.history_fields
        ]
        looked_up = self._look_up(torch.stack(parts))
        return looked_up.sum(dim=0)

    def _look_up(self, values: Tensor) -> Tensor:
        """Vectors [..., d] of values numbered 0 .. rows - 1."""
        if not self.hashes:
            looked_up: Tensor = self.table(values)
            return looked_up
        rows = torch.stack([self.hashed(values, index) for index in range(self.hashes)])
        summed: Tensor = self.table(rows).sum(dim=0)
        return summed

    @property
    def storage(self) -> str:
        """How the table is kept, in words."""
        if not self.hashes:
            return f"in memory, a row for each of {self.rows:,} values"
        held = f"{self.table.num_embeddings:,} rows"
        return f"in memory, {held} for {self.rows:,} values by {self.hashes} hash functions"

    def hashed(self, values: Tensor, index: int) -> Tensor:
        """The rows that hash function `index` gives to values: ((a v + b) mod p) mod rows, p = 2^31 - 1.

        Of a universal family (Carter and Wegman 1979); a v stays below 2^62.
        """
        multiplier, shift = HASHES[index]
        return (values * multiplier + shift) % PRIME % self.table.num_embeddings

    def _forget(self, codes: Tensor, identifying: Tensor) -> Tensor:
        chosen = (torch.rand(codes.shape, device=codes.device) < self.id_dropout) & identifying
        buckets = torch.randint(1, self.unknown_buckets + 1, codes.shape, device=codes.device)
        return torch.where(chosen, buckets, codes)


def row_penalty(fields: Tensor, weight: float) -> Tensor:
    """`weight` times the mean over the batch of the squared length of its field embeddings [B, F, d]."""
    if not weight:
        return fields.new_zeros(())
    flat = fields.flatten()
    return torch.dot(flat, flat) * (weight / max(len(fields), 1))


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """The cosine of two batches of vectors, [B, D] x [B, D] -> [B, 1]; 0 where either is all zeros."""
    return functional.cosine_similarity(left, right, dim=1, eps=1e-6).unsqueeze(1)
