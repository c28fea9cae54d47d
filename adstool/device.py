"""The one place that picks where tensors live and in which precision, and says why."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# oneDNN keeps compiled kernels by shape, up to 1,024 in each of its two caches. The last batch of an epoch
# and the distinct items of a batch have ever new shapes, whose kernels would stay for good: half a gigabyte
# over the demo. 64 kernels hold all the steady shapes of a model and cost no time. Read at first use.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "64")


_M_ARENA_MAX = -8  # glibc's number of the option


def limit_heaps() -> None:
    """Let all threads share two heaps, where the C library is glibc; for a process that has no threads yet.

    Otherwise each thread gets a heap of its own and hands little of it back: a quarter of a gigabyte over
    the demo. It costs no time, as the work is in large blocks.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_ARENA_MAX, 2)


def limit_threads(count: int) -> None:
    """Let numpy's products in this process use so many threads; 0: all cores.

    The others spin while they wait for the next product: of a stream of requests they took as much time as
    the ranking itself, and made it no faster.
    """
    import threadpoolctl

    if count:
        threadpoolctl.threadpool_limits(count, user_api="blas")


@dataclass(frozen=True)
class Device:
    """A torch device with the reason it was chosen."""

    name: str  # cuda | mps | cpu
    reason: str

    @property
    def torch(self) -> torch.device:
        """The device as torch names it."""
        import torch

        return torch.device(self.name)


def pick_device() -> Device:
    """The fastest device present: a CUDA GPU, else Apple's GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return Device("cuda", f"a CUDA GPU is present ({torch.cuda.get_device_name(0)})")
    if torch.backends.mps.is_available():
        return Device("mps", "Apple's GPU is present")
    return Device("cpu", f"no GPU found; {torch.get_num_threads()} CPU threads")


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512_BF16 or AMX)."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
