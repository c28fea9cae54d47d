"""`train engagement --engine ray`: one training run on several workers of a Ray cluster, with Ray Train.

Every worker holds the whole model and takes its share of the rows of each batch; gradients are averaged
before each step. So batches and steps are those of one process, and the outcome is the same up to rounding,
to what dropout draws and to how sample weights and masked labels fall into the shares. Gradients of
embedding tables stay sparse: workers exchange the rows that their shares touched, not the tables. Worker 0
writes the checkpoints, in the local engine's format; all must see the run's folder under the same path.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from adstool.device import Device
from adstool.errors import AdstoolError, UsageError
from adstool.progress import log
from adstool.training.batches import Rows
from adstool.training.loop import FitResult, Task, fit
from adstool.training.loop_config import LoopConfig
from adstool.training.options import Runner

WORKER_DEVICE = Device("cpu", "workers of Ray train on processors and exchange gradients by gloo")


class Workers:
    """The workers of a process group as the training loop sees them; implements training.loop.Cluster."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    @property
    def first(self) -> bool:
        """Whether this worker writes the checkpoints."""
        return self.rank == 0

    def share(self, rows: Rows) -> Rows:
        """This worker's rows of a batch; a batch of fewer rows than workers goes to all of them whole."""
        return rows[self.rank :: self.size] if len(rows) >= self.size else rows

    def mean(self, value: float, weight: float) -> float:
        """The mean of the workers' values, weighted; not finite when any of them is not."""
        both = torch.tensor([value * weight, weight], dtype=torch.float64)
        distributed.all_reduce(both)
        return float(both[0] / both[1])

    def average_gradients(self, model: nn.Module, weight: float) -> None:
        """Replace every gradient by its mean over the workers, weighted by their rows.

        Dense ones travel as one vector. Sparse ones travel as (row, values), padded to the longest, and stay
        sparse: their cost follows the batch, not the table.
        """
        total = torch.tensor([weight], dtype=torch.float64)
        distributed.all_reduce(total)
        part = weight / float(total)
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = (
                    torch.zeros_like(parameter) if not _is_table(model, parameter) else _nothing(parameter)
                )
        dense = [p.grad for p in trained if p.grad is not None and not p.grad.is_sparse]
        if dense:
            flat = torch.cat([gradient.flatten() for gradient in dense]).mul_(part)
            distributed.all_reduce(flat)
            for gradient, values in zip(dense, torch.split(flat, [g.numel() for g in dense]), strict=True):
                gradient.copy_(values.view_as(gradient))
        for parameter in trained:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._gathered(parameter.grad, part)

    def _gathered(self, gradient: Tensor, part: float) -> Tensor:
        own = gradient.coalesce()
        rows, values = own.indices()[0], own.values() * part
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        distributed.all_gather(counts, torch.tensor([len(rows)]))
        longest = max(int(count) for count in counts)
        padded_rows = nn.functional.pad(rows, (0, longest - len(rows)))
        padded_values = nn.functional.pad(values, (0, 0, 0, longest - len(rows)))
        all_rows = [torch.empty_like(padded_rows) for _ in counts]
        all_values = [torch.empty_like(padded_values) for _ in counts]
        distributed.all_gather(all_rows, padded_rows)
        distributed.all_gather(all_values, padded_values)
        kept = [int(count) for count in counts]
        index = torch.cat([one[:n] for one, n in zip(all_rows, kept, strict=True)])
        summed = torch.cat([one[:n] for one, n in zip(all_values, kept, strict=True)])
        return torch.sparse_coo_tensor(index.unsqueeze(0), summed, gradient.shape).coalesce()


def _is_table(model: nn.Module, parameter: nn.Parameter) -> bool:
    return any(isinstance(m, nn.Embedding) and m.sparse and m.weight is parameter for m in model.modules())


def _nothing(parameter: Tensor) -> Tensor:
    empty = torch.empty((1, 0), dtype=torch.int64)
    return torch.sparse_coo_tensor(empty, parameter.new_empty((0, parameter.shape[1])), parameter.shape)


def ray_runner(workers: int | None = None) -> Runner:
    """What takes the place of training.loop.fit: the same run by `workers` of Ray, on a cluster or here.

    As many workers as there are CPUs when None. Raises AdstoolError when Ray Train is not installed.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers} can do nothing.", "Give a number from 1.")
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.train.torch")
    except ImportError:
        raise AdstoolError(
            "--engine ray needs Ray Train, which is not installed.",
            "Install it: pip install 'adstool[ray]'",
        ) from None

    def run(
        task: Task, config: LoopConfig, device: Device, run_dir: Path, fingerprint: str, resume: bool = True
    ) -> FitResult:
        ours = not ray.is_initialized()
        if ours:
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
        try:
            count = workers or int(ray.cluster_resources().get("CPU", 1))
            _train(ray, count, task, config, run_dir, fingerprint, resume)
        finally:
            if ours:
                ray.shutdown()
        # The finished checkpoint holds all: the local loop takes the best weights from it and trains no more.
        done = fit(task, config, WORKER_DEVICE, run_dir, fingerprint, resume=True)
        return replace(done, resumed=resume)

    return run


def _train(
    ray: Any, workers: int, task: Task, config: LoopConfig, run_dir: Path, fingerprint: str, resume: bool
) -> None:
    train = importlib.import_module("ray.train")
    torch_train = importlib.import_module("ray.train.torch")
    log.info("ray: %d workers", workers)
    work = {
        "task": ray.put(task),  # once a machine: the workers share its arrays
        "config": config,
        "run_dir": run_dir.resolve(),
        "fingerprint": fingerprint,
        "resume": resume,
        "threads": max(1, (os.cpu_count() or 1) // workers),
    }
    with tempfile.TemporaryDirectory(prefix="adstool-ray-") as storage:
        trainer = torch_train.TorchTrainer(
            _work,
            train_loop_config=work,
            scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=False),
            torch_config=torch_train.TorchConfig(backend="gloo"),
            run_config=train.RunConfig(storage_path=storage, name="train"),
        )
        try:
            trainer.fit()
        except Exception as error:
            causes = getattr(error, "worker_failures", None) or {0: error.__cause__ or error}
            cause = next(iter(causes.values()))
            cause = getattr(cause, "cause", None) or cause
            if isinstance(cause, AdstoolError):
                raise cause from None
            raise AdstoolError(
                f"A worker failed: {type(cause).__name__}: {cause}",
                "Train again: it goes on from the last checkpoint. --engine local shows more.",
            ) from error


def _work(work: dict[str, Any]) -> None:
    """What each worker does; Ray Train has set up the process group."""
    ray: Any = importlib.import_module("ray")
    torch.set_num_threads(work["threads"])
    task: Task = ray.get(work["task"])
    cluster = Workers()
    fit(
        task,
        work["config"],
        WORKER_DEVICE,
        work["run_dir"],
        work["fingerprint"],
        resume=work["resume"],
        cluster=cluster,
    )
    distributed.barrier()
