"""Checks pixel values: finds the ranges by which images of more than 8 bits per value are scaled, and images of one colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from detr_core.check.entries import ImageEntry
from detr_core.check.findings import Finding
from detr_core.check.pixels import Seen
from detr_core.data.values import Range, Spread, ranges_of, scaled

Job = tuple[Path, tuple[int, int]]  # an image file, and the size that it is annotated with

_LEVELS = 4  # of 256: an image that spans fewer levels counts as one of a single colour


def value_findings(
    jobs: Mapping[str, Mapping[Job, list[tuple[str, ImageEntry]]]], seen: Mapping[Job, Seen], value_range: Range | None
) -> tuple[dict[str, Range] | None, list[Finding]]:
    """Returns the ranges of the dataset by sample type (None if no image has more than 8 bits per value), and the findings.

    jobs: the images of each split. seen: what the check read from each image file. value_range: the profile's range for all
    sample types; None for the ranges of the dataset's values.
    """
    spreads = [found.spread for found in seen.values() if found.spread is not None]
    ranges = ranges_of(spreads) if value_range is None else {each.kind: value_range for each in spreads}
    findings = []
    for split, images in jobs.items():
        for job, entries in images.items():
            found, image = seen[job], entries[0][1]
            if found.spread is not None:
                findings.append(Finding("image_deep", split, "", image.id, image.name, detail=_scaling(found.spread, ranges)))
            if found.constant or (found.spread is not None and _shows_nothing(found.spread, ranges)):
                detail = "one colour" if found.spread is None else _values(found.spread)
                findings.append(Finding("image_constant", split, "", image.id, image.name, detail=detail))
    return ranges or None, findings


def _shows_nothing(found: Spread, ranges: Mapping[str, Range]) -> bool:
    if found.low == found.high or found.kind not in ranges:
        return True
    low, high = scaled(np.array([found.low, found.high]), ranges[found.kind]).tolist()
    return int(high) - int(low) < _LEVELS


def _scaling(found: Spread, ranges: Mapping[str, Range]) -> str:
    if found.kind not in ranges:
        return _values(found)
    low, high = ranges[found.kind]
    return f"{_values(found)}; {low:g} to {high:g} become 0 to 255"


def _values(found: Spread) -> str:
    return f"{found.kind} values of {found.low:g} to {found.high:g}"
