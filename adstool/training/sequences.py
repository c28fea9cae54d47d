"""What training does to histories that serving does not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adstool.features.engagements import NEAREST_INPUTS
from adstool.models.inputs import Batch
from adstool.models.sequences import SequenceConfig
from adstool.training.predict import HISTORY

HISTORY_INPUTS = (*HISTORY, "history_content")


def mask_time(config: SequenceConfig, batch: Batch, rng: np.random.Generator) -> None:
    """`forget_newest`, where the model that is trained has a sequence encoder and asks for it."""
    if config.sequence != "none" and config.time_mask_hours:
        forget_newest(batch, config.time_mask_hours, rng)


def forget_newest(batch: Batch, hours: float, rng: np.random.Generator) -> None:
    """Take the events newer than U(0, hours) before its request out of each row's history, in place.

    The random time window mask of TransAct (Xia et al. 2023, section 3.3.3): the model must not lean on what
    happened a moment ago, which arrives late in serving and makes feeds repeat themselves. Older events move
    up, as if the newest had not arrived yet; among the nearest events of a long history too. `hours` > 0; all
    randomness from `rng`.
    """
    window = np.log1p(rng.random(len(batch["history_age"])) * hours).astype(np.float32)
    for names in (HISTORY_INPUTS, NEAREST_INPUTS):
        if names[2] in batch:
            _move_up(batch, names, torch.from_numpy(window))


def _move_up(batch: Batch, names: tuple[str, ...], window: Tensor) -> None:
    """Drop the events of these inputs (item, category, action, age, content) with ages below `window` [B]."""
    _, _, action_name, age_name, _ = names
    age, action = batch[age_name], batch[action_name]
    newer = (age < window.unsqueeze(1)) & (action > 0)
    count = newer.sum(dim=1)  # entries are newest first, so these are the first ones
    rows = count.nonzero().squeeze(1)
    if not len(rows):
        return
    length = action.shape[1]
    places = torch.arange(length) + count[rows].unsqueeze(1)
    gone = places >= length
    places = places.clamp_max(length - 1)
    for name in names:
        if name in batch:
            moved = batch[name][rows.unsqueeze(1), places]
            moved[gone] = 0
            batch[name][rows] = moved
