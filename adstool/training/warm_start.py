"""Starting a ranker from the run before it: what it learned stays where the two fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adstool.errors import AdstoolError
from adstool.models.engagement import EngagementModel
from adstool.models.registry import load_model
from adstool.progress import log


def warm_start(model: EngagementModel, run_dir: Path, encoder: Any) -> int:
    """Copy the weights of the run into `model` and return how many tensors were carried over.

    Tensors of the same shape are taken whole. Where only the actions differ, the rows or columns of the
    actions that both have are taken, so that a new head starts fresh beside the old ones. Rows of the
    embedding table are taken by value, when the columns of both are the same. Raises AdstoolError when the
    run is no engagement model.
    """
    before = load_model(run_dir)
    if not isinstance(before, EngagementModel):
        raise AdstoolError(f"{run_dir} is no engagement model.", "Leave out --warm-start.")
    old, new = before.config.inputs, model.config.inputs
    shared = [(old.actions.index(name), at) for at, name in enumerate(new.actions) if name in old.actions]
    counts = (len(old.actions), len(new.actions))
    state, values = model.state_dict(), before.state_dict()
    same_columns = old.categorical == new.categorical
    known = same_columns and _vocabularies(run_dir) == _saved(encoder)
    carried = 0
    with torch.no_grad():
        for name, value in state.items():
            prior = values.get(name)
            if prior is None or (name.startswith("embedding.table") and not known):
                continue
            if prior.shape == value.shape and (counts[0] != counts[1] or old.actions == new.actions):
                value.copy_(prior)
                carried += 1
            elif _copy_actions(value, prior, counts, shared):
                carried += 1
    model.load_state_dict(state)
    if not known:
        log.info("The values of columns changed since %s: embeddings start fresh.", run_dir.name)
    return carried


def _copy_actions(
    value: Tensor, prior: Tensor, counts: tuple[int, int], shared: list[tuple[int, int]]
) -> bool:
    """Take over the actions that both have, along the one dimension that counts actions; whether it was so.

    A dimension of one more than the actions has "no action" first.
    """
    if prior.dim() != value.dim():
        return False
    apart = [d for d in range(value.dim()) if prior.shape[d] != value.shape[d]]
    candidates = apart or [d for d in range(value.dim()) if value.shape[d] in (counts[1], counts[1] + 1)]
    if len(candidates) != 1:
        return False
    dim = candidates[0]
    extra = value.shape[dim] - counts[1]
    if extra not in (0, 1) or prior.shape[dim] - counts[0] != extra:
        return False
    pairs = [(0, 0)] * extra + [(a + extra, b + extra) for a, b in shared]
    if pairs:
        source = torch.tensor([a for a, _ in pairs])
        value.index_copy_(dim, torch.tensor([b for _, b in pairs]), prior.index_select(dim, source))
    return bool(pairs)


def _vocabularies(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run_dir / "vocabularies").glob("*.parquet"))}


def _saved(encoder: Any) -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder))
        return _vocabularies(Path(folder))
