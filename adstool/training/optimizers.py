"""What steps a model is trained with: optimizers for dense layers and for tables, precision and threads."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from adstool.device import Device, cpu_has_bf16
from adstool.training.loop_config import LoopConfig


def precision_of(config: LoopConfig, device: Device) -> str:
    """fp32 or bf16: `auto` takes bf16 on GPUs and on processors that multiply it in hardware."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.name == "cuda" or (device.name == "cpu" and cpu_has_bf16()) else "fp32"


def threads_for(dense: list[nn.Parameter], batch_size: int, available: int) -> int:
    """All threads for steps of 4 GFLOP and more; one for smaller ones, which wait more than they save.

    It depends on nothing that changes between runs: another number of threads rounds sums differently.
    """
    flops = 6 * batch_size * sum(p.numel() for p in dense if p.dim() > 1)
    return available if flops >= 4e9 else 1


def make_optimizers(
    model: nn.Module, config: LoopConfig, device: Device
) -> tuple[list[nn.Parameter], list[Optimizer]]:
    """The dense parameters, and AdamW for them beside SparseAdam for the embedding tables.

    Weight decay is for matrices of the dense layers only: biases, scales and tables have none (tables have
    the penalty on the rows that a batch reads).
    """
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse]
    sparse = {id(weight) for weight in tables}
    dense = [p for p in model.parameters() if id(p) not in sparse]
    groups = [
        {"params": [p for p in dense if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in dense if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = device.name in ("cpu", "cuda")
    optimizers: list[Optimizer] = [torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)]
    if tables:
        optimizers.append(torch.optim.SparseAdam(tables, lr=config.learning_rate))
    return dense, optimizers
