"""The task of a conversion model: its losses over observations of clicks, and what it can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adstool.errors import UsageError
from adstool.models.conversion import ConversionModel
from adstool.models.inputs import Batch
from adstool.training.batches import Rows
from adstool.training.conversion_data import ConversionData, Observations
from adstool.training.conversion_losses import (
    Observed,
    click_loss,
    delay_weights,
    dfm_loss,
    dr_loss,
    entire_loss,
    global_loss,
    ips_loss,
    late_loss,
    plain_loss,
    value_loss,
)
from adstool.training.delay import METHODS
from adstool.training.predict import gather
from adstool.training.sequences import mask_time

if TYPE_CHECKING:
    from adstool.features.dataset import Dataset

CHUNK = 8192  # rows predicted at once
LOSSES = ("escm2-ips", "escm2-dr", "esmm", "clicks")
VALUES = ("tweedie", "lognormal")
# By delay, the outputs beside the served ones that training reads.
ASIDE = {"es-dfm": ("late",), "dfm": ("rate",)}
SEEN = ("clicked", "first", "entered", "label", "corrected", "repeat", "days", "late")


@dataclass(frozen=True)
class ConversionTaskConfig:
    """What `train conversion` can be told besides the model's and the loop's settings."""

    delay: str = "es-dfm"  # es-dfm | fnw | dfm | none | oracle: how conversions yet to come are allowed for
    loss: str = "escm2-ips"  # escm2-ips | escm2-dr | esmm | clicks
    value: str = "tweedie"  # tweedie | lognormal: how money is learned
    propensity_clip: float = 15.0  # largest 1 / p(click)
    cvr_weight: float = 0.5  # of the loss on clicks beside that of the click
    global_weight: float = 0.5  # of the loss of click and conversion together
    value_weight: float = 0.1  # of the loss of money
    wait_hours: float = 24.0  # after a click until es-dfm takes it in; at most a quarter of the horizon
    test_share: float = 0.2  # of the impressions whose horizon has passed
    valid_share: float = 0.1  # of the requests before the cut-off

    def validate(self) -> None:
        """Raise UsageError for what cannot be trained with."""
        for name, known in (("delay", METHODS), ("loss", LOSSES), ("value", VALUES)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}; it can be {', '.join(known)}.", "Choose one."
                )
        for name in ("test_share", "valid_share"):
            if not 0 < getattr(self, name) < 0.9:
                raise UsageError(f"{name} must be in (0, .9), not {getattr(self, name)}.", "Try 0.2.")
        if self.wait_hours < 0:
            raise UsageError(f"wait_hours must not be below 0: {self.wait_hours}.", "Try 24.")


class ConversionTask:
    """Losses of click, conversions and money over the observations of the training part."""

    name = "conversion"

    def __init__(
        self,
        model: ConversionModel,
        dataset: Dataset,
        data: ConversionData,
        config: ConversionTaskConfig,
        scales: NDArray[np.float64],
    ) -> None:
        self.model, self.dataset, self.data, self.config = model, dataset, data, config
        self.kinds = len(data.kinds)
        self.scales = scales
        self.rows = len(data.train)
        self.aside = {
            name: 1 + 2 * self.kinds + self.kinds * place for place, name in enumerate(aside_groups(config))
        }

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """Inputs and what was observed, of training observations."""
        batch = self._load(self.data.train, rows)
        mask_time(self.model.config, batch, rng)
        return batch

    def _load(self, seen: Observations, rows: Rows) -> Batch:
        model = self.model
        lengths = model.config.history_used, model.config.long_history
        batch = gather(self.dataset, model.input_names, seen.row[rows], *lengths)
        for name in SEEN:
            batch[f"seen_{name}"] = torch.from_numpy(getattr(seen, name)[rows])
        batch["seen_value"] = torch.from_numpy((seen.value[rows] / self.scales).astype(np.float32))
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, with that of money and the penalty on the embeddings that were read."""
        logits, penalty = self.model.with_penalty(batch)
        logits = logits.float()
        money = logits[:, 1 + self.kinds : 1 + 2 * self.kinds]
        return (
            self._loss(logits, batch)
            + penalty
            + self.config.value_weight * value_loss(money, batch["seen_value"], self.config.value)
        )

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of clicks and conversions alone."""
        config = self.config
        click, cvr = logits[:, 0], logits[:, 1 : 1 + self.kinds]
        seen, late = self._observed(logits, batch)
        total = click_loss(click, seen)
        if late is not None:
            total = total + late_loss(late, batch["seen_late"], batch["seen_repeat"])
        if config.delay == "dfm":
            rate = self._aside(logits, "rate")
            assert rate is not None
            return total + config.cvr_weight * dfm_loss(cvr, rate, seen, batch["seen_days"])
        if config.loss == "clicks":
            return total + plain_loss(cvr, seen)
        together = config.global_weight * global_loss(click, cvr, seen)
        if config.loss == "esmm":
            return total + together
        if config.loss == "escm2-dr":
            imputed = self._aside(logits, "imputed")
            assert imputed is not None
            alone = dr_loss(click, cvr, imputed, seen, config.propensity_clip)
        else:
            alone = ips_loss(click, cvr, seen, config.propensity_clip)
        return total + config.cvr_weight * alone + together

    def _observed(self, logits: Tensor, batch: Batch) -> tuple[Observed, Tensor | None]:
        """What a batch says, weighed as the method has it, and the logits of being late."""
        late = self._aside(logits, "late")
        weight, mass = delay_weights(
            self.config.delay,
            logits[:, 1 : 1 + self.kinds],
            late,
            batch["seen_label"],
            batch["seen_corrected"],
            batch["seen_repeat"],
        )
        seen = Observed(
            clicked=batch["seen_clicked"],
            first=batch["seen_first"],
            entered=batch["seen_entered"],
            label=batch["seen_label"],
            weight=weight,
            mass=mass,
        )
        return seen, late

    def _aside(self, logits: Tensor, name: str) -> Tensor | None:
        at = self.aside.get(name)
        return None if at is None else logits[:, at : at + self.kinds]

    def validate(self) -> float:
        """The log loss an impression of held-out requests as they were observed at the cut, without money.

        Inverse propensities would make it depend on a few clicks.
        """
        seen, total = self.data.valid, 0.0
        for logits, batch in self._outputs(seen, np.arange(len(seen))):
            observed, _ = self._observed(logits, batch)
            total += float(entire_loss(logits[:, 0], logits[:, 1 : 1 + self.kinds], observed))
        return total / max(float(seen.first.sum()), 1.0) if len(seen) else float("nan")

    def _outputs(self, seen: Observations, rows: Rows) -> Iterator[tuple[Tensor, Batch]]:
        """All outputs (logits, those aside included) of observations, some at a time."""
        device = next(self.model.parameters()).device
        for start in range(0, len(rows), CHUNK):
            batch = self._load(seen, rows[start : start + CHUNK])
            batch = {name: value.to(device) for name, value in batch.items()}
            yield self.model.with_penalty(batch)[0].float(), batch

    @torch.inference_mode()
    def fit_scales(self) -> NDArray[np.float64]:
        """Money that odds of one stand for, by kind, so that training's conversions are worth what they were.

        The ratio of sums undoes what taking logarithms does to the mean (smearing, Duan 1983).
        """
        seen = self.data.train
        rows = np.flatnonzero((seen.value > 0).any(axis=1) | (seen.label == 1).any(axis=1))
        predicted, observed = np.zeros(self.kinds), np.zeros(self.kinds)
        self.model.eval()
        for logits, batch in self._outputs(seen, rows):
            known = ~torch.isnan(batch["seen_value"])
            odds = logits[:, 1 + self.kinds : 1 + 2 * self.kinds].exp()
            predicted += torch.where(known, odds, 0.0).sum(dim=0).double().cpu().numpy()
            observed += torch.nan_to_num(batch["seen_value"]).sum(dim=0).double().cpu().numpy()
        factor = np.where((predicted > 0) & (observed > 0), observed / np.maximum(predicted, 1e-12), 1.0)
        return np.asarray(self.scales * factor)


def aside_groups(config: ConversionTaskConfig) -> tuple[str, ...]:
    """The groups of outputs, one a kind, that only training reads."""
    return (*ASIDE.get(config.delay, ()), *(("imputed",) if config.loss == "escm2-dr" else ()))
