"""Measures the share of an attention map that lies in a region, and the region's share of the image."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from detr_core.structures import Target
from detr_core.studies.claims import Comparison, SeedDifference
from detr_core.studies.measurements.bootstrap import ratio_interval


@dataclass
class Mass:
    """The attention in a region and the region's area, summed over objects.

    mass: the share of the attention. area: the region's share of the image, which is the share of a uniform distribution.
    by_image: the two sums for each image.
    """

    mass: float = 0.0
    area: float = 0.0
    by_image: list[tuple[float, float]] = field(default_factory=list)

    def add(self, maps: Tensor, regions: Tensor) -> None:
        """Adds the K objects of an image. maps [K, h, w]: attention of sum 1. regions [K, h, w]: the
        share of each position that lies in the region."""
        mass, area = float((maps * regions).sum()), float(regions.mean((1, 2)).sum())
        self.mass += mass
        self.area += area
        self.by_image.append((mass, area))

    def metrics(self, name: str, objects: int) -> dict[str, float]:
        """Returns '<name>/mass' and '<name>/area', means over `objects` objects in 0..1, and '<name>/times', their ratio."""
        if objects == 0 or self.area == 0:
            return {}
        return {
            f"{name}/mass": self.mass / objects,
            f"{name}/area": self.area / objects,
            f"{name}/times": self.mass / self.area,
        }


def compared(what: str, names: tuple[str, str], first: Mass, second: Mass) -> Comparison:
    """Compares the attention relative to the area in two regions of the same images.

    what, names: see Comparison. Its interval is over bootstrap samples of the images, because objects of one image are
    not independent. Both regions have an area.
    """
    masses = [np.array(region.by_image).T for region in (first, second)]
    bounds = ratio_interval((masses[0][0], masses[0][1]), (masses[1][0], masses[1][1]))
    low, high = bounds or (None, None)
    difference = SeedDifference(first.mass / first.area, second.mass / second.area, low, high)
    return Comparison(what, difference, names, units=len(first.by_image))


def write_regions(metrics: Mapping[str, float], names: Sequence[str], file: Path) -> None:
    """Writes a CSV file with one row per measured region: region, mass, area, times."""
    with file.open("w", encoding="utf-8", newline="") as content:
        table = csv.writer(content)
        table.writerow(["region", "mass", "area", "times"])
        for name in names:
            if f"{name}/mass" in metrics:
                table.writerow([name, *(metrics[f"{name}/{part}"] for part in ("mass", "area", "times"))])


def box_regions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns how much of every position of a map of `size` (h, w) lies in each box, [K, h, w] in 0..1.

    boxes [K, 4]: cxcywh, normalised to 0..1.
    """
    x1, y1, x2, y2 = box_convert(boxes, "cxcywh", "xyxy").unbind(-1)
    return _covered(y1, y2, size[0])[:, :, None] * _covered(x1, x2, size[1])[:, None, :]


def box_masks(target: Target) -> Tensor:
    """Returns the boxes of the target's objects as masks, bool [T, H, W] at the target's size, for data without masks."""
    (height, width), (x, y, w, h) = target.size, target.boxes.T[..., None]
    across = ((torch.arange(width) + 0.5) / width - x).abs() <= w / 2
    down = ((torch.arange(height) + 0.5) / height - y).abs() <= h / 2
    inside: Tensor = down[:, :, None] & across[:, None, :]
    return inside


def mask_regions(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns how much of every position of a map of `size` (h, w) lies in each mask, [K, h, w]. masks [K, H, W]: bool."""
    return F.interpolate(masks[:, None].float(), size=size, mode="area")[:, 0]


def position_of(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the index [K] of the cell of each point in a map of `size` (h, w), counted row by row.

    points [K, 2]: (x, y) in 0..1.
    """
    height, width = size
    column = (points[:, 0] * width).long().clamp(0, width - 1)
    row = (points[:, 1] * height).long().clamp(0, height - 1)
    return row * width + column


def _covered(low: Tensor, high: Tensor, cells: int) -> Tensor:
    # Divides 0..1 into `cells` equal parts, and returns the share of each part between low and high [K], [K, cells].
    edges = torch.arange(cells + 1, device=low.device) / cells
    overlap = torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])
    return overlap.clamp(min=0) * cells
