"""Writes the lines that `adopt` prints about the annotations of a dataset before it reads any image."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detr_core.check.findings import FINDING_KINDS, Finding
from detr_core.check.statistics import Statistics
from detr_core.data.splits import DatasetError
from detr_core.sources.formats.coco_layout import AnnotationFile, CocoLayout
from detr_core.sources.image_entries import present_name
from detr_core.sources.picture_files import missing_note, picture_files
from detr_core.wording import counted

_BACKSLASH = "\\"


def finding_notes(findings: Sequence[Finding]) -> list[str]:
    """Returns a line for each kind of finding, with the number of findings in each split and the first finding."""
    lines = []
    for name, kind in FINDING_KINDS.items():
        kind_findings = [finding for finding in findings if finding.kind == name]
        if kind_findings:
            splits = Counter(finding.split for finding in kind_findings)
            numbers = ", ".join(f"{number:,} in {split}" for split, number in splits.items())
            strict = "" if kind.leaves is None else " (`check.mode: strict` stops at it, `lenient` leaves it out)"
            lines.append(f"{kind.words}: {numbers}; the first: {where(kind_findings[0])}{strict}")
    return lines


def coco_notes(folder: Path, layout: CocoLayout) -> list[str]:
    """Returns lines on how a COCO dataset is divided, and on annotation files and images that are missing or not used."""
    notes = []
    if "test" in layout.files:
        test_files = ", ".join(_described(file, folder) for file in layout.files["test"])
        if "val" in layout.files:
            notes.append(f"the test set, {test_files}, is used neither for training nor for validation")
        else:
            notes.append(f"there is no validation set: the test set, {test_files}, is used for validation")
    elif "val" not in layout.files:
        notes.append("there is no validation set: a share of the training images is used for validation")
    notes += [f"{file.path.relative_to(folder)} is not used: {_contents(file)}" for file in layout.unused]
    return notes + _missing(folder, layout) + _unlisted(folder, layout)


def _described(file: AnnotationFile, folder: Path) -> str:
    return f"{file.path.relative_to(folder)} ({_contents(file)})"


def _contents(file: AnnotationFile) -> str:
    return f"{counted(file.images, 'image')}, {counted(file.annotations, 'annotation')}"


def _missing(folder: Path, layout: CocoLayout) -> list[str]:
    """Returns a line for each split that lists images without a file."""
    notes = []
    for split, entry in layout.splits.items():
        names = sorted({name for file in layout.files[split] for name in file.names})
        missing = [
            _comparable(f"{entry['images']}/{name}") for name in names if present_name(folder / entry["images"], name) is None
        ]
        notes += missing_note(split, missing, len(names))
    return notes


def _unlisted(folder: Path, layout: CocoLayout) -> list[str]:
    """Returns a line for each folder with images that no annotation file lists."""
    masks = tuple(f"{entry['panoptic_masks']}/" for entry in layout.splits.values() if entry["panoptic_masks"])
    notes = []
    names_in_files = {
        name
        for split, entry in layout.splits.items()
        for file in layout.files[split]
        for name in _expected_paths(entry["images"], file)
    }
    for images in dict.fromkeys(entry["images"] for entry in layout.splits.values()):
        known_paths = names_in_files.union(*(_expected_paths(images, file) for file in layout.unused))
        pictures = [_comparable(f"{images}/{name}") for name in picture_files(folder / images)]
        pictures = [name for name in pictures if not name.startswith(masks)]
        unlisted = [name for name in pictures if name not in known_paths]
        if unlisted:
            predicate = "is in no annotation file and is" if len(unlisted) == 1 else "are in no annotation file and are"
            notes.append(
                f"{images}: {len(unlisted):,} of {counted(len(pictures), 'image')} {predicate} not used, such as {unlisted[0]}"
            )
    return notes


def _expected_paths(images: str, file: AnnotationFile) -> list[str]:
    """Returns the expected paths, relative to the dataset's folder, of the images that an annotation file lists."""
    return [_comparable(f"{images}/{name.replace(_BACKSLASH, '/')}") for name in file.names]


def _comparable(path: str) -> str:
    return unicodedata.normalize("NFC", os.path.normpath(path))


def require_images(statistics: Mapping[str, Statistics], findings: Sequence[Finding], folder: Path) -> None:
    """Raises DatasetError if a split has no image that can be used; the message says why."""
    for name, split in statistics.items():
        if not split.sizes:
            image_findings = [finding for finding in findings if finding.split == name and finding.leaves == "image"]
            reason = "the split lists no image"
            if image_findings:
                number, first = counted(len(image_findings), "finding"), image_findings[0]
                reason = f"{number}: {FINDING_KINDS[first.kind].words}; the first: {where(first)}"
            raise DatasetError(f"{folder}: {name}: expected an image that can be used, found none: {reason}")


def where(finding: Finding) -> str:
    """Returns the file or the entry that a finding is about, and its details."""
    entries = "images" if finding.leaves == "image" else "annotations"
    entry = "" if finding.entry_index is None else f"{entries}[{finding.entry_index}]"
    return ": ".join(part for part in (finding.file or entry, finding.detail) if part)
