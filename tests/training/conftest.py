"""Small models train fastest on one thread, the more so where other work runs beside the tests."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
