"""From mask logits at the network's stride to masks of the original image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def over_image(mask_logits: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Mask logits at the pixels that the network saw of an image, padding left out.

    mask_logits [K, h, w]: over the padded extent. padded_size: (H, W) of the batch. size: (h, w) of the image in it. Returns
    [K, *size]. The mask covers the padding too, so it must be brought to the padded size and cropped; resizing it to the
    image's own size at once would shift it.
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
    """Binary masks of instances in the original image: bool [K, *original_size].

    mask_logits [K, h, w], padded_size, size: as in `over_image`. threshold: a pixel belongs to the mask above this probability.
    """
    masks = over_image(mask_logits, padded_size, size).sigmoid() > threshold
    return F.interpolate(masks[:, None].byte(), size=original_size, mode="nearest")[:, 0].bool()
