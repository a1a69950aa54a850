"""Computes Panoptic FPN's losses: those of Mask R-CNN on the things, and the cross-entropy of the semantic branch."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.model.panoptic_fpn.config import PanopticFpnLossConfig
from detr_core.model.panoptic_fpn.model import PanopticFpnSamples
from detr_core.model.regions.losses import weighted_sum
from detr_core.model.regions.mask_losses import mask_rcnn_loss_parts
from detr_core.model.regions.pixel_loss import pixel_loss


def panoptic_fpn_losses(
    samples: PanopticFpnSamples, images: float, config: PanopticFpnLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses, with its gradient, and the unweighted parts by name.

    images: the number of images of an optimizer step over all processes and micro-batches. The semantic loss is the mean over the
    pixels of an image that have a class, summed over images; an image without such pixels adds nothing.
    """
    semantic = [
        pixel_loss(logits, target) for logits, target in zip(samples.semantic_logits, samples.semantic_targets, strict=True)
    ]
    parts = mask_rcnn_loss_parts(samples.things, images, config.beta) | {"semantic": torch.stack(semantic).sum() / images}
    return weighted_sum(parts, config.weights)
