"""The one training loop: batches in, a trained model out, from any checkpoint to the same bits."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adstool import progress
from adstool.device import Device
from adstool.errors import AdstoolError
from adstool.models.inputs import Batch
from adstool.training.batches import Rows, batch_count, epoch_batches, prefetch, window_rows
from adstool.training.checkpoint import (
    Progress,
    State,
    load_checkpoint,
    optimizer_tensors,
    pack,
    restore_optimizer,
    save_checkpoint,
    unpack,
)
from adstool.training.loop_config import LoopConfig
from adstool.training.optimizers import make_optimizers, precision_of, threads_for
from adstool.warehouse.memory import available_bytes

Part = tuple[int, Batch]  # rows and their tensors: a batch is taken in one part, or in several


class Task(Protocol):
    """What is trained: a model, its examples and its loss."""

    name: str
    rows: int  # training examples, numbered 0 .. rows - 1
    mapped_bytes: int  # of the memory-mapped arrays that they are read from, 0 for none

    @property
    def model(self) -> nn.Module:
        """What is trained; moved to the device by the loop."""
        ...

    def load(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """The tensors of these examples, on the CPU; all randomness from `rng`. Runs in a thread."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of a batch, a scalar."""
        ...

    def validate(self) -> float:
        """The loss on the validation split that early stopping watches; the model is in evaluation mode."""
        ...


class Cluster(Protocol):
    """Several processes that train one model together, each on its share of every batch."""

    @property
    def first(self) -> bool:
        """Whether this process writes the checkpoints."""
        ...

    def share(self, rows: Rows) -> Rows:
        """The rows of a batch that this process takes."""
        ...

    def mean(self, value: float, weight: float) -> float:
        """The weighted mean of the processes' values."""
        ...

    def average_gradients(self, model: nn.Module, weight: float) -> None:
        """Replace the gradients by their weighted mean over the processes."""
        ...


@dataclass(frozen=True)
class FitResult:
    """How training went; the model is left with the weights of the best epoch."""

    curve: list[dict[str, float]]  # epoch, train_loss, valid_loss, a row an epoch
    epochs: int
    best_epoch: int
    best_loss: float
    rows_per_second: float
    seconds: float
    precision: str  # fp32 | bf16, as it was
    resumed: bool


def fit(
    task: Task,
    config: LoopConfig,
    device: Device,
    run_dir: Path,
    fingerprint: str,
    resume: bool = True,
    cluster: Cluster | None = None,
) -> FitResult:
    """Train until validation stops improving, and leave the best weights in the task's model.

    `fingerprint` stands for the data, the configuration and the seed: with a checkpoint of the same one in
    `run_dir`, training goes on from it and ends with the same bits as if it had never stopped. Raises
    AdstoolError naming epoch and batch when the loss is no longer finite. With a `cluster`, this process is
    one of several that do so together.
    """
    fitting = _Fit(task, config, device, run_dir, fingerprint, cluster)
    before = torch.get_num_threads()
    torch.set_num_threads(threads_for(fitting.dense, config.batch_size, before))
    try:
        return fitting.run(resume)
    finally:
        torch.set_num_threads(before)


class _Fit:
    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        device: Device,
        run_dir: Path,
        fingerprint: str,
        cluster: Cluster | None,
    ) -> None:
        self.task, self.config, self.device = task, config, device
        self.run_dir, self.fingerprint, self.cluster = run_dir, fingerprint, cluster
        self.model = task.model.to(device.torch)
        self.dense, self.optimizers = make_optimizers(self.model, config, device)
        self.progress = Progress()
        if cluster is None:  # machines of a cluster differ in memory, and must agree on the order
            self.progress.window = window_rows(task.rows, task.mapped_bytes, available_bytes())
        self.best: dict[str, Tensor] = {}
        self.mean: dict[str, Tensor] = _copy(self.model) if config.average > 0 else {}
        self.steps = batch_count(task.rows, config.batch_size)
        self.precision = precision_of(config, device)

    def run(self, resume: bool) -> FitResult:
        """All epochs from the checkpoint, or from the start."""
        state = load_checkpoint(self.run_dir, self.fingerprint) if resume else None
        rng = self._restore(state) if state is not None else None
        done = self.progress
        total = self.config.epochs * self.task.rows
        with progress.bar(f"train {self.task.name}", total=total, unit=" rows") as shown:
            shown.update(done.epoch * self.task.rows + done.loss_rows)
            while not done.finished and done.epoch < self.config.epochs:
                self._epoch(rng, shown)
                rng = None
        if self.best:
            self.model.load_state_dict(self.best)
        rate = done.trained_rows / done.seconds if done.seconds else 0.0
        return FitResult(
            curve=done.curve,
            epochs=done.epoch,
            best_epoch=done.best_epoch,
            best_loss=done.best_loss,
            rows_per_second=rate,
            seconds=done.seconds,
            precision=self.precision,
            resumed=state is not None,
        )

    def _restore(self, state: State) -> Tensor | None:
        self.progress = state.progress
        self.model.load_state_dict(unpack("model", state.tensors))
        self.best = unpack("best", state.tensors)
        self.mean = {k: v.to(self.device.torch) for k, v in unpack("average", state.tensors).items()}
        for index, optimizer in enumerate(self.optimizers):
            restore_optimizer(optimizer, unpack(f"optimizer{index}", state.tensors))
        progress.log.info(
            f"Going on with {self.task.name} from epoch {state.progress.epoch}, batch {state.progress.step}."
        )
        return state.tensors.get("rng")

    def _save(self) -> None:
        if self.cluster is not None and not self.cluster.first:
            return
        tensors = {
            **pack("model", self.model.state_dict()),
            **pack("best", self.best),
            **pack("average", self.mean),
        }
        for index, optimizer in enumerate(self.optimizers):
            tensors |= pack(f"optimizer{index}", optimizer_tensors(optimizer))
        tensors["rng"] = _rng_state(self.device)
        save_checkpoint(self.run_dir, self.fingerprint, State(self.progress, tensors))

    def _jobs(self) -> Iterator[partial[tuple[Rows, list[Part]]]]:
        """The epoch's remaining batches; each has its own random stream, so reading ahead changes nothing."""
        seed, epoch = self.config.seed, self.progress.epoch
        rng = np.random.default_rng((seed, epoch))
        order = epoch_batches(self.task.rows, self.config.batch_size, rng, window=self.progress.window)
        for step, rows in itertools.islice(enumerate(order), self.progress.step, None):
            yield partial(self._load, rows, (seed, epoch, step + 1))

    def _load(self, rows: Rows, stream: tuple[int, int, int]) -> tuple[Rows, list[Part]]:
        share = rows if self.cluster is None else self.cluster.share(rows)
        rng = np.random.default_rng(stream)
        parts = [share]
        if self.config.accumulate > 1:
            parts = [part for part in np.array_split(share, self.config.accumulate) if len(part)]
        return rows, [(len(part), self.task.load(part, rng)) for part in parts]

    def _epoch(self, rng: Tensor | None, shown: Any) -> None:
        done, config = self.progress, self.config
        if rng is not None and done.step:
            _set_rng_state(rng, self.device)
        else:
            torch.manual_seed(config.seed * 1_000_003 + done.epoch + 1)
        self.model.train()
        started = saved = time.perf_counter()
        for rows, parts in prefetch(self._jobs()):
            value = self._step(parts, rows)
            done.loss_sum += value * len(rows)
            done.loss_rows += len(rows)
            done.step += 1
            shown.update(len(rows))
            now = time.perf_counter()
            if now - saved > config.checkpoint_seconds:
                done.seconds += now - started
                started = saved = now
                self._save()
        done.seconds += time.perf_counter() - started
        self._end_epoch(shown)

    def _step(self, parts: list[Part], rows: Rows) -> float:
        rate = self._rate()
        for optimizer in self.optimizers:
            tables = isinstance(optimizer, torch.optim.SparseAdam)
            for group in optimizer.param_groups:
                group["lr"] = rate * self.config.table_rate if tables else rate
            optimizer.zero_grad(set_to_none=True)
        share = sum(count for count, _ in parts)
        value = sum(self._add_gradient(batch, count / max(share, 1)) for count, batch in parts)
        if self.cluster is not None:
            value = self.cluster.mean(value, share)
        if not math.isfinite(value):
            raise AdstoolError(
                f"train {self.task.name}: the loss became {value} in epoch {self.progress.epoch + 1}, batch "
                f"{self.progress.step + 1} of {self.steps} (examples {rows.min()} to {rows.max()} of the "
                "training split).",
                "Lower the learning rate (--set learning_rate=...), or look for damaged numbers in the data.",
            )
        if self.cluster is not None:
            self.cluster.average_gradients(self.model, share)
        nn.utils.clip_grad_norm_(self.dense, self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.progress.trained_rows += len(rows)
        if self.mean:
            self._average()
        return value

    def _add_gradient(self, batch: Batch, share: float) -> float:
        """Add a part's gradient by its share of the batch's rows; returns the loss times that share."""
        there = {name: value.to(self.device.torch) for name, value in batch.items()}
        with torch.autocast(self.device.name, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.task.loss(there)
        loss = loss if share == 1.0 else loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _rate(self) -> float:
        """The learning rate of the step to come: a linear rise, then as the schedule says."""
        step = self.progress.epoch * self.steps + self.progress.step
        rate = self.config.learning_rate * min(1.0, (step + 1) / max(self.config.warmup, 1))
        if self.config.schedule == "cosine":
            part = step / max(self.config.epochs * self.steps, 1)
            rate *= 0.1 + 0.45 * (1.0 + math.cos(math.pi * part))
        elif self.config.schedule == "plateau":
            rate *= 0.1**self.progress.drops
        return rate

    @torch.no_grad()
    def _average(self) -> None:
        # The weight of the past grows with the steps taken, so that the first weights are soon forgotten.
        step = self.progress.epoch * self.steps + self.progress.step
        weight = min(self.config.average, (1.0 + step) / (10.0 + step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.mean[name].lerp_(value, 1.0 - weight)

    def _end_epoch(self, shown: Any) -> None:
        done = self.progress
        kept = self.mean or None
        current = _copy(self.model) if kept else {}
        if kept:
            self.model.load_state_dict(kept)
        self.model.eval()
        with torch.inference_mode():
            valid = self.task.validate()
        done.epoch += 1
        train = done.loss_sum / max(done.loss_rows, 1)
        done.curve.append({"epoch": done.epoch, "train_loss": train, "valid_loss": valid})
        if not math.isfinite(valid) and done.epoch == 1:
            # No validation rows, or none with both outcomes: the last epoch is then the best there is.
            progress.log.warning(f"{self.task.name}: the validation loss is {valid}; no early stopping.")
        if valid < done.best_loss or not math.isfinite(valid):
            done.best_loss = valid if math.isfinite(valid) else done.best_loss
            done.best_epoch, done.waited = done.epoch, 0
            self.best = _copy(self.model)
        else:
            done.waited += 1
            done.drops += 1
        if kept:
            self.model.load_state_dict(current)
        done.finished = done.waited >= self.config.patience or done.epoch >= self.config.epochs
        done.step, done.loss_sum, done.loss_rows = 0, 0.0, 0
        shown.set_postfix(epoch=done.epoch, train=f"{train:.4f}", valid=f"{valid:.4f}")
        progress.log.debug(f"{self.task.name} epoch {done.epoch}: train {train:.5f}, valid {valid:.5f}")
        self._save()


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _rng_state(device: Device) -> Tensor:
    return torch.cuda.get_rng_state() if device.name == "cuda" else torch.get_rng_state()


def _set_rng_state(state: Tensor, device: Device) -> None:
    if device.name == "cuda":
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)
