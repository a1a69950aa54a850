"""Checks the polygons and run lengths of `segmentation` without decoding them, so that no damaged mask reaches the C decoder."""

from __future__ import annotations

import math
from typing import Any

from detr_core.data.fields import farthest
from detr_core.data.run_lengths import run_lengths


def outline_fault(segmentation: Any, size: tuple[int, int]) -> tuple[str, str] | None:
    """Returns the kind and the detail of a finding about a segmentation in an image of `size` (h, w), or None if it is valid.

    One polygon with at least three points and an extent is enough, because readers of masks ignore shorter polygons.
    """
    if isinstance(segmentation, list):
        fault = _polygons_fault(segmentation, farthest(size))
        return None if fault is None else ("polygon_broken", fault)
    if isinstance(segmentation, dict):
        fault = _rle_fault(segmentation, size)
        return None if fault is None else ("rle_broken", fault)
    return "polygon_broken", f"expected polygons or run lengths, found {type(segmentation).__name__}"


def _polygons_fault(polygons: list[Any], largest: int) -> str | None:
    valid = 0
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(type(value) in (int, float) for value in polygon):
            return "expected a list of numbers for each polygon"
        if len(polygon) % 2:
            return f"expected pairs of x and y, found {len(polygon)} numbers"
        if not all(map(math.isfinite, polygon)):
            return "expected finite numbers"
        if any(abs(value) > largest for value in polygon):
            return f"expected coordinates of at most {largest} pixels, found larger ones"
        valid += len(polygon) >= 6 and max(polygon[0::2]) > min(polygon[0::2]) and max(polygon[1::2]) > min(polygon[1::2])
    return None if valid else "expected a polygon of at least 3 points with an extent, found none"


def _rle_fault(rle: dict[str, Any], size: tuple[int, int]) -> str | None:
    try:
        lengths = run_lengths(rle, size)
    except ValueError as error:
        return str(error)
    return None if sum(lengths[1::2]) else "expected run lengths with a pixel inside the mask, found none"
