"""Polygons and run lengths of `segmentation`, checked without decoding them: a damaged one must not reach a decoder in C."""

from __future__ import annotations

import math
from typing import Any


def outline_fault(segmentation: Any, size: tuple[int, int]) -> tuple[str, str] | None:
    """What is wrong with a segmentation in an image of `size` (h, w): the kind of finding and the detail; None where it is well.

    One polygon of three points or more, with an extent, is enough: what reads masks passes over shorter ones.
    """
    if isinstance(segmentation, list):
        fault = _polygons_fault(segmentation)
        return None if fault is None else ("polygon_broken", fault)
    if isinstance(segmentation, dict):
        fault = _rle_fault(segmentation, size)
        return None if fault is None else ("rle_broken", fault)
    return "polygon_broken", f"expected polygons or run lengths, found {type(segmentation).__name__}"


def _polygons_fault(polygons: list[Any]) -> str | None:
    whole = 0
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(type(value) in (int, float) for value in polygon):
            return "expected a list of numbers for each polygon"
        if len(polygon) % 2:
            return f"expected pairs of x and y, found {len(polygon)} numbers"
        if not all(map(math.isfinite, polygon)):
            return "expected finite numbers"
        if any(abs(value) > 1e6 for value in polygon):
            return "expected pixels, found a number beyond a million"
        whole += len(polygon) >= 6 and max(polygon[0::2]) > min(polygon[0::2]) and max(polygon[1::2]) > min(polygon[1::2])
    return None if whole else "expected a polygon of at least 3 points with an extent, found none"


def _rle_fault(rle: dict[str, Any], size: tuple[int, int]) -> str | None:
    if rle.get("size") != list(size):
        return f"expected size {list(size)}, found {str(rle.get('size'))[:40]}"
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = _decompressed(counts, size[0] * size[1])
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        return "expected run lengths of 0 or more"
    if sum(counts) != size[0] * size[1]:
        return f"expected runs of {size[0] * size[1]} pixels in all, found {sum(counts)}"
    return None if sum(counts[1::2]) else "expected a pixel inside, found none"


def _decompressed(text: str, pixels: int) -> list[int] | None:
    """COCO's compressed run lengths: 5 bits a character, the 6th says that more follow; from the third on, differences to
    the run before the last. None where the text is not of that form."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            if len(counts) > 2:
                value += counts[-2]
            counts.append(value)
            if len(counts) > pixels + 2:
                return None
            value = shift = 0
    return None if shift else counts
