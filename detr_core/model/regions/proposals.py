"""Selects the proposals of a batch: the best candidates of each level, reduced by non-maximum suppression (NMS)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from detr_core.model.common.host_values import marked_rows

SMALLEST = 1e-3  # pixels; candidates with a smaller width or height are no proposals
COMPARED = 2**15  # boxes that a GPU compares at once; the memory grows with the square, and is 128 MiB for this number


def best_of_levels(objectness: Tensor, anchors: list[int], most: int) -> tuple[Tensor, Tensor]:
    """Returns the indices [B, N] of the anchors with the highest objectness, at most `most` of each level, and the levels [N].

    objectness [B, A]. anchors: the number of anchors of each level, in the order of the A anchors.
    """
    best, start = [], 0
    for of_level in torch.split(objectness, anchors, 1):
        best.append(of_level.topk(min(most, of_level.shape[1]), 1).indices + start)
        start += of_level.shape[1]
    levels = [torch.full((rows.shape[1],), level, device=rows.device) for level, rows in enumerate(best)]
    return torch.cat(best, 1), torch.cat(levels)


def kept_proposals(
    boxes: Tensor, scores: Tensor, levels: Tensor, sizes: list[tuple[int, int]], threshold: float, most: int
) -> list[Tensor]:
    """Returns at most `most` boxes of each image that are left after an NMS on each level, [N_i, 4], by descending score.

    boxes [B, N, 4]: xyxy in pixels. scores [B, N]: 0..1. levels [N]. sizes: (h, w) of each image, to which its boxes are clipped.
    threshold: the IoU above which the box with the lower score is dropped.
    """
    boxes = torch.stack([clip_boxes_to_image(of_image, size) for of_image, size in zip(boxes, sizes, strict=True)])
    usable = (boxes[..., 2:] - boxes[..., :2] >= SMALLEST).all(2) & (scores >= 0)  # the latter is false for scores that are NaN
    if not boxes.is_cuda:
        kept = []
        for of_image, score, is_usable in zip(boxes, scores, usable, strict=True):
            (rows,) = marked_rows(is_usable)
            best = batched_nms(of_image[rows], score[rows], levels[rows], threshold)[:most]
            kept.append(of_image[rows[best]])
        return kept
    at_once = max(1, COMPARED // len(levels))
    side = 1 + max(max(size) for size in sizes)
    ranked: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(boxes), at_once):
        some = slice(start, start + at_once)
        ranked += _ranked_together(boxes[some], scores[some], usable[some], levels, side, threshold)
    marks = [is_kept & (is_kept.cumsum(0) <= most) for _, is_kept in ranked]
    return [of_images[rows] for (of_images, _), rows in zip(ranked, marked_rows(*marks), strict=True)]


def _ranked_together(
    boxes: Tensor, scores: Tensor, usable: Tensor, levels: Tensor, side: int, threshold: float
) -> list[tuple[Tensor, Tensor]]:
    # Returns the boxes of all images that are left after one NMS, for whose result the host waits, [K, 4] by descending score,
    # and for each image, which of them are proposals of the image, bool [K]. Each level of each image has a tile of `side` x
    # `side` pixels of its own, so that boxes of different tiles do not overlap. Unusable boxes come last and drop none.
    images, count = scores.shape
    image = torch.arange(images, device=boxes.device)[:, None]
    corners = side * torch.stack([levels.expand(images, -1), image.expand(-1, count)], 2)
    in_tiles = (boxes + corners.repeat(1, 1, 2)).flatten(0, 1)
    left = nms(in_tiles, scores.masked_fill(~usable, -1).flatten(), threshold)
    of_images = boxes.flatten(0, 1)[left]
    return [(of_images, is_kept) for is_kept in (left // count == image) & usable.flatten()[left]]
