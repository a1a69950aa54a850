"""Determines the area of an object, by which average precision distinguishes small, medium and large objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detr_core.data.masks import decoded

LARGEST = 2**53  # no image has as many pixels; the limit also refuses infinity and nan
# Pixels by which an area may reach beyond its box: some exporters count the last pixel in, or rasterise a polygon.
SLACK = 2


def is_plausible(area: Any, box: Sequence[float]) -> bool:
    """Returns whether `area` (square pixels) can be the area of an object with this `box` (x, y, w, h, pixels).

    An object fits into its box and reaches all four of its sides, so its area is neither larger than the box nor a tiny part
    of it. Areas of 0 everywhere, of normalised coordinates, or of an image before it was resized are not plausible.
    """
    if type(area) not in (int, float) or not 0 < area < LARGEST:
        return False
    width, height = box[2:]
    return bool(area <= (width + SLACK) * (height + SLACK) and 2 * area >= max(width, height))


def scored_area(entry: dict[str, Any], size: tuple[int, int]) -> float:
    """Returns the area in square pixels that decides an annotation's size class in average precision.

    It is the annotation's own `area` if that is plausible, else the area of its mask, else the area of its box.
    size: (h, w) of the image. Raises the errors of `decoded` for a mask that can't be decoded.
    """
    area, box = entry.get("area"), entry["bbox"]
    if is_plausible(area, box):
        return float(entry["area"])
    if entry.get("segmentation"):
        pixels = int(decoded(entry["segmentation"], size).sum())
        if pixels:
            return float(pixels)
    return float(box[2]) * float(box[3])
