"""Defines the kinds of faults that the data check can find, each with a description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FindingKind:
    """A kind of finding.

    words: the description. leaves: what a lenient check leaves out because of the finding: 'image', 'object', or None for
    nothing. stops: True if even a lenient check refuses the dataset, because leaving something out would not help.
    """

    words: str
    leaves: Literal["image", "object"] | None
    stops: bool = False

    @property
    def broken(self) -> bool:
        """Whether the data has to be repaired or left out; other findings are only reported."""
        return self.leaves is not None or self.stops


FINDING_KINDS = {
    "nothing_to_learn": FindingKind(
        "a split without any object to learn from (crowds, broken objects and broken images do not count)", None, stops=True
    ),
    "image_entry": FindingKind("an image entry that lacks a field or names a file outside of the folder", "image"),
    "image_labels": FindingKind("an image whose label file is missing, damaged or may belong to another image", "image"),
    "image_id": FindingKind("an image with the id of another image, so that their annotations can't be distinguished", "image"),
    "image_missing": FindingKind("an image whose file is missing", "image"),
    "image_link": FindingKind("an image that is a link to a file outside of its folder", "image"),
    "image_empty": FindingKind("an image file of 0 bytes", "image"),
    "image_truncated": FindingKind("an image file cut short", "image"),
    "image_unreadable": FindingKind("a file that is damaged or is not an image", "image"),
    "image_size": FindingKind("an image of another size than annotated", "image"),
    "duplicate_across": FindingKind("a training image that is in val too", "image"),
    "panoptic_png": FindingKind("a panoptic PNG that is missing, unreadable or of another size", "image"),
    "panoptic_unknown_segment": FindingKind("a panoptic PNG with a segment that the JSON file does not list", "image"),
    "panoptic_missing_segment": FindingKind("a panoptic segment without a pixel in its PNG", "object"),
    "object_entry": FindingKind("an annotation that is malformed or lacks a field", "object"),
    "object_id": FindingKind("an annotation with the id of another annotation", "object"),
    "object_without_image": FindingKind("an annotation of an unknown image", "object"),
    "unknown_category": FindingKind("an annotation of a category that isn't listed", "object"),
    "box_degenerate": FindingKind("a box whose width or height is not positive, or whose values are not finite", "object"),
    "box_outside": FindingKind("a box wholly outside its image", "object"),
    "polygon_broken": FindingKind("polygons of fewer than 3 points, of odd length, not finite or without extent", "object"),
    "rle_broken": FindingKind("run lengths that don't cover the image", "object"),
    "image_size_read": FindingKind("an image without a width and height, which were read from its file", None),
    "object_area": FindingKind(
        "an annotation whose area contradicts its box, and which is scored with the area of its mask or box", None
    ),
    "object_without_mask": FindingKind(
        "an object without a mask although other objects have one; it is not used to train masks; if it is in val, no masks are "
        "scored",
        None,
    ),
    "columns_left_out": FindingKind(
        "an object whose label has more than a box (keypoints, a confidence, a track id), which is left out", None
    ),
    "box_clipped": FindingKind("a box partly outside its image, by more than a pixel", None),
    "object_repeated": FindingKind("an object annotated twice, with the same box and category", None),
    "duplicate_within": FindingKind("an image that is in its split twice", None),
    "panoptic_area": FindingKind("a panoptic segment whose area differs from its pixels in the PNG", None),
    "category_repeated": FindingKind("a category with the same name as another one", None),
    "category_unused": FindingKind("a category without an object in train", None),
    "image_deep": FindingKind(
        "an image of more than 8 bits per value, which is scaled to 8 bits by the range of the dataset", None
    ),
    "image_constant": FindingKind("an image of one colour, or of nearly one after it is scaled to 8 bits", None),
    "many_objects": FindingKind("an image with more objects than the detector has queries", None),
}


@dataclass(frozen=True)
class Finding:
    """One fault of a dataset.

    kind: a key of FINDING_KINDS. split: 'train' or 'val'. source: the annotation file, 'instances' or 'panoptic'; '' if the
    finding concerns no annotation file. image_id, file: the image; None and '' if there is none. entry_index: the index of the
    entry in the file's list, which is `images` if the finding leaves out an image, else `annotations`. segment: the id of a
    panoptic segment in that entry. box: xywh in pixels, None if it is not known. detail: what was found.
    """

    kind: str
    split: str
    source: str = ""
    image_id: int | None = None
    file: str = ""
    entry_index: int | None = None
    segment: int | None = None
    box: tuple[float, float, float, float] | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        for name in ("file", "detail"):  # a file may hold half a character (a lone surrogate), which can't be printed
            object.__setattr__(self, name, getattr(self, name).encode("utf-8", "backslashreplace").decode())

    @property
    def leaves(self) -> str | None:
        """What a lenient check leaves out because of the finding: 'image', 'object' or None."""
        return FINDING_KINDS[self.kind].leaves


def counts(findings: list[Finding]) -> dict[str, int]:
    """Returns the number of findings of every kind, including 0, in the order of FINDING_KINDS."""
    numbers = dict.fromkeys(FINDING_KINDS, 0)
    for finding in findings:
        numbers[finding.kind] += 1
    return numbers
