"""Cuts out squares around objects of a dataset, and repeats them on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detr_core.data.annotations import Annotations
from detr_core.data.images import read_image

_CROWDED = 100  # shares of overlap that differ by less than a hundredth count as equal


@dataclass(frozen=True)
class Crop:
    """A square image with one object. image: uint8 RGB [3, s, s]. box [4]: the object's box, xyxy in pixels of the square."""

    image: Tensor
    box: Tensor


def clear_objects(annotations: Annotations, label: int, count: int, cell: int, object_size: float) -> list[Crop]:
    """Returns up to `count` most isolated objects of a class, each in a square of `cell` pixels.

    The object's longer side has the share `object_size` of the square's side. Objects that touch the border of their image, or
    whose square does not fit into the image, are left out. The objects are sorted by the overlap of their square with boxes of
    other objects, then by the amount of resizing that they need.
    """
    ranked = []
    for image, size in enumerate(annotations.sizes):
        objects = range(int(annotations.first[image]), int(annotations.first[image + 1]))
        boxes = annotations.boxes[objects.start : objects.stop].astype(np.float64)
        for index in np.flatnonzero(annotations.labels[objects.start : objects.stop] == label).tolist():
            square = _square(boxes[index], size, object_size)
            if square is not None:
                overlap = round(_CROWDED * _covered(square, np.delete(boxes, index, axis=0)))
                ranked.append((overlap, abs(math.log((square[2] - square[0]) / cell)), image, objects[index], square))
    ranked.sort(key=lambda candidate: candidate[:4])
    return [_cut(annotations, image, number, square, cell) for _, _, image, number, square in ranked[:count]]


def tiled(crop: Crop, grid: int) -> tuple[Tensor, Tensor]:
    """Returns an image with the square in every cell, uint8 [3, grid * s, grid * s], and the objects' boxes, row by row.

    The boxes [grid * grid, 4] are xyxy in pixels.
    """
    side = crop.image.shape[-1]
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    corner = side * torch.stack([x, y, x, y], dim=-1).flatten(0, 1)
    return crop.image.repeat(1, grid, grid), crop.box + corner


def masked(image: Tensor, visible: Tensor, fill: Sequence[int]) -> Tensor:
    """Returns a copy of a tiled image, [B, 3, s, s], for every row of `visible`, bool [B, cells], with hidden cells filled."""
    grid = math.isqrt(visible.shape[1])
    side = image.shape[-1] // grid
    visible_pixels = visible.view(-1, 1, grid, grid).repeat_interleave(side, 2).repeat_interleave(side, 3)
    return torch.where(visible_pixels, image, torch.tensor(fill, dtype=torch.uint8).view(3, 1, 1))


def _square(box: npt.NDArray[np.float64], size: tuple[int, int], object_size: float) -> tuple[int, int, int, int] | None:
    # Returns the square around the object (xyxy), moved into the image; None if it does not fit or the object may be cut off.
    height, width = size
    x1, y1, x2, y2 = box.tolist()
    side = round(max(x2 - x1, y2 - y1) / object_size)
    if side > min(size) or min(x1, y1, width - x2, height - y2) < 1:
        return None
    left, top = (
        min(max(0, round((low + high - side) / 2)), extent - side) for low, high, extent in ((x1, x2, width), (y1, y2, height))
    )
    return left, top, left + side, top + side


def _covered(square: tuple[int, int, int, int], boxes: npt.NDArray[np.float64]) -> float:
    # Returns the area of the boxes inside the square as a share of the square's area.
    low, high = np.maximum(boxes[:, :2], square[:2]), np.minimum(boxes[:, 2:], square[2:])
    return float(np.clip(high - low, 0, None).prod(axis=1).sum()) / (square[2] - square[0]) ** 2


def _cut(annotations: Annotations, image: int, number: int, square: tuple[int, int, int, int], cell: int) -> Crop:
    left, top, right, bottom = square
    whole_image = read_image(annotations.files[image], annotations.sizes[image], annotations.value_ranges)
    pixels = whole_image[:, top:bottom, left:right]
    box = torch.from_numpy(annotations.boxes[number] - np.array([left, top, left, top], dtype=np.float32))
    return Crop(F.resize(pixels, [cell, cell], antialias=True), box * (cell / (right - left)))
