"""How the training loop trains."""

from __future__ import annotations

from dataclasses import dataclass

from adstool.errors import UsageError, choose


@dataclass(frozen=True)
class LoopConfig:
    """How the loop trains; every key can be given by --set."""

    epochs: int = 10  # at most; early stopping may end sooner
    batch_size: int = 2048  # rows a step
    learning_rate: float = 1e-3  # of Adam
    table_rate: float = 1.0  # the learning rate of embedding tables, in learning rates of the dense layers
    weight_decay: float = 1e-4  # decoupled, on matrices of the dense layers
    patience: int = 2  # epochs without a better validation loss before stopping
    seed: int = 0
    # constant | cosine, down to a tenth over all epochs | plateau, to a tenth after an epoch no better
    schedule: str = "constant"
    warmup: int = 20  # steps over which the learning rate rises from nothing
    precision: str = "auto"  # fp32 | bf16 for the dense layers' products; auto: bf16 where it is in hardware
    average: float = 0.0  # weight of the past in the averaged model that is validated and kept; 0: none
    clip: float = 10.0  # largest norm of the dense gradient
    accumulate: int = 1  # parts a batch is taken in, their gradients added up: large batches in little memory
    checkpoint_seconds: float = 60.0  # between checkpoints inside an epoch; each epoch ends with one

    def validate(self) -> None:
        """Raise UsageError for values that cannot be trained with."""
        for name in ("epochs", "batch_size", "patience", "accumulate"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"--set {name}={getattr(self, name)} is below 1.", f"Leave out {name}, or give 1 or more."
                )
        if not self.learning_rate > 0:
            raise UsageError(
                f"--set learning_rate={self.learning_rate} is not above 0.", "Try --set learning_rate=0.001"
            )
        for name, choices in (
            ("schedule", ("constant", "cosine", "plateau")),
            ("precision", ("auto", "fp32", "bf16")),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"--set {name}={getattr(self, name)} is not known.", choose(getattr(self, name), choices)
                )
        if not 0 <= self.average < 1:
            raise UsageError(
                f"--set average={self.average} is not from 0 to below 1.", "Try 0.99, or 0 for none."
            )
