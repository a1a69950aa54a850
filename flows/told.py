"""What `adopt` prints about the annotations of a folder before it reads any image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detr_core.check.findings import KINDS, Finding
from detr_core.check.statistics import Statistics
from detr_core.data.dataset import DatasetError
from flows.coco_layout import AnnotationFile


def told(findings: Sequence[Finding]) -> list[str]:
    """A line for each kind of finding: how many findings of the kind there are in each split, and the first of them."""
    lines = []
    for name, kind in KINDS.items():
        own = [finding for finding in findings if finding.kind == name]
        if own:
            splits = Counter(finding.split for finding in own)
            counted = ", ".join(f"{number:,} in {split}" for split, number in splits.items())
            strict = "" if kind.leaves is None else " (`check.mode: strict` stops at it, `lenient` leaves it out)"
            lines.append(f"{kind.words}: {counted}; the first: {where(own[0])}{strict}")
    return lines


def unused(files: Sequence[AnnotationFile], folder: Path) -> list[str]:
    """A line for each annotation file that no split of the profile reads."""
    return [
        f"{file.path.relative_to(folder)} is not used: {file.images:,} images, {file.annotations:,} annotations" for file in files
    ]


def require_images(statistics: Mapping[str, Statistics], findings: Sequence[Finding], folder: Path) -> None:
    """Raises DatasetError if a split has no image that can be used; the message says why."""
    for name, found in statistics.items():
        if not found.sizes:
            own = [finding for finding in findings if finding.split == name and finding.leaves == "image"]
            why = f"{len(own)} x {KINDS[own[0].kind].words}; the first: {where(own[0])}" if own else "it lists none"
            raise DatasetError(f"{folder}: {name}: expected an image that can be used, found none: {why}")


def where(finding: Finding) -> str:
    """Which entry a finding is about, and what was found."""
    listed = "images" if finding.leaves == "image" else "annotations"
    place = "" if finding.place is None else f"{listed}[{finding.place}]"
    return ": ".join(part for part in (finding.file or place, finding.detail) if part)
