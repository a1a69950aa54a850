"""Converts the output of a detector of any kind to detections in pixels of the original images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detr_core.structures import MAX_DETECTIONS, AnyOutput, RegionOutput, SigmoidOutput, SoftmaxOutput


@dataclass
class Detections:
    """The detections of one image, for DETR in the order of its queries, else in descending order of the score.

    scores [N]: probability of the class. labels [N]: class index. boxes [N, 4]: xyxy in pixels of the original image; they may
    reach beyond it, as in the published evaluation. queries [N]: the object query of each detection; for a detector without
    queries, the index of the detection.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    queries: Tensor

    def chosen(self, selection: Tensor) -> Detections:
        """Returns the selected detections in the same order. selection [N]: bool."""
        return Detections(self.scores[selection], self.labels[selection], self.boxes[selection], self.queries[selection])


def postprocess(
    output: AnyOutput, original_sizes: list[tuple[int, int]], empty_slot_override: bool, layer: int = -1
) -> list[Detections]:
    """Returns the detections in each image of a batch, on the CPU.

    original_sizes: (h, w) of each image on disk. empty_slot_override: see `postprocess_softmax`; only DETR has a no-object class.
    layer: the decoder layer whose output is used; Faster R-CNN ignores it.
    """
    if isinstance(output, RegionOutput):
        images = zip(output.scores, output.labels, output.boxes, original_sizes, strict=True)
        return [
            Detections(scores.cpu(), labels.cpu(), scaled_to(size, boxes.cpu()), torch.arange(len(scores)))
            for scores, labels, boxes, size in images
        ]
    logits, boxes = output.logits[layer].cpu(), output.boxes[layer].cpu()
    if isinstance(output, SoftmaxOutput):
        return postprocess_softmax(logits, boxes, original_sizes, empty_slot_override)
    scores, labels, pixels, queries = _best_pairs(logits, boxes, original_sizes)
    return [Detections(*image) for image in zip(scores, labels, pixels, queries, strict=True)]


def postprocess_softmax(
    logits: Tensor, boxes: Tensor, original_sizes: list[tuple[int, int]], empty_slot_override: bool
) -> list[Detections]:
    """Returns the detections of one of DETR's decoder layers in each image of a batch (section 4.1 of the paper).

    logits [B, Q, C+1]; boxes [B, Q, 4]: cxcywh, normalised to 0..1. original_sizes: (h, w) of each image on disk.
    empty_slot_override: every query gives a detection with its best class other than no-object, as in the published metrics;
    without it the queries whose best class is no-object are left out.
    """
    scores, labels, no_object_scores = _best_classes(logits)
    pixels = _in_pixels(boxes, original_sizes)
    is_detection = scores >= no_object_scores
    if empty_slot_override:
        is_detection.fill_(True)
    return [
        Detections(scores[i, queries], labels[i, queries], pixels[i, queries], queries)
        for i, queries in enumerate(row.nonzero()[:, 0] for row in is_detection)
    ]


def in_one_row(output: SoftmaxOutput | SigmoidOutput, original_sizes: list[tuple[int, int]], layer: int = -1) -> Detections:
    """Returns the concatenated detections of all images of a batch, with `empty_slot_override`, in the order of the images.

    Every image has the same number of detections.
    """
    logits, boxes = output.logits[layer].cpu(), output.boxes[layer].cpu()
    if isinstance(output, SoftmaxOutput):
        scores, labels, _ = _best_classes(logits)
        pixels, queries = _in_pixels(boxes, original_sizes), torch.arange(logits.shape[1]).expand_as(labels)
    else:
        scores, labels, pixels, queries = _best_pairs(logits, boxes, original_sizes)
    return Detections(scores.flatten(), labels.flatten(), pixels.flatten(0, 1), queries.flatten())


def _best_classes(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Returns the score and the index of the best class other than no-object, and the score of no-object.
    probabilities = logits.float().softmax(-1)
    scores, labels = probabilities[..., :-1].max(-1)
    return scores, labels, probabilities[..., -1]


def _best_pairs(logits: Tensor, boxes: Tensor, original_sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Returns scores, labels, boxes and queries [B, N] of the (query, class) pairs with the highest sigmoids in each image. One
    # query may therefore give detections of several classes. logits [B, Q, C].
    classes = logits.shape[-1]
    scores, pairs = logits.float().sigmoid().flatten(1).topk(min(MAX_DETECTIONS, logits[0].numel()))
    queries, labels = pairs // classes, pairs % classes
    pixels = _in_pixels(boxes.float(), original_sizes).gather(1, queries[..., None].expand(-1, -1, 4))
    return scores, labels, pixels, queries


def _in_pixels(boxes: Tensor, original_sizes: list[tuple[int, int]]) -> Tensor:
    # boxes [B, N, 4]: cxcywh, normalised to 0..1.
    sizes = boxes.new_tensor([[w, h, w, h] for h, w in original_sizes])
    pixels: Tensor = box_convert(boxes, "cxcywh", "xyxy") * sizes[:, None]
    return pixels


def scaled_to(size: tuple[int, int], boxes: Tensor) -> Tensor:
    """Returns xyxy boxes [N, 4], normalised to 0..1, in pixels of an image of `size` (h, w)."""
    height, width = size
    return boxes.float() * torch.tensor([width, height, width, height], device=boxes.device)
