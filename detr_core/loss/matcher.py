"""Matches predictions and targets by the Hungarian algorithm (section 3.1, equation 1), for all layers and images at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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
    Every layer and image has min(Q, T) pairs. on_host [4, M]: the same four rows on the CPU, where the assignment is computed;
    None if they are not known there.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    on_host: Tensor | None = None

    @classmethod
    def of(cls, on_host: Tensor, device: torch.device) -> Matches:
        """Returns the pairs whose indices are the rows of `on_host` [4, M], with the four fields on `device`."""
        layer, image, query, target = on_host.to(device, non_blocking=True)
        return cls(layer, image, query, target, on_host)


@dataclass(frozen=True)
class Predictions:
    """What is matched: the predictions of L layers, and the targets.

    logits [L, B, Q, C+1] ([L, B, Q, C] with the focal loss). boxes [L, B, Q, 4]: cxcywh, normalised to 0..1. targets: B targets.
    """

    logits: Tensor
    boxes: Tensor
    targets: list[Target]


def match(logits: Tensor, boxes: Tensor, targets: list[Target], config: SetLossConfig) -> Matches:
    """Returns the one-to-one assignment of queries to targets with the lowest cost, in each layer and image.

    The arguments are the fields of `Predictions`. Raises NonFiniteError if a prediction or a cost is NaN or infinite.
    """
    return match_together([Predictions(logits, boxes, targets)], config)[0]


@torch.no_grad()
def match_together(predictions: Sequence[Predictions], config: SetLossConfig) -> list[Matches]:
    """Returns what `match` returns for each element of `predictions`. The host waits only once for the costs of all of them.

    The class term of the cost is the negative class probability, not its logarithm. With the focal loss it is the increase of
    that loss if the query is labelled with the class.
    Raises NonFiniteError if a prediction or a cost is NaN or infinite.
    """
    costs = [_costs(part, config) for part in predictions]
    # Without targets no cost could reveal a NaN, so the predictions themselves are checked too.
    checked = [*costs, *(part.logits for part in predictions), *(part.boxes for part in predictions)]
    finite = torch.stack([values.isfinite().all() for values in checked]).all().to(costs[0].dtype)
    host = torch.cat([*(cost.flatten() for cost in costs), finite[None]]).cpu().numpy()
    if not host[-1]:
        raise NonFiniteError("the predictions or their matching cost are not finite")
    matches, start = [], 0
    for part, cost in zip(predictions, costs, strict=True):
        values = host[start : start + cost.numel()].reshape(cost.shape)
        on_host = _assignment(values, [len(target.labels) for target in part.targets])
        matches.append(Matches.of(on_host, part.logits.device))
        start += cost.numel()
    return matches


def _costs(part: Predictions, config: SetLossConfig) -> Tensor:
    # Returns the costs [L, B, Q, T], where T is the largest number of targets in an image. For other images the last are unused.
    layers, images, queries, _ = part.logits.shape
    counts = [len(target.labels) for target in part.targets]
    largest_count = max(counts, default=0)
    # Targets are padded to the largest number of targets in an image, so that one cost tensor is copied to the host.
    labels = torch.zeros(images, largest_count, dtype=torch.int64, device=part.logits.device)
    target_boxes = torch.zeros(images, largest_count, 4, device=part.logits.device)
    for image, target in enumerate(part.targets):
        labels[image, : counts[image]] = target.labels
        target_boxes[image, : counts[image]] = target.boxes
    boxes = part.boxes.float()[:, :, :, None]  # [L, B, Q, 1, 4]
    scores = part.logits.float()
    class_cost = _focal_cost(scores, config) if isinstance(config, FocalLossConfig) else -scores.softmax(-1)
    cost = config.classification * class_cost.gather(-1, labels[None, :, None].expand(layers, -1, queries, -1))
    cost += config.l1 * (boxes - target_boxes[None, :, None]).abs().sum(-1)
    cost -= config.giou * generalized_iou(boxes, target_boxes[None, :, None])
    return cost


def _assignment(costs: NDArray[np.float32], counts: list[int]) -> Tensor:
    # Returns the rows layer, image, query and target of the pairs with the lowest cost, int64 [4, M].
    rows = []
    offsets = [sum(counts[:image]) for image in range(len(counts))]
    for layer, of_layer in enumerate(costs):
        for image, count in enumerate(counts):
            matched, target_index = linear_sum_assignment(of_layer[image, :, :count])
            rows += [(layer, image, q, offsets[image] + t) for q, t in zip(matched.tolist(), target_index.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).T.contiguous()


def _focal_cost(logits: Tensor, config: FocalLossConfig) -> Tensor:
    # Returns the focal loss with label 1 minus the loss with label 0 for every query and class: torchvision's loss in two parts.
    probability = logits.sigmoid()
    positive_loss = config.alpha * (1 - probability) ** config.gamma * F.softplus(-logits)
    negative_loss = (1 - config.alpha) * probability**config.gamma * F.softplus(logits)
    return positive_loss - negative_loss
