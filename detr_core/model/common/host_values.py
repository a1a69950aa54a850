"""Exchanges numbers between the host and the GPU, so that the host waits for the GPU as seldom as possible."""

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


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host on `device`. A GPU copies it from pinned memory when it gets there."""
    pinned = torch.empty_like(values, pin_memory=True).copy_(values) if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def marked_rows(*marks: Tensor) -> list[Tensor]:
    """Returns the ascending indices of the True elements of each of several tensors, bool [N].

    `nonzero` makes the host wait for each result, whose size it must know. Here it waits once, for the sizes of all results.
    """
    counts = torch.stack([mark.sum() for mark in marks]).tolist()
    return [torch.nonzero_static(mark, size=count)[:, 0] for mark, count in zip(marks, counts, strict=True)]
