"""Computes Panoptic FPN's losses: those of Mask R-CNN on the things, and the cross-entropy of the semantic branch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.model.panoptic_fpn.config import PanopticFpnLossConfig
from detr_core.model.panoptic_fpn.model import PanopticFpnSamples
from detr_core.model.regions.losses import weighted_sum
from detr_core.model.regions.mask_losses import mask_rcnn_loss_parts
from detr_core.model.regions.targets import NO_CLASS


def panoptic_fpn_losses(
    samples: PanopticFpnSamples, images: float, config: PanopticFpnLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses, with its gradient, and the unweighted parts by name.

    images: the number of images of an optimiser step over all processes and micro-batches. The semantic loss is the mean over the
    pixels of an image that have a class, summed over images; an image without such pixels adds nothing.
    """
    semantic = [
        pixel_loss(logits, wanted) for logits, wanted in zip(samples.semantic_logits, samples.semantic_targets, strict=True)
    ]
    parts = mask_rcnn_loss_parts(samples.things, images, config.beta) | {"semantic": torch.stack(semantic).sum() / images}
    return weighted_sum(parts, config.weights)


def pixel_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Returns the mean cross-entropy over the pixels that have a class; 0, with a gradient of 0, if there is none.

    logits [K, H, W]. wanted [H, W]: the channel of each pixel, or NO_CLASS.
    """
    total = F.cross_entropy(logits[None], wanted[None], ignore_index=NO_CLASS, reduction="sum")
    return total / (wanted != NO_CLASS).sum().clamp(min=1)
