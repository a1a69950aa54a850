"""Computes the loss that the detectors of things and stuff share: the cross-entropy of a semantic segmentation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detr_core.model.regions.targets import NO_CLASS


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the mean cross-entropy over the pixels that have a class; 0, with a gradient of 0, if there is none.

    logits [K, H, W]. target [H, W]: the channel of each pixel, or NO_CLASS.
    """
    total = F.cross_entropy(logits[None], target[None], ignore_index=NO_CLASS, reduction="sum")
    return total / (target != NO_CLASS).sum().clamp(min=1)
