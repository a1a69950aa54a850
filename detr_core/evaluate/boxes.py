"""From the network's class logits and boxes to detections in the original image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert


@dataclass
class Detections:
    """What was found in one image, in the order of the queries.

    scores [N]: probability of the class. labels [N]: class index. boxes [N, 4]: xyxy, pixels of the original image; they may
    reach beyond it, as in the published evaluation. queries [N]: the object query that each one comes from.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    queries: Tensor

    def chosen(self, which: Tensor) -> Detections:
        """Some of them, in the same order. which [N]: bool."""
        return Detections(self.scores[which], self.labels[which], self.boxes[which], self.queries[which])


def detections(
    logits: Tensor, boxes: Tensor, original_sizes: list[tuple[int, int]], empty_slot_override: bool
) -> list[Detections]:
    """The detections of one decoder layer in each image of a batch (section 4.1).

    logits [B, Q, C+1]; boxes [B, Q, 4]: cxcywh, 0..1. original_sizes: (h, w) of each image on disk.
    empty_slot_override: every query counts, with its best class other than no-object, as in the published figures; without
    it the queries where no-object wins are left out.
    """
    scores, labels, nothing = _best_classes(logits)
    pixels = _in_pixels(boxes, original_sizes)
    found = scores >= nothing
    if empty_slot_override:
        found.fill_(True)
    return [
        Detections(scores[i, queries], labels[i, queries], pixels[i, queries], queries)
        for i, queries in enumerate(row.nonzero()[:, 0] for row in found)
    ]


def every_query(logits: Tensor, boxes: Tensor, original_sizes: list[tuple[int, int]]) -> Detections:
    """What `detections` with `empty_slot_override` gives, of all images of the batch together, image by image: [B * Q]."""
    scores, labels, _ = _best_classes(logits)
    queries = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits))
    return Detections(scores.flatten(), labels.flatten(), _in_pixels(boxes, original_sizes).flatten(0, 1), queries)


def _best_classes(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # The score and the index of the best class other than no-object, and no-object's score.
    probabilities = logits.float().softmax(-1)
    scores, labels = probabilities[..., :-1].max(-1)
    return scores, labels, probabilities[..., -1]


def _in_pixels(boxes: Tensor, original_sizes: list[tuple[int, int]]) -> Tensor:
    sizes = boxes.new_tensor([[w, h, w, h] for h, w in original_sizes])
    pixels: Tensor = box_convert(boxes, "cxcywh", "xyxy") * sizes[:, None]
    return pixels
