"""Matches predictions and targets by the Hungarian algorithm (section 3.1, equation 1), for all layers and images at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from detr_core.errors import ExpectedError
from detr_core.loss.boxes import generalized_iou
from detr_core.loss.config import FocalLossConfig, SetLossConfig
from detr_core.structures import Target


class NonFiniteError(ExpectedError, ArithmeticError):
    """A prediction or a loss is NaN or infinite."""


@dataclass(frozen=True)
class Matches:
    """M matched pairs of all layers and images, ordered by layer, image and query.

    layer, image, query [M]: the indices of the predictions. target [M]: indices into the batch's concatenated targets.
    Every layer and image has min(Q, T) pairs.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: list[Target], config: SetLossConfig) -> Matches:
    """Returns the one-to-one assignment of queries to targets with the lowest cost, in each layer and image.

    logits [L, B, Q, C+1] ([L, B, Q, C] with the focal loss). boxes [L, B, Q, 4]: cxcywh, normalised to 0..1. targets: B targets.
    The class term of the cost is the negative class probability, not its logarithm. With the focal loss it is the increase of
    that loss if the query is labelled with the class.
    Raises NonFiniteError if a prediction or a cost is NaN or infinite.
    """
    layers, images, queries, _ = logits.shape
    counts = [len(target.labels) for target in targets]
    largest_count = max(counts, default=0)
    # Targets are padded to the largest number of targets in an image, so that one cost tensor is copied to the host.
    labels = torch.zeros(images, largest_count, dtype=torch.int64, device=logits.device)
    target_boxes = torch.zeros(images, largest_count, 4, device=logits.device)
    for image, target in enumerate(targets):
        labels[image, : counts[image]] = target.labels
        target_boxes[image, : counts[image]] = target.boxes
    boxes = boxes.float()[:, :, :, None]  # [L, B, Q, 1, 4]
    scores = logits.float()
    class_cost = _focal_cost(scores, config) if isinstance(config, FocalLossConfig) else -scores.softmax(-1)
    cost = config.classification * class_cost.gather(-1, labels[None, :, None].expand(layers, -1, queries, -1))
    cost += config.l1 * (boxes - target_boxes[None, :, None]).abs().sum(-1)
    cost -= config.giou * generalized_iou(boxes, target_boxes[None, :, None])
    # Without targets no cost could reveal a NaN, so the predictions themselves are checked too.
    finite = (logits.isfinite().all() & boxes.isfinite().all() & cost.isfinite().all()).to(cost.dtype)
    host = torch.cat([cost.flatten(), finite[None]]).cpu().numpy()
    if not host[-1]:
        raise NonFiniteError("the predictions or their matching cost are not finite")
    costs = host[:-1].reshape(layers, images, queries, largest_count)
    rows = []
    offsets = [sum(counts[:image]) for image in range(images)]
    for layer in range(layers):
        for image, count in enumerate(counts):
            matched, target_index = linear_sum_assignment(costs[layer, image, :, :count])
            rows += [(layer, image, q, offsets[image] + t) for q, t in zip(matched.tolist(), target_index.tolist(), strict=True)]
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).to(logits.device, non_blocking=True)
    return Matches(*table.unbind(1))


def _focal_cost(logits: Tensor, config: FocalLossConfig) -> Tensor:
    # Returns the focal loss with label 1 minus the loss with label 0 for every query and class: torchvision's loss in two parts.
    probability = logits.sigmoid()
    positive_loss = config.alpha * (1 - probability) ** config.gamma * F.softplus(-logits)
    negative_loss = (1 - config.alpha) * probability**config.gamma * F.softplus(logits)
    return positive_loss - negative_loss
