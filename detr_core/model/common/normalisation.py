"""Converts decoded images to the network's input."""

from __future__ import annotations

from torch import Tensor, channels_last, contiguous_format

from detr_core.model.common.host_values import on_device
from detr_core.structures import Padding

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, padding: Padding) -> Tensor:
    """Returns images with ImageNet normalisation, float32 [B, 3, H, W], and zeros on padding as published.

    images [B, 3, H, W]: uint8 RGB. The computation runs on the device of `images`. On a GPU the memory layout is channels-last,
    which batches have and backbones need; a CPU computes each channel at once, which is faster there.
    """
    mean = on_device(IMAGENET_MEAN, images.device).mul_(255).view(3, 1, 1)
    std = on_device(IMAGENET_STD, images.device).mul_(255).view(3, 1, 1)
    layout = channels_last if images.is_cuda else contiguous_format
    normalised = images.contiguous(memory_format=layout).float().sub_(mean).div_(std)
    return normalised.masked_fill_(padding.mask[:, None], 0.0) if padding.exists else normalised
