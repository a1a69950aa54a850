"""Brings numbers that the host knows to the GPU, without making the host wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def on_device(values: Sequence[float], device: torch.device) -> Tensor:
    """Returns a few numbers as a float32 tensor [N].

    `torch.tensor(values, device=device)` would copy from the host's memory, for which the host waits until the GPU has finished
    its work. Here each number is an argument of an operator that the GPU executes when it gets there.
    """
    return torch.stack([torch.full((), value, dtype=torch.float32, device=device) for value in values])
