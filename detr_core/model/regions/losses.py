"""Computes Faster R-CNN's losses: torchvision's losses, averaged within each image and summed over images, and GIoU losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.model.regions.config import RegionLossWeights
from detr_core.model.regions.detector import Samples

EPSILON = 1e-7  # against a division by 0 for boxes without an area


def region_losses(samples: Samples, images: float, config: RegionLossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses, with its gradient, and the unweighted parts by name."""
    return weighted_sum(region_loss_parts(samples, images, config.beta), config.weights)


def region_loss_parts(samples: Samples, images: float, beta: float) -> dict[str, Tensor]:
    """Returns the losses of the boxes and their classes by name, unweighted and with gradients.

    A GIoU loss compares the decoded boxes. Its sum over the positives is divided by the number of all samples, as that of smooth
    L1 is, and as in Detectron2, whose Faster R-CNN the paper trains.

    beta: see `RegionLossWeights`. images: the divisor, which is the number of images of an optimiser step over all processes and
    micro-batches. Each anchor and proposal has the weight 1 / (number of samples in its image). If all images have the same
    number of samples, which is the normal case, the result equals torchvision's mean over all samples; unlike that mean it never
    depends on how a step is divided into processes and micro-batches.
    """
    anchor_weight = one_over_count(samples.anchor_image, samples.images) / images
    proposal_weight = one_over_count(samples.proposal_image, samples.images) / images
    objectness = F.binary_cross_entropy_with_logits(samples.objectness, samples.is_object, reduction="none")
    proposals = F.smooth_l1_loss(samples.anchor_deltas, samples.anchor_targets, reduction="none", beta=beta).sum(1)
    classification = F.cross_entropy(samples.logits, samples.labels, reduction="none")
    boxes = F.smooth_l1_loss(samples.deltas, samples.targets, reduction="none", beta=beta).sum(1)
    proposals_giou = giou_loss(samples.anchor_boxes, samples.anchor_target_boxes)
    giou = giou_loss(samples.boxes, samples.target_boxes)
    return {
        "objectness": (objectness * anchor_weight[samples.anchor_image]).sum(),
        "proposals": (proposals * anchor_weight[samples.object_image]).sum(),
        "proposals_giou": (proposals_giou * anchor_weight[samples.object_image]).sum(),
        "classification": (classification * proposal_weight[samples.proposal_image]).sum(),
        "boxes": (boxes * proposal_weight[samples.positive_image]).sum(),
        "giou": (giou * proposal_weight[samples.positive_image]).sum(),
    }


def weighted_sum(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses `parts`, with its gradient, and the losses without gradients."""
    total = torch.stack([weights[name] * part for name, part in parts.items() if weights[name] > 0]).sum()
    return total, {name: part.detach() for name, part in parts.items()}


def one_over_count(image: Tensor, images: int) -> Tensor:
    """Returns one weight per image [B], for the image index of each sample. The weight of an image without samples is never used.

    images: the number of images B.
    """
    return 1 / (image[:, None] == torch.arange(images, device=image.device)).sum(0).clamp(min=1)


def giou_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """Returns 1 - GIoU of each box with the wanted one [N], both [N, 4], xyxy.

    The values are those of torchvision's loss, which makes the host wait for the GPU.
    """
    low, high, wanted_low, wanted_high = boxes[:, :2], boxes[:, 2:], wanted[:, :2], wanted[:, 2:]
    inner_low, inner_high = torch.max(low, wanted_low), torch.min(high, wanted_high)
    intersection = _area(inner_low, inner_high).masked_fill(~(inner_high > inner_low).all(1), 0)
    union = _area(low, high) + _area(wanted_low, wanted_high) - intersection
    iou = intersection / (union + EPSILON)
    around = _area(torch.min(low, wanted_low), torch.max(high, wanted_high))
    return 1 - (iou - (around - union) / (around + EPSILON))


def _area(low: Tensor, high: Tensor) -> Tensor:
    width, height = (high - low).unbind(1)
    return width * height
