"""Computes Mask R-CNN's losses: those of Faster R-CNN, and the cross-entropy of the masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detr_core.model.faster_rcnn import loss as faster_rcnn
from detr_core.model.faster_rcnn.loss import one_over_count, weighted_sum
from detr_core.model.mask_rcnn.config import MaskRcnnLossConfig
from detr_core.model.mask_rcnn.model import MaskSamples


def mask_rcnn_losses(samples: MaskSamples, images: float, config: MaskRcnnLossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses, with its gradient, and the unweighted parts by name.

    images: the number of images of an optimiser step over all processes and micro-batches.
    """
    return weighted_sum(parts_of(samples, images, config.beta), config.weights)


def parts_of(samples: MaskSamples, images: float, beta: float) -> dict[str, Tensor]:
    """Returns the losses by name, unweighted and with gradients: those of Faster R-CNN, and 'masks'.

    The mask loss is averaged within each image and summed over images, as the other losses are. For one image it equals
    torchvision's; for several images torchvision takes the mean over all their masks, which would depend on how a step is divided
    into processes and micro-batches. images, beta: see `detr_core.model.faster_rcnn.loss.parts_of`.
    """
    losses = F.binary_cross_entropy_with_logits(samples.mask_logits, samples.mask_targets, reduction="none").flatten(1).mean(1)
    mask_weight = one_over_count(samples.mask_image) / images
    parts = faster_rcnn.parts_of(samples.regions, images, beta)
    return parts | {"masks": (losses * mask_weight[samples.mask_image]).sum()}
