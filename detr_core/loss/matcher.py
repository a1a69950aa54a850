"""Hungarian matching of predictions and targets (section 3.1, equation 1), for all decoder layers and images at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from detr_core.loss.boxes import generalized_iou
from detr_core.loss.config import FocalLossConfig, SetLossConfig
from detr_core.structures import Target


class NonFiniteError(ArithmeticError):
    """Predictions or a loss are NaN or infinite."""


@dataclass(frozen=True)
class Matches:
    """M matched pairs of all layers and images, ordered by layer, image and query.

    layer, image, query [M]: which prediction. target [M]: which of the batch's concatenated targets.
    For every layer and image there are min(Q, T) pairs.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor

    def of_last_layer(self) -> Matches:
        """The pairs of the main output alone."""
        last = self.layer == self.layer[-1] if len(self.layer) else torch.zeros_like(self.layer, dtype=torch.bool)
        return Matches(self.layer[last], self.image[last], self.query[last], self.target[last])


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: list[Target], config: SetLossConfig) -> Matches:
    """The cheapest one-to-one assignment of queries to targets, in each layer and image.

    logits [L, B, Q, C+1] ([L, B, Q, C] with the focal loss), boxes [L, B, Q, 4] cxcywh, B targets. The cost takes the class
    probability, not its logarithm; with the focal loss it is what labelling a query with the class adds to that loss.
    Raises NonFiniteError where a prediction or a cost is NaN or infinite.
    """
    layers, images, queries, _ = logits.shape
    counts = [len(target.labels) for target in targets]
    most = max(counts, default=0)
    # Targets are padded to the largest image's count: one cost tensor, one copy to the host.
    labels = torch.zeros(images, most, dtype=torch.int64, device=logits.device)
    target_boxes = torch.zeros(images, most, 4, device=logits.device)
    for image, target in enumerate(targets):
        labels[image, : counts[image]] = target.labels
        target_boxes[image, : counts[image]] = target.boxes
    boxes = boxes.float()[:, :, :, None]  # [L, B, Q, 1, 4]
    scores = logits.float()
    class_cost = _focal_cost(scores, config) if isinstance(config, FocalLossConfig) else -scores.softmax(-1)
    cost = config.classification * class_cost.gather(-1, labels[None, :, None].expand(layers, -1, queries, -1))
    cost += config.l1 * (boxes - target_boxes[None, :, None]).abs().sum(-1)
    cost -= config.giou * generalized_iou(boxes, target_boxes[None, :, None])
    # Without targets there is no cost that could reveal a NaN, so the predictions' own finiteness travels along.
    finite = (logits.isfinite().all() & boxes.isfinite().all() & cost.isfinite().all()).to(cost.dtype)
    host = torch.cat([cost.flatten(), finite[None]]).cpu().numpy()
    if not host[-1]:
        raise NonFiniteError("the predictions or their matching cost are not finite")
    costs = host[:-1].reshape(layers, images, queries, most)
    rows = []
    offsets = [sum(counts[:image]) for image in range(images)]
    for layer in range(layers):
        for image, count in enumerate(counts):
            matched, target_index = linear_sum_assignment(costs[layer, image, :, :count])
            rows += [(layer, image, q, offsets[image] + t) for q, t in zip(matched.tolist(), target_index.tolist(), strict=True)]
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).to(logits.device, non_blocking=True)
    return Matches(*table.unbind(1))


def _focal_cost(logits: Tensor, config: FocalLossConfig) -> Tensor:
    # The loss of a class that is there minus that of one that isn't, for every query and class; torchvision's loss in two parts.
    probability = logits.sigmoid()
    there = config.alpha * (1 - probability) ** config.gamma * F.softplus(-logits)
    absent = (1 - config.alpha) * probability**config.gamma * F.softplus(logits)
    return there - absent
