"""What a model reads: the columns, widths and heads that its layers are built for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adstool.features.dataset import Dataset

# Inputs of a model by name (adstool.features.dataset.INPUTS); integers are int64, the rest float32.
Batch = dict[str, torch.Tensor]

USER_SIDES = ("user", "context")  # what is known of a request before any item is looked at
ITEM_SIDES = ("item",)


@dataclass(frozen=True)
class InputSpec:
    """The shape of the inputs; written to config.json, so that a run can be rebuilt from its folder alone."""

    categorical: tuple[str, ...]  # names of the F columns of `categorical`
    categorical_sides: tuple[str, ...]  # user | item | context, a column
    cardinalities: tuple[int, ...]  # codes of column f are 0 .. cardinalities[f] - 1
    numeric: tuple[str, ...]  # names of the M columns of `numeric`
    numeric_sides: tuple[str, ...]  # user | item | cross | context, a column
    actions: tuple[str, ...]  # heads, in the order of the labels
    content_dim: int = 0  # D of item_content and user_content; 0: the model reads no content
    history_length: int = 0  # L of the history inputs; 0: the model reads no history
    history_item: str = ""  # the categorical column whose codes history_item holds
    history_category: str = ""  # the categorical column whose codes history_category holds
    unknown_buckets: int = 0  # codes 1 .. this are shared by ids that training has not seen
    positions: bool = False  # whether `position` is an input
    amounts: tuple[str, ...] = ()  # actions that are counted or timed
    amount_losses: tuple[str, ...] = ()  # of each: lognormal | weighted | poisson

    def columns(self, sides: tuple[str, ...]) -> list[int]:
        """The indices of the categorical columns of these sides."""
        return [i for i, side in enumerate(self.categorical_sides) if side in sides]

    def numeric_columns(self, sides: tuple[str, ...]) -> list[int]:
        """The indices of the numeric columns of these sides."""
        return [i for i, side in enumerate(self.numeric_sides) if side in sides]

    def field(self, name: str) -> int:
        """The index of categorical column `name`, -1 when there is none."""
        return self.categorical.index(name) if name in self.categorical else -1

    @property
    def has_history(self) -> bool:
        """Whether history inputs are read: some column must share its codes with them."""
        return self.history_length > 0 and (self.history_item != "" or self.history_category != "")


def input_spec(dataset: Dataset) -> InputSpec:
    """The inputs of a data set of logged impressions."""
    encoder = dataset.encoder
    categorical = tuple(column.name for column in encoder.categorical_columns)
    measured = [action for action in dataset.actions if action.kind != "binary"]
    return InputSpec(
        categorical=categorical,
        categorical_sides=tuple(column.side for column in encoder.categorical_columns),
        cardinalities=tuple(int(size) for size in encoder.cardinalities),
        numeric=tuple(column.name for column in encoder.numeric_columns),
        numeric_sides=tuple(column.side for column in encoder.numeric_columns),
        actions=tuple(action.name for action in dataset.actions),
        content_dim=int(dataset.content_dim) if dataset.items.content.any() else 0,
        history_length=int(dataset.history_length),
        history_item="item_id" if "item_id" in categorical else "",
        history_category="category" if "category" in categorical else "",
        unknown_buckets=int(encoder.unknown_buckets),
        positions=True,
        amounts=tuple(action.name for action in measured),
        amount_losses=tuple(action.amount_loss for action in measured),
    )


def config_to_json(config: Any) -> dict[str, Any]:
    """A config dataclass, nested ones included, as plain JSON values."""
    plain = dataclasses.asdict(config)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def spec_from_json(value: Mapping[str, Any]) -> InputSpec:
    """The InputSpec that `config_to_json` wrote."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    return InputSpec(**values)
