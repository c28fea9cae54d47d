"""Batches of a data set as tensors, and a model's logits over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adstool.features.engagements import NEAREST_INPUTS
from adstool.models.inputs import Batch
from adstool.training.batches import Rows, predicted_rows
from adstool.warehouse.memory import available_bytes

if TYPE_CHECKING:
    from adstool.models.engagement import EngagementModel
    from adstool.training.data import Examples

PREDICTIONS = "predictions.npz"
HISTORY = ("history_item", "history_category", "history_action", "history_age")


def gather(
    examples: Examples,
    names: Sequence[str],
    rows: Rows | slice,
    history_used: int | None = None,
    long_history: int = 0,
) -> Batch:
    """The inputs `names` of `rows` as torch tensors: int64 where they are integers, else float32.

    Only the `history_used` most recent history entries are read, and the `long_history` nearest events.
    """
    batch: Batch = {}
    near: dict[str, NDArray[Any]] = {}
    if long_history and any(name in NEAREST_INPUTS for name in names):
        near = examples.read_nearest(rows, long_history, "nearest_content" in names)  # type: ignore[attr-defined]
    read = getattr(examples, "history", None)  # all four history inputs at the price of one
    history = read(rows) if read is not None and any(name in HISTORY for name in names) else None
    for name in names:
        if name == "item_content":
            values = examples.items.content[np.asarray(examples.item_row[rows])]
        elif name in near:
            values = near[name]
        elif name == "history_content":
            values = examples.history_content(rows, history_used or 0)  # type: ignore[attr-defined]
        elif name in HISTORY:
            whole = (
                getattr(history, name.removeprefix("history_")) if history else getattr(examples, name)[rows]
            )
            values = whole[:, :history_used]
        else:
            values = getattr(examples, name)[rows]
        wanted = torch.int64 if np.issubdtype(values.dtype, np.integer) else torch.float32
        # Slices of a memory map are read-only; tensors are not.
        owned = values if values.flags.writeable and values.flags.c_contiguous else np.array(values)
        batch[name] = torch.from_numpy(owned).to(wanted)
    return batch


@torch.inference_mode()
def predict_amounts(model: EngagementModel, examples: Examples, rows: slice) -> NDArray[Any]:
    """Expected amounts [n, V] (float32, as logged) of a model that has some, over some rows."""
    amounts = model.amounts
    assert amounts is not None
    heads = len(model.output_names)

    def expected(batch: Batch) -> torch.Tensor:
        return model.served(batch)[:, heads:] * amounts.typical

    return _predict(model, expected, examples, rows, len(amounts.columns))


@torch.inference_mode()
def predict_logits(model: nn.Module, examples: Examples, rows: Rows | slice) -> NDArray[Any]:
    """The logits [n, A] (float32) of a model with `input_names` over some rows, in evaluation mode."""
    return _predict(model, model, examples, rows, len(model.output_names))  # type: ignore[arg-type]


def _predict(
    model: nn.Module,
    compute: Callable[[Batch], torch.Tensor],
    examples: Examples,
    rows: Rows | slice,
    width: int,
) -> NDArray[Any]:
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    lengths = (getattr(model.config, "history_used", None), getattr(model.config, "long_history", 0))
    count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
    found, at = np.empty((max(count, 0), width), dtype=np.float32), 0
    for part in row_parts(rows):
        batch = gather(examples, model.input_names, part, *lengths)  # type: ignore[arg-type]
        computed = compute({k: v.to(device) for k, v in batch.items()}).float().cpu().numpy()
        found[at : at + len(computed)] = computed
        at += len(computed)
    model.train(training)
    return found


def row_parts(rows: Rows | slice) -> Iterator[Rows | slice]:
    """These rows, as many at a time as are predicted at once."""
    size = predicted_rows(available_bytes())
    if isinstance(rows, slice):
        for start in range(rows.start, rows.stop, size):
            yield slice(start, min(start + size, rows.stop))
    else:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def save_predictions(path: Path, splits: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Write what the model says of each held-out split, for calibration: arrays named <split>_<what>."""
    arrays = {f"{split}_{name}": array for split, held in splits.items() for name, array in held.items()}
    temporary = path.with_name(f".{path.name}.tmp.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)
