"""The task of a conversion model: its losses over observations of clicks, and what it can be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adstool.errors import UsageError, choose
from adstool.models.conversion import ConversionModel
from adstool.models.inputs import Batch
from adstool.training.batches import Rows
from adstool.training.conversion_data import BUCKETS, ConversionData, Observations
from adstool.training.conversion_losses import (
    Observed,
    bucket_loss,
    click_loss,
    delay_weights,
    dfm_loss,
    dr_loss,
    elapsed_labels,
    entire_loss,
    global_loss,
    ips_loss,
    late_loss,
    plain_loss,
    seen_share,
    value_loss,
)
from adstool.training.delay import METHODS
from adstool.training.predict import gather, row_parts
from adstool.training.sequences import mask_time

if TYPE_CHECKING:
    from adstool.features.dataset import Dataset

LOSSES = ("escm2-ips", "escm2-dr", "esmm", "clicks")
VALUES = ("tweedie", "lognormal")
# By delay, the outputs beside the served ones that training reads.
ASIDE = {
    "es-dfm": ("late",),
    "dfm": ("rate",),
    "elapsed": tuple(f"delay{number}" for number in range(BUCKETS)),
}
SEEN = ("clicked", "first", "entered", "label", "corrected", "repeat", "days", "age", "late")


@dataclass(frozen=True)
class ConversionTaskConfig:
    """What `train conversion` can be told besides the model's and the loop's settings."""

    delay: str = "elapsed"  # one of delay.METHODS: how conversions yet to come are allowed for
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
                    f"--set {name}={getattr(self, name)} is not known.", choose(getattr(self, name), known)
                )
        for name in ("test_share", "valid_share"):
            if not 0 < getattr(self, name) < 0.9:
                raise UsageError(
                    f"--set {name}={getattr(self, name)} is not between 0 and 0.9.", f"Try --set {name}=0.2"
                )
        if self.wait_hours < 0:
            raise UsageError(f"--set wait_hours={self.wait_hours} is below 0.", "Try --set wait_hours=24")


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
        self.rows, self.mapped_bytes = len(data.train), dataset.mapped_bytes
        self.edges = torch.from_numpy(data.delay_edges)  # days, of the buckets of delays
        self.aside = {
            name: 1 + 2 * self.kinds + self.kinds * place for place, name in enumerate(aside_groups(config))
        }

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """Inputs and what was observed, of training observations."""
        batch = self._load(self.data.train, rows)
        mask_time(self.model.config, batch, rng)
        return batch

    def _load(self, seen: Observations, rows: Rows | slice) -> Batch:
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
        buckets = self._buckets(logits)
        total = click_loss(click, seen)
        if late is not None:
            total = total + late_loss(late, batch["seen_late"], batch["seen_repeat"])
        if buckets is not None:
            total = total + bucket_loss(
                buckets, batch["seen_label"], batch["seen_days"], batch["seen_age"], self.edges
            )
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

    def _buckets(self, logits: Tensor) -> Tensor | None:
        """Logits [B, K, N] of the delay of a conversion by bucket; None where the method has none."""
        if self.config.delay != "elapsed":
            return None
        groups = [self._aside(logits, name) for name in ASIDE["elapsed"]]
        return torch.stack([group for group in groups if group is not None], dim=2)

    def _share(self, logits: Tensor, age: Tensor) -> Tensor | None:
        """The share [B, K] of conversions that clicks of `age` [B] days have shown; None without buckets."""
        buckets = self._buckets(logits)
        return None if buckets is None else seen_share(buckets, age.unsqueeze(1), self.edges)

    def _observed(self, logits: Tensor, batch: Batch) -> tuple[Observed, Tensor | None]:
        """What a batch says, weighed as the method has it, and the logits of being late."""
        late, label = self._aside(logits, "late"), batch["seen_label"]
        cvr, share = logits[:, 1 : 1 + self.kinds], self._share(logits, batch["seen_age"])
        weight, mass = delay_weights(
            self.config.delay, cvr, late, label, batch["seen_corrected"], batch["seen_repeat"]
        )
        if share is not None:
            label = elapsed_labels(cvr, share, label)
        seen = Observed(
            clicked=batch["seen_clicked"],
            first=batch["seen_first"],
            entered=batch["seen_entered"],
            label=label,
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
            share = self._share(logits, batch["seen_age"])
            total += float(entire_loss(logits[:, 0], logits[:, 1 : 1 + self.kinds], observed, share))
        return total / max(float(seen.first.sum()), 1.0) if len(seen) else float("nan")

    def _outputs(self, seen: Observations, rows: Rows) -> Iterator[tuple[Tensor, Batch]]:
        """All outputs (logits, those aside included) of observations, some at a time."""
        device = next(self.model.parameters()).device
        for part in row_parts(rows):
            batch = self._load(seen, part)
            batch = {name: value.to(device) for name, value in batch.items()}
            yield self.model.with_penalty(batch)[0].float(), batch

    @torch.inference_mode()
    def calibrate(self) -> NDArray[np.float64]:
        """Move the kinds' biases, and return the money that odds of one stand for.

        The clicks of training then have as many conversions as were observed, weighed, and as much money:
        inverse propensities and early stopping leave the intercept elsewhere. dfm keeps its own. The ratio of
        sums undoes what a logarithm does to the mean (smearing, Duan 1983).
        """
        seen, kinds = self.data.train, self.kinds
        self.model.eval()
        parts = [
            (logits.cpu(), {name: batch[f"seen_{name}"].cpu() for name in (*SEEN, "value")})
            for logits, batch in self._outputs(seen, np.flatnonzero(seen.clicked))
        ]
        logits = torch.cat([part for part, _ in parts])
        known = {name: torch.cat([part[name] for _, part in parts]) for name in (*SEEN, "value")}
        if self.config.delay != "dfm":
            late = self._aside(logits, "late")
            share = self._share(logits, known["age"])
            if share is not None:
                known["share"] = share
            shift = fit_intercepts(self.config.delay, logits[:, 1 : 1 + kinds], late, known)
            self.model.heads.bias[1 : 1 + kinds] += shift.to(self.model.heads.bias)
        money, paid = logits[:, 1 + kinds : 1 + 2 * kinds].double().exp(), known["value"].double()
        predicted = torch.where(torch.isnan(paid), 0.0, money).sum(dim=0).numpy()
        observed = torch.nan_to_num(paid).sum(dim=0).numpy()
        told = (predicted > 0) & (observed > 0)
        return np.asarray(self.scales * np.where(told, observed / np.maximum(predicted, 1e-12), 1.0))


def fit_intercepts(delay: str, cvr: Tensor, late: Tensor | None, known: Mapping[str, Tensor]) -> Tensor:
    """The shift [K] of logits [R, K] at which observations, weighed at the shifted rates, are met in sum.

    Newton's method on sum w (sigmoid(logit + shift) - label) = 0; a step is at most 1, and a kind without
    both outcomes stays.
    """
    valid = ~torch.isnan(known["label"])
    told = torch.nan_to_num(known["label"]).double()
    shift = torch.zeros(cvr.shape[1], dtype=torch.float64)
    both = ((told == 1) & valid).any(dim=0) & ((told == 0) & valid).any(dim=0)
    for _ in range(30):
        moved = cvr.double() + shift
        weight, _ = delay_weights(delay, moved, late, known["label"], known["corrected"], known["repeat"])
        weight = weight * valid
        p = torch.sigmoid(moved)
        label = elapsed_labels(moved, known["share"].double(), told) if "share" in known else told
        slope = (weight * p * (1.0 - p)).sum(dim=0).clamp_min(1e-12)
        step = ((weight * (label - p)).sum(dim=0) / slope).clamp(-1.0, 1.0)
        shift = torch.where(both, shift + step, shift)
    return shift


def aside_groups(config: ConversionTaskConfig) -> tuple[str, ...]:
    """The groups of outputs, one a kind, that only training reads."""
    return (*ASIDE.get(config.delay, ()), *(("imputed",) if config.loss == "escm2-dr" else ()))
