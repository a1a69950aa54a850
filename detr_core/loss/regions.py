"""Faster R-CNN's losses: torchvision's, as sums over images of each image's mean, and GIoU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detr_core.loss.config import RegionLossConfig
from detr_core.model.faster_rcnn import Samples

BETA = 1 / 9  # where smooth L1 turns from a square to a line


def region_losses(samples: Samples, images: float, config: RegionLossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the losses, with its gradient, and its unweighted parts.

    images: of an optimiser step, on every process and in every micro-batch; what is divided by. Each anchor and proposal weighs
    one over how many were sampled in its own image. Where images have as many samples each, which is the rule, this is
    torchvision's mean over all of them; unlike that one it doesn't depend on how a step is dealt to processes and micro-batches.
    """
    of_anchor = _one_over_count(samples.anchor_image) / images
    of_proposal = _one_over_count(samples.proposal_image) / images
    objectness = F.binary_cross_entropy_with_logits(samples.objectness, samples.is_object, reduction="none")
    proposals = F.smooth_l1_loss(samples.anchor_deltas, samples.anchor_wanted, reduction="none", beta=BETA).sum(1)
    classification = F.cross_entropy(samples.logits, samples.labels, reduction="none")
    boxes = F.smooth_l1_loss(samples.deltas, samples.wanted, reduction="none", beta=BETA).sum(1)
    giou = generalized_box_iou_loss(samples.boxes, samples.wanted_boxes, reduction="none")
    parts = {
        "objectness": (objectness * of_anchor[samples.anchor_image]).sum(),
        "proposals": (proposals * of_anchor[samples.object_image]).sum(),
        "classification": (classification * of_proposal[samples.proposal_image]).sum(),
        "boxes": (boxes * of_proposal[samples.positive_image]).sum(),
        "giou": (giou * of_proposal[samples.positive_image]).sum(),
    }
    weights = {name: getattr(config, name) for name in parts}
    total = torch.stack([weights[name] * part for name, part in parts.items() if weights[name] > 0]).sum()
    return total, {name: part.detach() for name, part in parts.items()}


def _one_over_count(image: Tensor) -> Tensor:
    # [number of images]; an image without samples has no row that could ask.
    return 1 / image.bincount().clamp(min=1)
