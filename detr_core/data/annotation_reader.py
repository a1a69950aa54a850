"""Reads the annotations of a split: from its index if it has one that fits, else from the annotation file."""

from __future__ import annotations

from detr_core.data.annotation_cache import indexed
from detr_core.data.annotations import Annotations, Targets, annotation_file, annotations_of, parsed
from detr_core.data.splits import Split


def read_annotations(split: Split, targets: Targets, masks: bool) -> Annotations:
    """Returns the objects of `split`: instances, or panoptic segments (things and stuff).

    They are read from the split's index if it has one that fits the annotation file. For files of COCO's size this takes less
    than a second, and parsing takes several. Raises DatasetError, which names the file and the field, for a file that is missing
    or malformed.
    """
    return indexed(split, targets, masks) or annotations_of(
        parsed(annotation_file(split, targets), targets, masks), split, targets
    )
