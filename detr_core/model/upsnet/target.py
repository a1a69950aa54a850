"""Builds the target of UPSNet's panoptic head, for training on ground-truth boxes (section 3 of arXiv 1901.03784)."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 0.7  # the share of the objects of an image that are instances; the pixels of the others are unknown


def drawn_instances(count: int, seed: int) -> Tensor:
    """Returns the objects, of `count` in an image, that are instances for the panoptic head, in the order of its channels.

    At least one object is drawn if there is one.
    """
    chosen = max(int(SHARE * count), 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:chosen]


def panoptic_target(semantic_target: Tensor, masks: Tensor, num_stuff: int) -> Tensor:
    """Returns the channel of the panoptic logits that each pixel should have, int64 [H, W].

    Pixels of stuff and of NO_CLASS keep their value. The pixels of a drawn instance get its channel; where masks overlap, the
    later instance gets them. The other pixels of things are 'unknown', the last channel. semantic_target [H, W]: semantic
    channels or NO_CLASS. masks [K, H, W]: bool, the masks of the drawn instances in the order of the channels.
    """
    target = semantic_target.masked_fill(semantic_target >= num_stuff, num_stuff + len(masks))
    for position, mask in enumerate(masks):
        target = target.masked_fill(mask, num_stuff + position)
    return target
