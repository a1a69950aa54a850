"""Computes UPSNet's losses: those of Mask R-CNN on the things, of the semantic head, and of the panoptic head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from detr_core.model.regions.losses import weighted_sum
from detr_core.model.regions.mask_losses import mask_rcnn_loss_parts
from detr_core.model.regions.pixel_loss import pixel_loss
from detr_core.model.regions.targets import NO_CLASS
from detr_core.model.upsnet.config import UpsnetLossConfig
from detr_core.model.upsnet.model import UpsnetSamples

SEMANTIC_CELLS = 28  # height and width of the semantic logits that are pooled in a box, as many as a predicted mask has


def upsnet_losses(samples: UpsnetSamples, images: float, config: UpsnetLossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the weighted sum of the losses, with its gradient, and the unweighted parts by name.

    images: the number of images of an optimizer step over all processes and micro-batches. Each loss is a mean within an image,
    summed over images.
    """
    of_images = [
        torch.stack(
            [
                pixel_loss(image.semantic_logits, image.semantic_target),
                pooled_semantic_loss(image.semantic_logits, image.semantic_target, image.boxes),
                panoptic_loss(image.panoptic_logits, image.panoptic_target),
            ]
        )
        for image in samples.pixels
    ]
    semantic, semantic_boxes, panoptic = torch.stack(of_images).sum(0) / images
    parts = mask_rcnn_loss_parts(samples.things, images, config.beta)
    parts |= {"semantic": semantic, "semantic_boxes": semantic_boxes, "panoptic": panoptic}
    return weighted_sum(parts, config.weights)


def pooled_semantic_loss(logits: Tensor, target: Tensor, boxes: Tensor) -> Tensor:
    """Returns the mean cross-entropy over cells inside the ground-truth boxes of an image (the paper's RoI loss).

    It gives the pixels of small objects more weight. The logits are pooled in 28 x 28 cells a box, and a cell has the class of
    the pixel at its centre. boxes [T, 4]: xyxy in pixels of the map. logits, target: see `pixel_loss`.
    """
    height, width = target.shape
    rows = boxes.new_zeros(len(boxes), 1)
    pooled = roi_align(logits[None], torch.cat([rows, boxes], 1), SEMANTIC_CELLS, sampling_ratio=2, aligned=True)
    centre = (torch.arange(SEMANTIC_CELLS, device=boxes.device) + 0.5) / SEMANTIC_CELLS
    x = boxes[:, :1] + centre * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + centre * (boxes[:, 3:] - boxes[:, 1:2])
    of_cell = target[y.long().clamp(0, height - 1)[:, :, None], x.long().clamp(0, width - 1)[:, None, :]]
    return pixel_loss(pooled.transpose(0, 1).flatten(1, 2), of_cell.flatten(0, 1))


def panoptic_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy over all channels of the panoptic head.

    The sum is divided by the number of all pixels, with a class or without, as in the authors' results; a mean over the pixels
    that count is more usual. logits [S + K + 1, h, w]. target [h, w]: channels or NO_CLASS.
    """
    return F.cross_entropy(logits[None], target[None], ignore_index=NO_CLASS, reduction="sum") / target.numel()
