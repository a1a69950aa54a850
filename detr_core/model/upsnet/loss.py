"""Computes the losses of UPSNet's semantic head and of its panoptic head for one image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from detr_core.model.upsnet.panoptic_head import VOID

CELLS = 28  # height and width of the semantic logits that are pooled in a box, as of a mask


def semantic_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the mean cross-entropy over the pixels of an image that are not VOID; 0 if there is none.

    logits [C, H, W]. target [H, W]: semantic channels or VOID.
    """
    return _mean_over_valid(logits.flatten(1).T, target.flatten())


def pooled_semantic_loss(logits: Tensor, target: Tensor, boxes: Tensor) -> Tensor:
    """Returns the mean cross-entropy over cells inside the ground-truth boxes of an image (the paper's RoI loss).

    It gives the pixels of small objects more weight. The logits are pooled in 28 x 28 cells a box, and a cell has the class of
    the pixel at its centre. boxes [T, 4]: xyxy in pixels of the map. logits, target: see `semantic_loss`.
    """
    height, width = target.shape
    rows = boxes.new_zeros(len(boxes), 1)
    pooled = roi_align(logits[None], torch.cat([rows, boxes], 1), CELLS, sampling_ratio=2)
    centre = (torch.arange(CELLS, device=boxes.device) + 0.5) / CELLS
    x = boxes[:, :1] + centre * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + centre * (boxes[:, 3:] - boxes[:, 1:2])
    wanted = target[y.long().clamp(0, height - 1)[:, :, None], x.long().clamp(0, width - 1)[:, None, :]]
    return _mean_over_valid(pooled.flatten(2).transpose(1, 2).flatten(0, 1), wanted.flatten())


def panoptic_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy over all channels of the panoptic head.

    The sum is divided by the number of all pixels, VOID or not, as in the authors' results; a mean over the pixels that count is
    more usual. logits [S + K + 1, H, W]. target [H, W]: channels or VOID.
    """
    return F.cross_entropy(logits[None], target[None], ignore_index=VOID, reduction="sum") / target.numel()


def _mean_over_valid(logits: Tensor, target: Tensor) -> Tensor:
    # F.cross_entropy's own mean is NaN without a valid pixel. logits [N, C], target [N].
    total = F.cross_entropy(logits, target, ignore_index=VOID, reduction="sum")
    return total / (target != VOID).sum().clamp(min=1)
