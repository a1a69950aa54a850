"""Moves a detector to the device that computes it."""

from __future__ import annotations

import torch
from torch import nn

from detr_core.model.common.backbone import Backbone


def place(model: nn.Module, device: torch.device) -> None:
    """Moves the model to `device`, in the memory layout that is fastest there."""
    model.to(device)
    if device.type == "cuda":
        use_channels_last(model)


def use_channels_last(model: nn.Module) -> None:
    """Gives the weights of the model's backbone the memory layout channels-last. Their names, shapes and values stay.

    The backbone's maps have this layout, and a convolution on a GPU would copy a weight of another layout in every step.
    """
    for module in model.modules():
        if isinstance(module, Backbone):
            for weight in module.parameters():
                if weight.dim() == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
