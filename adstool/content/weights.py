"""Whether a config and a safetensors file belong together, before memory is given to either."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

SLACK = 10_000_000  # numbers that a model makes for itself: masks, tables of positions
MODEST = 250_000_000  # numbers, a gigabyte


def check_weights(path: Path, config: Any, build: Callable[[], torch.nn.Module]) -> None:
    """Raises ValueError when the model that `build` makes of `config` is larger than the weights can fill.

    It is built on torch's meta device, which has shapes and no memory: a config of a stranger may ask for any
    size. As that costs a second once a process, configs whose numbers can ask for no more than MODEST, a
    matrix a layer, are let be. Raises SafetensorError or OSError for a file that cannot be read.
    """
    with safe_open(path, framework="pt") as stored:
        held = sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    if prod(heapq.nlargest(3, _sizes(config))) <= MODEST:
        return
    with torch.device("meta"):
        model = build()
    wanted = sum(value.numel() for value in (*model.parameters(), *model.buffers()))
    if wanted > held + SLACK:
        raise ValueError(f"the config asks for {wanted:,} numbers, the weights hold {held:,}")


def _sizes(config: Any) -> Iterator[int]:
    """The whole numbers of a config; those of a list together, for tables of many columns are one."""
    if isinstance(config, int) and not isinstance(config, bool):
        yield abs(config)
    elif isinstance(config, dict):
        for value in config.values():
            yield from _sizes(value)
    elif isinstance(config, list):
        inner = [size for value in config for size in _sizes(value)]
        if inner:
            yield sum(inner)
