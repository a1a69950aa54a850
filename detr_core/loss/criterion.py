"""The set loss (section 3.1, equation 2), for all decoder layers at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.loss.boxes import generalized_iou
from detr_core.loss.config import LossConfig
from detr_core.loss.matcher import Matches
from detr_core.structures import Target


@dataclass(frozen=True)
class Normalizer:
    """What losses are divided by: sums over all images of an optimiser step, on every process and in every micro-batch.

    boxes: targets, at least 1. classes: the summed weights of the class loss, which is a weighted mean over queries.
    Both follow from the targets alone, since every image matches min(Q, T) of its queries.
    """

    boxes: float
    classes: float

    @classmethod
    def of(cls, counts: list[int], queries: int, no_object: float) -> Normalizer:
        """For images with `counts` targets each, Q queries and the weight of the no-object class."""
        matched = sum(min(count, queries) for count in counts)
        return cls(max(sum(counts), 1), matched + no_object * (len(counts) * queries - matched))


@dataclass(frozen=True)
class Losses:
    """Unweighted losses of each decoder layer, [L], the last one last; `total` is their weighted sum, with its gradient."""

    classification: Tensor
    l1: Tensor
    giou: Tensor
    total: Tensor


def set_loss(
    logits: Tensor, boxes: Tensor, targets: list[Target], matches: Matches, normalizer: Normalizer, config: LossConfig
) -> Losses:
    """Class, L1 and GIoU losses of matched predictions.

    logits [L, B, Q, C+1], boxes [L, B, Q, 4] cxcywh; matches: of the same L layers. Computed in float32 whatever comes in.
    """
    layers, images, queries, classes = logits.shape
    labels = torch.cat([target.labels for target in targets])
    target_boxes = torch.cat([target.boxes for target in targets])
    at = (matches.layer, matches.image, matches.query)

    no_object = classes - 1
    wanted = torch.full((layers, images, queries), no_object, device=logits.device)
    wanted[at] = labels[matches.target]
    weight = torch.ones(classes, device=logits.device)
    weight[no_object] = config.no_object
    classification = F.cross_entropy(logits.float().flatten(0, 2), wanted.flatten(), weight, reduction="none")
    classification = classification.view(layers, -1).sum(1) / normalizer.classes

    predicted, wanted_boxes = boxes.float()[at], target_boxes[matches.target]
    zeros = torch.zeros(layers, device=logits.device)
    l1 = zeros.index_add(0, matches.layer, (predicted - wanted_boxes).abs().sum(-1)) / normalizer.boxes
    giou = zeros.index_add(0, matches.layer, 1 - generalized_iou(predicted, wanted_boxes)) / normalizer.boxes

    total = (config.classification * classification + config.l1 * l1 + config.giou * giou).sum()
    return Losses(classification.detach(), l1.detach(), giou.detach(), total)
