"""Computes the set loss (section 3.1 of the paper, equation 2) for all decoder layers at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from detr_core.loss.boxes import generalized_iou
from detr_core.loss.config import FocalLossConfig, SetLossConfig
from detr_core.loss.matcher import Matches
from detr_core.structures import Target


@dataclass(frozen=True)
class Normalizer:
    """The divisors of the losses: sums over all images of an optimizer step, over all processes and micro-batches.

    boxes: the number of targets, at least 1. classes: the divisor of the class loss. For the softmax loss, a weighted mean over
    queries, it is the sum of the weights; for the focal loss it is the number of targets. Both follow from the numbers of
    targets, because exactly min(Q, T) queries of every image are matched.
    """

    boxes: float
    classes: float

    @classmethod
    def of(cls, counts: list[int], queries: int, no_object: float) -> Normalizer:
        """Returns the divisors for images with `counts` targets, `queries` queries, and the weight `no_object` of no-object."""
        matched = sum(min(count, queries) for count in counts)
        return cls(max(sum(counts), 1), matched + no_object * (len(counts) * queries - matched))

    @classmethod
    def of_focal(cls, counts: list[int]) -> Normalizer:
        """Returns the divisors of the focal loss for images with `counts` targets."""
        return cls(max(sum(counts), 1), max(sum(counts), 1))


@dataclass(frozen=True)
class Losses:
    """The unweighted losses of each decoder layer, [L], in the order of the layers. total: their weighted sum with gradient."""

    classification: Tensor
    l1: Tensor
    giou: Tensor
    total: Tensor


def set_loss(
    logits: Tensor, boxes: Tensor, targets: list[Target], matches: Matches, normalizer: Normalizer, config: SetLossConfig
) -> Losses:
    """Returns the class, L1 and GIoU losses of matched predictions.

    logits [L, B, Q, C+1] ([L, B, Q, C] with the focal loss). boxes [L, B, Q, 4]: cxcywh, normalised to 0..1. matches: the matched
    pairs of the same L layers. The losses are computed in float32 for inputs of any dtype.
    """
    labels = torch.cat([target.labels for target in targets])
    target_boxes = torch.cat([target.boxes for target in targets])
    at = (matches.layer, matches.image, matches.query)

    classification = _class_loss(logits.float(), at, labels[matches.target], config) / normalizer.classes

    predicted, matched_boxes = boxes.float()[at], target_boxes[matches.target]
    zeros = torch.zeros(len(logits), device=logits.device)
    l1 = zeros.index_add(0, matches.layer, (predicted - matched_boxes).abs().sum(-1)) / normalizer.boxes
    giou = zeros.index_add(0, matches.layer, 1 - generalized_iou(predicted, matched_boxes)) / normalizer.boxes

    total = (config.classification * classification + config.l1 * l1 + config.giou * giou).sum()
    return Losses(classification.detach(), l1.detach(), giou.detach(), total)


def _class_loss(logits: Tensor, at: tuple[Tensor, Tensor, Tensor], labels: Tensor, config: SetLossConfig) -> Tensor:
    # Returns the class loss summed over images and queries, [L]. at: layer, image and query of every match. labels: its class.
    layers, images, queries, classes = logits.shape
    if isinstance(config, FocalLossConfig):
        one_hot = torch.zeros_like(logits)
        one_hot[(*at, labels)] = 1
        focal: Tensor = sigmoid_focal_loss(logits, one_hot, config.alpha, config.gamma, reduction="none")
        return focal.flatten(1).sum(1)
    no_object = classes - 1
    target_classes = torch.full((layers, images, queries), no_object, device=logits.device)
    target_classes[at] = labels
    weight = torch.ones(classes, device=logits.device)
    weight[no_object] = config.no_object
    loss = F.cross_entropy(logits.flatten(0, 2), target_classes.flatten(), weight, reduction="none")
    return loss.view(layers, -1).sum(1)
