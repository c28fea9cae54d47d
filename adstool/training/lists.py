"""Requests with candidates, shown or not, and what the heavy ranker says of each: what a light one learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adstool.models.inputs import Batch
from adstool.models.pairs import PairModel
from adstool.training.value import Value

if TYPE_CHECKING:
    from adstool.features.dataset import Dataset


@dataclass(frozen=True)
class CandidateLists:
    """L requests with n candidates each, as each was at the time, and the heavy ranker's opinion."""

    shared: dict[str, NDArray[Any]]  # inputs with a row a request: user_content, history_item ... [L, ...]
    categorical: NDArray[np.int32]  # [L, n, F]
    numeric: NDArray[np.float32]  # [L, n, M]
    item_row: NDArray[np.int64]  # [L, n], rows of the data set's items
    probability: NDArray[np.float32]  # [L, n, A], calibrated
    score: NDArray[np.float32]  # [L, n], what the funnel ranks by
    bids: NDArray[np.float32] | None  # [L, n]; None for a corpus without bids
    logged: int  # how many of the requests came with their candidates from the funnel's log

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Lessons:
    """Lists of the training and of the validation split, and who made them."""

    train: CandidateLists
    valid: CandidateLists
    value: Value
    cuts: tuple[float, ...]  # the shares of its candidates that later stages read: kept, and shown
    teacher: str  # name of the engagement run


# Makes the lessons: (data set, lists for training, candidates a list, seed) -> Lessons.
Teach = Callable[["Dataset", int, int, int], Lessons]


def list_batch(lists: CandidateLists, content: NDArray[Any], names: Sequence[str], rows: Any) -> Batch:
    """Some lists as tensors: request inputs "request/<name>" [l, ...] and candidate inputs "list/<name>"
    [l * n, ...], "taught" [l, n, A], "worth" [l, n] and "bids" [l, n]."""
    categorical, numeric = lists.categorical[rows], lists.numeric[rows]
    candidates = {
        "categorical": categorical.reshape(-1, categorical.shape[2]),
        "numeric": numeric.reshape(-1, numeric.shape[2]),
        "item_content": content[lists.item_row[rows].ravel()] if "item_content" in names else None,
    }
    request = {"categorical": categorical[:, 0], "numeric": numeric[:, 0]}
    request |= {name: values[rows] for name, values in lists.shared.items()}
    arrays = {f"list/{name}": value for name, value in candidates.items() if value is not None}
    arrays |= {f"request/{name}": value for name, value in request.items() if name in names}
    arrays |= {"taught": lists.probability[rows], "worth": lists.score[rows]}
    if lists.bids is not None:
        arrays["bids"] = lists.bids[rows]
    batch: Batch = {}
    for name, values in arrays.items():
        wanted = np.int64 if np.issubdtype(values.dtype, np.integer) else np.float32
        batch[name] = torch.from_numpy(np.ascontiguousarray(values, dtype=wanted))
    return batch


def list_logits(model: PairModel, batch: Batch) -> Tensor:
    """The model's logits [l, n, A] of a `list_batch`; the request's side is computed once a list."""
    lists, candidates = batch["worth"].shape
    user = model.user_row({k[8:]: v for k, v in batch.items() if k.startswith("request/")})
    inputs = {k[5:]: v for k, v in batch.items() if k.startswith("list/")}
    item = model.item_row(inputs)
    repeated = user.unsqueeze(1).expand(-1, candidates, -1).reshape(len(item), -1)
    return model.pair(repeated, item, model.crossed(inputs)).view(lists, candidates, -1)


def list_scores(logits: Tensor, batch: Batch, value: Value) -> Tensor:
    """Value.score of the candidates, [l, n], from logits [l, n, A]; with gradients."""
    probability = torch.sigmoid(logits.float())
    weights = torch.as_tensor(value.weights, dtype=probability.dtype, device=probability.device)
    utility = probability @ weights
    if "bids" not in batch:
        return utility
    return batch["bids"] * probability[..., value.click] + value.utility_weight * utility


def relative_error(scores: Tensor, worth: Tensor) -> Tensor:
    """The mean square of scores less worth, over the variance of worth in its list; both [l, n]."""
    deviation = worth.std(dim=1, keepdim=True).clamp_min(1e-9)
    return ((scores - worth) / deviation).square().mean()
