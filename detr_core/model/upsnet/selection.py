"""Chooses the instances of the panoptic map: those with high scores whose masks do not overlap those of better ones too much."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

NMS = 0.5  # IoU above which the box with the lower score is dropped


def confident(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Returns the rows with a score above `threshold` after NMS over all classes together, by descending score.

    boxes [N, 4]: xyxy. scores [N].
    """
    rows: Tensor = nms(boxes, scores, NMS)
    return rows[scores[rows] > threshold]


def not_overlapping(scores: Tensor, channels: Tensor, placed: Tensor, overlap: float) -> Tensor:
    """Returns the rows of the instances that are kept, by descending score.

    An instance is dropped if its mask has no pixel in the image, or if more than the share `overlap` of its pixels belongs to
    kept instances of the same class. scores [K], channels [K]: the class of each instance. placed [K, H, W]: logits of the masks
    in the image; a pixel belongs to a mask if its logit is above 0.
    """
    masks = placed > 0
    areas = masks.flatten(1).sum(1).tolist()
    classes = channels.tolist()
    taken: dict[int, Tensor] = {}
    kept = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        area, mask = areas[row], masks[row]
        earlier = taken.get(classes[row])
        if area == 0 or (earlier is not None and int((mask & earlier).sum()) / area > overlap):
            continue
        taken[classes[row]] = mask if earlier is None else mask | earlier
        kept.append(row)
    return torch.tensor(kept, dtype=torch.int64, device=scores.device)
