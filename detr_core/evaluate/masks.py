"""Converts mask logits at the network's stride to masks of the original image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def over_image(mask_logits: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Returns mask logits [K, *size] at the resolution of an image at the network's input, without padding.

    mask_logits [K, h, w]: logits over the padded image. padded_size: (H, W) of the batch. size: (h, w) of the image in the batch.
    The logits cover the padding too, so they are resized to the padded size and then cropped. Resizing them directly to the
    image's size would shift them.
    """
    full = F.interpolate(mask_logits[:, None].float(), size=padded_size, mode="bilinear", align_corners=False)
    return full[:, 0, : size[0], : size[1]]


def instance_masks(
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    size: tuple[int, int],
    original_size: tuple[int, int],
    threshold: float = 0.5,
) -> Tensor:
    """Returns binary masks of instances in the original image, bool [K, *original_size].

    mask_logits [K, h, w], padded_size, size: see `over_image`. threshold: a pixel belongs to the mask above this probability.
    """
    masks = over_image(mask_logits, padded_size, size).sigmoid() > threshold
    return F.interpolate(masks[:, None].byte(), size=original_size, mode="nearest")[:, 0].bool()
