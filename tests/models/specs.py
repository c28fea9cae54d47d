"""Inputs of every kind, and models all of whose weights matter."""

from __future__ import annotations

from typing import TypeVar

import torch

from adstool.models.engagement import EngagementModel
from adstool.models.inputs import InputSpec

Ranker = TypeVar("Ranker", bound=EngagementModel)

SPEC = InputSpec(
    categorical=("user_id", "item_id", "category", "surface"),
    categorical_sides=("user", "item", "item", "context"),
    cardinalities=(30, 400, 12, 6),
    numeric=("u", "i", "c"),
    numeric_sides=("user", "item", "cross"),
    actions=("click", "hide"),
    content_dim=6,
    history_length=9,
    history_item="item_id",
    history_category="category",
    unknown_buckets=2,
    positions=True,
)


def stirred(model: Ranker) -> Ranker:
    """The model with heads spread out and what starts at zero moved: all of it shows in a score."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
        model.heads.weight.normal_(std=0.3)
    return model
