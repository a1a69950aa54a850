"""Checks pixel values: finds the ranges by which images of more than 8 bits per value are scaled, and images of one colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from detr_core.check.entries import ImageEntry
from detr_core.check.findings import Finding
from detr_core.check.pixels import CheckedImage
from detr_core.data.values import Range, ValueSpread, ranges_of, to_8_bits

Job = tuple[Path, tuple[int, int]]  # an image file, and the size that it is annotated with

_LEVELS = 4  # an image that spans fewer of the 256 levels counts as an image of one colour


def value_findings(
    jobs: Mapping[str, Mapping[Job, list[tuple[str, ImageEntry]]]],
    contents: Mapping[Job, CheckedImage],
    value_range: Range | None,
) -> tuple[dict[str, Range] | None, list[Finding]]:
    """Returns the ranges of the dataset by sample type (None if no image has more than 8 bits per value), and the findings.

    jobs: the images of each split. contents: what the check read from each image file. value_range: the profile's range for all
    sample types; None for the ranges of the dataset's values.
    """
    spreads = [content.spread for content in contents.values() if content.spread is not None]
    ranges = ranges_of(spreads) if value_range is None else {spread.kind: value_range for spread in spreads}
    findings = []
    for split, images in jobs.items():
        for job, entries in images.items():
            content, image = contents[job], entries[0][1]
            if content.spread is not None:
                findings.append(Finding("image_deep", split, "", image.id, image.name, detail=_scaling(content.spread, ranges)))
            if content.constant or (content.spread is not None and _shows_nothing(content.spread, ranges)):
                detail = "one colour" if content.spread is None else _values(content.spread)
                findings.append(Finding("image_constant", split, "", image.id, image.name, detail=detail))
    return ranges or None, findings


def _shows_nothing(spread: ValueSpread, ranges: Mapping[str, Range]) -> bool:
    if spread.low == spread.high or spread.kind not in ranges:
        return True
    low, high = to_8_bits(np.array([spread.low, spread.high]), ranges[spread.kind]).tolist()
    return int(high) - int(low) < _LEVELS


def _scaling(spread: ValueSpread, ranges: Mapping[str, Range]) -> str:
    if spread.kind not in ranges:
        return _values(spread)
    low, high = ranges[spread.kind]
    return f"{_values(spread)}; {low:g} to {high:g} become 0 to 255"


def _values(spread: ValueSpread) -> str:
    return f"{spread.kind} values of {spread.low:g} to {spread.high:g}"
