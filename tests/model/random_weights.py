"""Random values of all weights of a detector, also of its norms, which new detectors do not have."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def randomised(model: Any) -> Any:
    """Returns `model`, in eval mode, with random biases, and with scales and variances of norms between 0.5 and 1.5.

    New norms would hide a wrong order of weights and biases, of means and variances, and of the norms themselves.
    """
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        noise = torch.rand(value.shape, generator=generator) if value.is_floating_point() else None
        if noise is not None and ("running_var" in name or (value.dim() == 1 and name.endswith("weight"))):
            value.copy_(0.5 + noise)
        elif noise is not None and value.dim() == 1:
            value.copy_(0.2 * (noise - 0.5))
    return model.eval()
