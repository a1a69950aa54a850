"""Places the predictions for an instance in its image: its mask, and the semantic logit of its class inside its box.

In shapes, K is the number of instances of an image, C the number of semantic channels (stuff classes, then thing classes), and
[H, W] the size of the map on which the panoptic head works. Boxes are xyxy in pixels of that map.
"""

from __future__ import annotations

import torch
from torch import Tensor


def placed_masks(mask_logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns mask logits [K, *size], which are 0 outside of the boxes. mask_logits [K, h, w]: one mask over each box [K, 4].

    The corners of a box are truncated to integers, and both belong to it. A mask is resized bilinearly, with the centres of
    pixels as the points of both grids.
    """
    rows = _axis_weights(boxes[:, 1], boxes[:, 3], mask_logits.shape[1], size[0])
    columns = _axis_weights(boxes[:, 0], boxes[:, 2], mask_logits.shape[2], size[1])
    return rows @ mask_logits @ columns.transpose(1, 2)


def _axis_weights(start: Tensor, end: Tensor, cells: int, pixels: int) -> Tensor:
    # Returns the weight of each cell of a mask for each pixel along one axis of the map, [K, pixels, cells]. Bilinear resizing is
    # linear along each axis, so two of these matrices resize and place a mask.
    first = start.trunc()
    length = (end.trunc() - first + 1).clamp(min=1)[:, None]
    position = torch.arange(pixels, device=start.device) + 0.5 - first[:, None]  # centres of the pixels, relative to the box
    source = (position * cells / length - 0.5).clamp(0, cells - 1)
    weights = 1 - (source[..., None] - torch.arange(cells, device=start.device)).abs()
    inside = (position > 0) & (position < length)
    return weights.clamp(min=0) * inside[..., None]


def semantic_parts(semantic_logits: Tensor, channels: Tensor, boxes: Tensor) -> Tensor:
    """Returns the semantic logits [K, H, W] of the instances' classes, which are 0 outside of the boxes [K, 4].

    semantic_logits [C, H, W]. channels [K]: the semantic channel of each instance's class.
    """
    height, width = semantic_logits.shape[1:]
    rows = _is_inside(boxes[:, 1], boxes[:, 3], height)
    columns = _is_inside(boxes[:, 0], boxes[:, 2], width)
    return torch.where(rows[:, :, None] & columns[:, None, :], semantic_logits[channels], 0)


def _is_inside(start: Tensor, end: Tensor, pixels: int) -> Tensor:
    # Returns whether each pixel along one axis belongs to the box, [K, pixels]. The far corner is rounded here and truncated for
    # masks. No result of the paper needs this difference, but the authors' results have it.
    position = torch.arange(pixels, device=start.device)
    return (position >= start.trunc()[:, None]) & (position <= end.round()[:, None])
