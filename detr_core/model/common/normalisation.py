"""Converts decoded images to the network's input."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, padding: Tensor) -> Tensor:
    """Returns images with ImageNet normalisation, float32 [B, 3, H, W], and zeros on padding as published.

    images [B, 3, H, W]: uint8 RGB. padding [B, H, W]: True on padding. The computation runs on the device of `images`.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).mul_(255).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).mul_(255).view(3, 1, 1)
    return images.contiguous().float().sub_(mean).div_(std).masked_fill_(padding[:, None], 0.0)
