"""Computes Mask R-CNN's losses: those of Faster R-CNN, and the cross-entropy of the masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detr_core.model.regions.config import MaskRegionLossWeights
from detr_core.model.regions.losses import one_over_count, region_loss_parts, weighted_sum
from detr_core.model.regions.masks import MaskSamples


def mask_rcnn_losses(samples: MaskSamples, images: float, config: MaskRegionLossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses, with its gradient, and the unweighted parts by name.

    images: the number of images of an optimiser step over all processes and micro-batches.
    """
    return weighted_sum(mask_rcnn_loss_parts(samples, images, config.beta), config.weights)


def mask_rcnn_loss_parts(samples: MaskSamples, images: float, beta: float) -> dict[str, Tensor]:
    """Returns the losses by name, unweighted and with gradients: those of Faster R-CNN, and 'masks'.

    The mask loss is averaged within each image and summed over images, as the other losses are. For one image it equals
    torchvision's; for several images torchvision takes the mean over all their masks, which would depend on how a step is divided
    into processes and micro-batches. images, beta: see `region_loss_parts`.
    """
    losses = F.binary_cross_entropy_with_logits(samples.mask_logits, samples.mask_targets, reduction="none").flatten(1).mean(1)
    mask_weight = one_over_count(samples.mask_image, samples.regions.images) / images
    parts = region_loss_parts(samples.regions, images, beta)
    return parts | {"masks": (losses * mask_weight[samples.mask_image]).sum()}
