"""From a trunk to the logits of every action: one linear layer, towers, a mixture of experts, surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adstool.errors import UsageError
from adstool.models.layers import Mlp

MULTITASK = ("shared", "mmoe")
MOST_SURFACES = 64  # all surfaces' towers are computed for every row


class Experts(nn.Module):
    """MMoE (Ma et al. 2018, eq. 6-7): every task reads its own mixture of E experts, softmax-gated."""

    def __init__(self, inputs: int, tasks: int, experts: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Mlp(inputs, hidden, dropout) for _ in range(experts))
        self.gates = nn.Linear(inputs, tasks * experts)
        self.shape = (tasks, experts)
        self.width = int(hidden[-1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, tasks, width]."""
        gates = torch.softmax(self.gates(x).unflatten(1, self.shape), dim=2)
        return torch.matmul(gates, torch.stack([expert(x) for expert in self.experts], dim=1))


class TaskHeads(nn.Module):
    """Logits of every task from the trunk's output.

    `shared`: all tasks read the trunk; `mmoe`: each reads its mixture of experts. With `tower_hidden` each
    task then has an MLP of its own; the last step is a weight vector and a bias for each task.
    """

    def __init__(
        self,
        inputs: int,
        tasks: int,
        *,
        multitask: str = "shared",
        experts: int = 4,
        expert_hidden: Sequence[int] = (64,),
        tower_hidden: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if multitask not in MULTITASK:
            raise UsageError(f"There is no multitask '{multitask}'.", f"Choose {' or '.join(MULTITASK)}.")
        self.experts: Experts | None = None
        if multitask == "mmoe":
            if experts < 1 or not expert_hidden:
                raise UsageError(
                    "--set multitask=mmoe needs an expert with a layer.",
                    "Give both: --set experts=4 --set expert_hidden=64",
                )
            self.experts = Experts(inputs, tasks, experts, expert_hidden, dropout)
            inputs = self.experts.width
        self.towers: nn.ModuleList | None = None
        if tower_hidden:
            self.towers = nn.ModuleList(Mlp(inputs, tower_hidden, dropout) for _ in range(tasks))
            inputs = int(tower_hidden[-1])
        self.weight = nn.Parameter(torch.empty(tasks, inputs))
        self.bias = nn.Parameter(torch.zeros(tasks))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, tasks]."""
        if self.experts is None and self.towers is None:
            if len(self.bias) == 1 and self.training:
                # A product of rank one is slow as a matrix product on a CPU: its gradient took 9 % of a step.
                return (torch.mv(x, self.weight[0]) + self.bias).unsqueeze(1)
            linear: Tensor = nn.functional.linear(x, self.weight, self.bias)
            return linear
        mixed = self.experts(x) if self.experts is not None else None
        if self.towers is not None:
            inputs = [x if mixed is None else mixed[:, task] for task in range(len(self.towers))]
            mixed = torch.stack([tower(part) for tower, part in zip(self.towers, inputs, strict=True)], dim=1)
        assert mixed is not None
        logits: Tensor = (mixed * self.weight).sum(dim=2) + self.bias
        return logits


class SurfaceTowers(nn.Module):
    """What each surface adds to the shared logits: a small tower a surface, chosen by the surface's code.

    A surface that training has not seen (codes up to `unknown`) adds nothing: the shared logits stand. The
    last layer starts at zero, so that a rare surface leaves the shared logits only as far as its rows pull.
    """

    def __init__(self, inputs: int, tasks: int, surfaces: int, unknown: int, width: int) -> None:
        """`surfaces`: codes are 0 .. surfaces - 1; `width`: hidden units a tower."""
        super().__init__()
        known = surfaces - 1 - unknown
        if not 0 < known <= MOST_SURFACES:
            raise UsageError(
                f"--set surface_towers=true needs 1 to {MOST_SURFACES} surfaces, not {max(known, 0)}.",
                "Leave out surface_towers.",
            )
        self.shape = (known, width)
        self.inside = nn.Linear(inputs, known * width)
        self.out = nn.Parameter(torch.zeros(known * width, tasks))
        self.bias = nn.Parameter(torch.zeros(known, tasks))
        self.codes: Tensor
        self.register_buffer("codes", torch.arange(unknown + 1, surfaces), persistent=False)

    def forward(self, x: Tensor, surface: Tensor) -> Tensor:
        """x [B, inputs], surface [B] int64 -> [B, tasks] to add to the logits."""
        chosen = (surface.unsqueeze(1) == self.codes).to(x.dtype)
        inside = torch.relu(self.inside(x)).reshape(-1, *self.shape) * chosen.unsqueeze(2)
        return torch.matmul(inside.flatten(1), self.out) + torch.matmul(chosen, self.bias)
